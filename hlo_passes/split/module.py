"""Applies planned splits to a module."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.cut.spread import States, outside, spread_cuts
from hlo_passes.cut.states import Cut
from hlo_passes.errors import PlanError
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
from hlo_passes.split.rows import TOKENS, Groups, RowExchange
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
    """Work out how the given ops of a block are cut along the tokens of its exchanges."""
    puts = tuple(site for site in sites.puts if _is_usable(body, site, k, ops))
    fetches = tuple(site for site in sites.fetches if _is_usable(body, site, k, ops))
    fixed = {i for site in (*puts, *fetches) for i in site.ops}
    paths = tuple(path for path in rows.paths if path.put in puts and path.fetch in fetches)
    fixed |= {i for path in paths for i in path.dropped}
    cuts, refusals = [], []
    for layer in dropless:
        try:
            cuts.append(cut_layer(body, layer, k, ops))
        except NotProved as reason:
            refusals += [(one.place, str(reason)) for one in layer.exchanges]
    fixed |= {i for cut in cuts for i in cut.replaced}
    seeds = [*_seeds(body, puts, fetches), *(s for cut in cuts for s in _dropless_seeds(body, cut))]
    states = spread_cuts(body, seeds, k, fixed)
    found = CutSites(puts, fetches, paths, tuple(cuts))
    return TokenCut(states.limited_to(ops), found, tuple(refusals))


def _dropless_seeds(body: Body, cut: DroplessCut) -> Iterator[tuple[ir.Value, Cut]]:
    for value in (*tokens_of(body, cut.layer), cut.layer.routing.ids):
        yield value, TOKENS


def _seeds(
    body: Body, puts: Sequence[Site], fetches: Sequence[Site]
) -> Iterator[tuple[ir.Value, Cut]]:
    for site in puts:
        op = body.ops[site.access]
        yield from ((op.operands[2], TOKENS), (op.operands[1], TOKENS))
    for site in fetches:
        op = body.ops[site.access]
        yield from ((op.results[0], TOKENS), (op.operands[1], TOKENS))


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
    names = [name for name, _ in walk_blocks(clone.body)]
    index_blocks(clone, {split.block: split.indexed for split in splits if split.indexed})
    graphs = {g.name: g for g, _ in clone.snapshot().walk()} if splits else {}
    # Loops are named by their place in the block around them, which may have moved.
    now = list(walk_blocks(clone.body))
    groups = {name: graphs.get(new) for name, (new, _) in zip(names, now, strict=True)}
    blocks = {name: block for name, (_, block) in zip(names, now, strict=True)}
    # The last stretch of a block first: what a cut moves stands behind it.
    ordered = sorted(splits, key=lambda split: -split.first)
    for name, block in blocks.items():
        for split in ordered:
            if split.block == name:
                graph = groups[name]
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


def groups_of(graph: Graph, devices: int) -> dict[int, Groups]:
    """Return, per exchange of a block, by its place, the devices that take part together."""
    return {
        op.id: op.collective.groups or (tuple(range(devices)),)
        for op in graph.ops
        if op.collective is not None
    }


def _cut(block: ir.Block, split: Split, groups: dict[int, Groups], devices: int) -> None:
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
