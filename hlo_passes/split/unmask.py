"""Decides which one-hot products of a module become rows, and makes a copy where they are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hlo_passes.ir.stablehlo.blocks import exchanges_of, walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.sites import find_sites
from hlo_passes.layers.masks.products import RowProducts, find_row_products
from hlo_passes.proofs.value_numbers import number_values
from hlo_passes.split.index_rows import index_rows

_SHARED = (
    "nothing proves that no two tokens share a row of the one-hot mask: count slots as a prefix "
    "sum of one-hot experts"
)

type Chosen = Mapping[str, Collection[int]]
"""From the name of a block to places of all-to-alls beside which products become rows."""


@dataclass(frozen=True, eq=False)
class Indexed:
    """A copy of a module in which rows are moved by index.

    Attributes:
        module: the copy; the module itself if it has no such products.
        chosen: where it differs.
        names: from the names of its blocks to those in the module.
        refusals: (block, place of an all-to-all, why products beside it stay), in the module.
    """

    module: Module
    chosen: dict[str, tuple[int, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    refusals: tuple[tuple[str, int, str], ...] = ()


def index_module(module: Module, regions: Mapping[str, range]) -> Indexed:
    """Replace all one-hot products by rows that can be: those whose tokens share no row.

    Args:
        module: its context is active.
        regions: per block, the places of the ops that may change.
    """
    products: dict[str, RowProducts] = {}
    chosen: dict[str, set[int]] = {}
    refusals: list[tuple[str, int, str]] = []
    for name, block in walk_blocks(module.body):
        body = Body(block)
        if exchanges_of(body):
            found = products[name] = find_row_products(body, number_values(body))
            chosen[name] = _within(found, regions.get(name, range(0)))
            refusals += [(name, place, why) for place, why in found.refusals]
    while any(chosen.values()):
        copy = module.copy()
        index_blocks(copy, chosen)
        names = [name for name, _ in walk_blocks(module.body)]
        blocks = dict(zip(names, walk_blocks(copy.body), strict=True))
        shared = [
            (name, place, why)
            for name, places in chosen.items() if places
            for place, why in _unproved(Body(blocks[name][1]), module, name, products[name], places)
        ]  # fmt: skip
        if not shared:
            kept = {name: tuple(sorted(places)) for name, places in chosen.items() if places}
            now = {new: name for name, (new, _) in blocks.items()}
            return Indexed(copy, kept, now, tuple(refusals))
        for name, place, why in shared:
            chosen[name].discard(place)
            refusals.append((name, place, why))
    names = {name: name for name, _ in walk_blocks(module.body)}
    return Indexed(module, {}, names, tuple(refusals))


def _within(products: RowProducts, region: range) -> set[int]:
    """Return the exchanges in a region that products there write or read first.

    What reads rows later, as a gradient does, goes with the first reader wherever it is.
    """
    places = [(write.exchange, write.product.place) for write in products.writes]
    places += [(read.exchange, read.readers[0].place) for read in products.reads]
    return {exchange for exchange, place in places if exchange in region and place in region}


def _unproved(
    body: Body, module: Module, name: str, products: RowProducts, chosen: Collection[int]
) -> list[tuple[int, str]]:
    """Return the chosen exchanges that send no rows of which no two tokens share one, and why."""
    before = exchanges_of(Body(dict(walk_blocks(module.body))[name]))
    now = dict(zip(before, exchanges_of(body), strict=True))
    sites = find_sites(body)
    puts = {site.exchange: site for site in sites.puts}
    fetches = {site.exchange: site for site in sites.fetches}
    why = dict(sites.refusals)
    found = []
    for exchange in sorted(chosen):
        for products_, sites_ in ((products.writes, puts), (products.reads, fetches)):
            if exchange not in {product.exchange for product in products_}:
                continue
            site = sites_.get(now[exchange])
            if site is None:
                found.append((exchange, why.get(now[exchange], "its rows are not found again")))
            elif not site.distinct:
                found.append((exchange, _SHARED))
    return found


def index_blocks(module: Module, chosen: Chosen) -> None:
    """Replace one-hot products beside the given exchanges by rows, in place."""
    with module.ir.context:
        for name, block in list(walk_blocks(module.body)):
            if places := chosen.get(name):
                body = Body(block)
                numbers = number_values(body)
                index_rows(body, numbers, find_row_products(body, numbers), places)
