"""Cuts an exchange, the experts behind it and the exchange back along their rows, as Tutel does.

Contract
    Two all-to-alls and all that lies between them run once per part, each on a k-th of the rows of
    every expert, or of its experts. What both exchanges carry together stays the same.

Before and after
    all_to_all, experts, all_to_all
    ->  all_to_all_0, all_to_all_1 [ experts_0 ], all_to_all_0 [ experts_1 ], all_to_all_1

Steps
    1. Pair every all-to-all with the next one that its result reaches through matrix products.
    2. Find a dim of the first one's operand along which all ops between the two can be cut.
    3. For every k that divides it, cut a copy, order it and simulate the whole step; the best k
       wins, and no cut at all competes.

Numerics
    EXACT up to the kernels that the backend picks for smaller shapes: no sum is taken apart.

Limits
    Ops outside the pair stay whole, so an exchange can hide behind experts only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hlo_passes.base import Context
from hlo_passes.cut.spread import outside, spread_cuts
from hlo_passes.cut.states import Cut
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.blocks import walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.layers.capacity.exchange_pairs import Pair, pairs_of
from hlo_passes.plans import Refusal, Split
from hlo_passes.split_pass import CutVariant, PartsPass


@dataclass(frozen=True)
class SplitExchange(PartsPass):
    """Cut exchange, experts and exchange along the experts' rows.

    Attributes:
        k: number of parts; none to try every number up to `rho`.
        rho: most parts.
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
        memory_slack: share by which that may grow over the uncut step's; none for any. The default
            counts where predictions decide and no number of parts is given: where XLA's own
            modules decide, the device's memory does.
    """

    def candidates(self, module: Module, graph: Graph, context: Context) -> Iterator[CutVariant]:
        """Yield the cut into every number of parts."""
        graphs = {inside.name: inside for inside, _ in graph.walk()}
        blocks = [(graphs[name], Body(block)) for name, block in walk_blocks(module.body)]
        pairs = [(inside, body, tuple(pairs_of(body))) for inside, body in blocks]
        for k in self.parts:
            yield _candidate(pairs, k)


def _candidate(blocks: Sequence[tuple[Graph, Body, Sequence[Pair]]], k: int) -> CutVariant:
    """Return the pairs that are cut into k parts, and why others are not."""
    splits: list[Split] = []
    refusals: list[Refusal] = []
    for graph, body, pairs in blocks:
        cuts = {pair: _best_cut(body, pair, k) for pair in pairs}
        seeds = [(pair.first, cut.dim, cut.outer) for pair, cut in cuts.items() if cut]
        if seeds:
            ops = sorted(op for pair, cut in cuts.items() if cut for op in pair.ops)
            splits.append(
                Split(
                    by="split-exchange", block=graph.name, first=ops[0], last=ops[-1], k=k,
                    along="capacity", seeds=tuple(seeds), only=tuple(ops),
                )
            )  # fmt: skip
        for pair, cut in cuts.items():
            if cut is None:
                op = graph.ops[pair.first]
                reason = f"stays whole: no dim can be cut into {k} parts up to the next exchange"
                refusals.append(Refusal(op=op.key, reason=reason, source=op.source))
    return CutVariant(tuple(splits), tuple(refusals))


def _best_cut(body: Body, pair: Pair, k: int) -> Cut | None:
    """Return a cut of the first exchange's operand that reaches through to the second's result."""
    exchange = body.ops[pair.first]
    operand, peers = exchange.operands[0], integer(exchange, "split_count")
    shape, last = shape_of(operand), body.ops[pair.second].results[0]
    fixed = outside(body, pair.ops)
    dealt = {integer(exchange, f"{name}_dimension") for name in ("split", "concat")}
    for dim in sorted(range(len(shape)), key=lambda d: (d in dealt, -shape[d])):
        for outer in (1, peers):
            cut = Cut(dim, outer)
            if not cut.fits(shape, k):
                continue
            states = spread_cuts(body, [(operand, cut)], k, fixed)
            if all(i in states.splits for i in pair.ops) and isinstance(states.cuts.get(last), Cut):
                return cut
    return None
