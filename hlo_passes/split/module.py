"""Applies planned splits to a module."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.cut.spread import States, outside, spread_cuts
from hlo_passes.cut.states import Cut
from hlo_passes.errors import PlanError
from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.blocks import walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.capacity.row_paths import CutSites, RowPaths, find_row_paths
from hlo_passes.layers.capacity.sites import Site, Sites, find_sites
from hlo_passes.layers.dropless.layers import (
    DroplessCut,
    DroplessLayer,
    cut_layer,
    find_layers,
    tokens_of,
)
from hlo_passes.plans import Split
from hlo_passes.proofs.engine import NotProved
from hlo_passes.split.block import cut_block
from hlo_passes.split.loops import unroll
from hlo_passes.split.rows import TOKENS, RowExchange
from hlo_passes.split.unmask import index_blocks


@dataclass(frozen=True)
class TokenCut:
    """How a block can be cut along its tokens.

    Attributes:
        states: of the ops within reach.
        sites: exchanges whose rows can be sent part by part.
        refusals: per exchange of a dropless layer that is not cut into so many parts, why.
    """

    states: States
    sites: CutSites
    refusals: tuple[tuple[int, str], ...] = ()


def cut_tokens(
    body: Body,
    sites: Sites,
    rows: RowPaths,
    k: int,
    ops: Collection[int],
    dropless: Sequence[DroplessLayer] = (),
) -> TokenCut:
    """Work out how the given ops of a block are cut along the tokens of its exchanges.

    Args:
        body: the block.
        sites: its puts and fetches.
        rows: ways from a put to a fetch on which rows are treated one by one.
        k: number of parts.
        ops: places of the ops that may be cut.
        dropless: layers that count and sort the rows of every part by themselves.
    """
    puts = tuple(site for site in sites.puts if _is_usable(body, site, k, ops))
    fetches = tuple(site for site in sites.fetches if _is_usable(body, site, k, ops))
    paths = tuple(path for path in rows.paths if path.put in puts and path.fetch in fetches)
    layers, refusals = _cut_layers(body, dropless, k, ops)
    found = CutSites(puts, fetches, paths, layers)
    seeds = [(value, TOKENS) for value in _tokens(body, found)]
    states = spread_cuts(body, seeds, k, _replaced(found))
    return TokenCut(states.limited_to(ops), found, refusals)


def _cut_layers(
    body: Body, layers: Sequence[DroplessLayer], k: int, ops: Collection[int]
) -> tuple[tuple[DroplessCut, ...], tuple[tuple[int, str], ...]]:
    """Return how layers are cut, and per exchange of those that are not, (its place, why)."""
    cuts, refusals = [], []
    for layer in layers:
        try:
            cuts.append(cut_layer(body, layer, k, ops))
        except NotProved as reason:
            refusals += [(one.place, str(reason)) for one in layer.exchanges]
    return tuple(cuts), tuple(refusals)


def _replaced(sites: CutSites) -> set[int]:
    """Return the places of the ops that parts have something else for."""
    groups = [site.ops for site in (*sites.puts, *sites.fetches)]
    groups += [path.dropped for path in sites.paths]
    groups += [cut.replaced for cut in sites.dropless]
    return set().union(*groups)


def _tokens(body: Body, sites: CutSites) -> Iterator[ir.Value]:
    """Yield the values that tokens lead, from which the cut spreads."""
    for site in sites.puts:
        op = body.ops[site.access]
        yield from (op.operands[2], op.operands[1])
    for site in sites.fetches:
        op = body.ops[site.access]
        yield from (op.results[0], op.operands[1])
    for cut in sites.dropless:
        yield from (*tokens_of(body, cut.layer), cut.layer.routing.ids)


def _is_usable(body: Body, site: Site, k: int, ops: Collection[int]) -> bool:
    """Whether a site lies in the region, and its tokens come in k equal parts."""
    shape = shape_of(body.ops[site.access].operands[1])
    leads = site.rows.index_dim != 0 and len(shape) > 0
    return leads and shape[0] % k == 0 and all(i in ops for i in site.ops)


def cut_module(module: Module, splits: Sequence[Split]) -> Module:
    """Return a copy of a module that is cut as planned.

    Raises:
        PlanError: if a split names a block or an op that the module does not have.
    """
    clone = module.copy()
    blocks = _index_planned(clone, splits)
    # The last stretch of a block first: what a cut moves stands behind it.
    ordered = sorted(splits, key=lambda split: -split.first)
    for name, (block, graph) in blocks.items():
        for split in ordered:
            if split.block == name:
                assert graph is not None
                exchanges = groups_of(graph, clone.devices)
                with clone.ir.context:
                    _cut(block, split, exchanges, clone.devices)
    missing = [split.block for split in splits if split.block not in blocks]
    if missing:
        raise PlanError(missing[0], "the plan cuts a block that this module does not have",
                        "plan this module again")  # fmt: skip
    clone.verify()
    return clone


def _index_planned(
    module: Module, splits: Sequence[Split]
) -> dict[str, tuple[ir.Block, Graph | None]]:
    """Make rows of one-hot products, as planned, in place.

    Returns:
        By the names that blocks had before, the blocks, and their graphs if anything is cut.
    """
    names = [name for name, _ in walk_blocks(module.body)]
    index_blocks(module, {split.block: split.indexed for split in splits if split.indexed})
    graphs = {g.name: g for g, _ in module.snapshot().walk()} if splits else {}
    # Loops are named by their place in the block around them, which may have moved.
    renamed = zip(names, walk_blocks(module.body), strict=True)
    return {name: (block, graphs.get(new)) for name, (new, block) in renamed}


def groups_of(graph: Graph, devices: int) -> dict[int, DeviceGroups]:
    """Return, per exchange of a block, by its place, the devices that take part together."""
    return {
        op.id: op.collective.groups or (tuple(range(devices)),)
        for op in graph.ops
        if op.collective is not None
    }


def _cut(block: ir.Block, split: Split, groups: dict[int, DeviceGroups], devices: int) -> None:
    body = Body(block)
    if split.last >= len(body.ops):
        raise PlanError(split.block, "the plan's places do not fit this block",
                        "plan this module again")  # fmt: skip
    if split.along == "trips":
        unroll(block.owner.operation, split.k)
        return
    ops = frozenset(range(split.first, split.last + 1))
    if split.along == "capacity":
        seeds = [(body.ops[at].operands[0], Cut(dim, outer)) for at, dim, outer in split.seeds]
        cut_block(body, spread_cuts(body, seeds, split.k, outside(body, split.only)))
        return
    sites = find_sites(body)
    layers = find_layers(body, sites.numbers, groups, devices).layers
    found = cut_tokens(body, sites, find_row_paths(body, sites), split.k, ops, layers)
    rows = RowExchange(sites.numbers, split.ragged, groups)
    cut_block(body, found.states, found.sites, rows)
