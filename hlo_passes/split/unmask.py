"""Decides which one-hot products of a module become rows, and makes a copy where they are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from jaxlib.mlir import ir

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
    products = _products(module)
    refusals = [(name, *one) for name, found in products.items() for one in found.refusals]
    chosen = {name: _within(found, regions.get(name, range(0))) for name, found in products.items()}
    names = [name for name, _ in walk_blocks(module.body)]
    while chosen := {name: places for name, places in chosen.items() if places}:
        copy = module.copy()
        index_blocks(copy, chosen)
        blocks = dict(zip(names, walk_blocks(copy.body), strict=True))
        shared = _unproved(module, blocks, products, chosen)
        if not shared:
            kept = {name: tuple(sorted(places)) for name, places in chosen.items()}
            now = {new: name for name, (new, _) in blocks.items()}
            return Indexed(copy, kept, now, tuple(refusals))
        refusals += shared
        for name, place, _ in shared:
            chosen[name].discard(place)
    return Indexed(module, {}, dict(zip(names, names, strict=True)), tuple(refusals))


def _products(module: Module) -> dict[str, RowProducts]:
    """Return the products with masks of every block that exchanges anything, by its name."""
    bodies = {name: Body(block) for name, block in walk_blocks(module.body)}
    return {
        name: find_row_products(body, number_values(body))
        for name, body in bodies.items()
        if exchanges_of(body)
    }


def _within(products: RowProducts, region: range) -> set[int]:
    """Return the exchanges in a region that products there write or read first.

    What reads rows later, as a gradient does, goes with the first reader wherever it is.
    """
    places = [(write.exchange, write.product.place) for write in products.writes]
    places += [(read.exchange, read.readers[0].place) for read in products.reads]
    return {exchange for exchange, place in places if exchange in region and place in region}


def _unproved(
    module: Module,
    blocks: Mapping[str, tuple[str, ir.Block]],
    products: Mapping[str, RowProducts],
    chosen: Chosen,
) -> list[tuple[str, int, str]]:
    """Return (block, exchange, why) for what is chosen and may send two tokens to one row.

    Args:
        module: before rows are moved by index.
        blocks: by the name of a block, its name and itself after that.
        products: by the name of a block, its products.
        chosen: beside which exchanges products become rows.
    """
    return [
        (name, place, why)
        for name, places in chosen.items()
        for place, why in _shared_in(Body(blocks[name][1]), module, name, products[name], places)
    ]


def _shared_in(
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
