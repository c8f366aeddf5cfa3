"""Cuts a step along its tokens, so that exchanges of one part run beside compute of another.

Contract
    Ops before and after the exchanges of a MoE layer run once per part. Parts are contiguous in the
    order of tokens, and a prefix count of used capacity goes on from part to part, so that every
    token goes where it went and the same ones are dropped. Tokens are sent as rows; what arrives is
    written where the whole exchange would have put it, so experts run once, on the same buffer.
    A gate that needs the whole batch stays whole; then only what follows it is cut.

Before and after
    attention, gate, scatter, all_to_all, experts, all_to_all, gather, attention
    ->  attention_0, gate_0, rows_0 [ attention_1, gate_1 ], rows_1, experts,
        rows_0, rows_1 [ attention_0 ], attention_1

Steps
    1. Find where tokens are put into, and fetched from, buffers that are exchanged.
    2. Spread the cut from there over everything that has a rule.
    3. For every k that divides the tokens, cut a copy, order it and simulate the whole step; the
       best k wins, and no cut at all competes. Forward only: the paper's dynamic program chooses
       ranges and their k first (`forward_ranges`), and what it chose competes with no cut.

Numerics
    REASSOCIATES: sums over tokens (weight gradients, losses) are added up part by part. Routing and
    drops are identical. A sum of n terms of magnitude m in a type of precision u may differ by
    2 n u m; totals of 16-bit products are kept in 32 bits and rounded once.

Limits
    Without `ragged_all_to_all` (XLA:CPU) the room for k parts is sent: for tests, not for speed.
    Dispatch by one-hot products, and exchanges that the partitioner would insert, are left whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from msgspec.structs import replace

from hlo_passes.analysis.blocks import exchanges_of, walk_blocks
from hlo_passes.analysis.moe_sites import find_sites
from hlo_passes.analysis.roles import Role, roles_of
from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.errors import OptionError
from hlo_passes.forward_ranges import Knobs, choose_forward_splits
from hlo_passes.ir.body import Body
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module
from hlo_passes.plan.plan import Plan, Refusal, Split
from hlo_passes.rewrite.region import cut_module, cut_tokens
from hlo_passes.trial import Trial, best_trial, module_of


@dataclass(frozen=True)
class SplitRegion(Pass):
    """Cut a step along its tokens.

    Attributes:
        k: number of parts; none to try every divisor up to `rho`.
        direction: `both`, or `forward` alone as the paper does.
        rho: most parts (the paper's name and default).
        gamma_us: forward only: length of an instruction group; none for five between MoE layers.
        iota_us: forward only: longest range beside the exchanges; none for one layer's interval.
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
    """

    tier: ClassVar[Tier] = Tier.REASSOCIATES

    k: int | None = None
    direction: Literal["both", "forward"] = "both"
    rho: int = 8
    gamma_us: float | None = None
    iota_us: float | None = None
    memory_limit: int | None = None

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide k, and which ops are cut.

        Raises:
            OptionError: if k or rho is below 2.
        """
        if min(self.k or 2, self.rho) < 2:
            raise OptionError(self.spec, "a split has at least 2 parts", "give k=2 or more")
        module = module_of(context, self.spec)
        candidates, refusals = [], []
        for k in (self.k,) if self.k else range(2, self.rho + 1):
            splits, refused = self._splits(module, graph, k, context.ragged)
            refusals.append(refused)
            if splits:
                candidates.append(splits)
        if self.direction == "forward" and self.k is None:
            chosen = self._ranges(module, graph, context)
            candidates, refusals = ([chosen] if chosen else []), refusals[:1]
        trials = [Trial(splits, cut_module(module, splits)) for splits in candidates]
        plan = best_trial(
            graph, context, trials, forced=self.k is not None, memory_limit=self.memory_limit
        )
        told = [r for s, r in zip(candidates, refusals, strict=False) if s == plan.splits]
        return replace(
            plan,
            passes=(self.spec,),
            refusals=(*plan.refusals, *(told or refusals or [()])[0]),
        )

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Cut the module as planned.

        Raises:
            PlanError: if the plan is another module's.
        """
        plan.check(module.fingerprint)
        if not plan.splits:
            return PassResult(module, False)
        assert isinstance(module, Module)
        return PassResult(cut_module(module, plan.splits), True)

    def _splits(
        self, module: Module, graph: Graph, k: int, ragged: bool
    ) -> tuple[tuple[Split, ...], tuple[Refusal, ...]]:
        """Return what is cut into k parts, and what is not although it might."""
        splits: list[Split] = []
        refusals: list[Refusal] = []
        graphs = {inside.name: inside for inside, _ in graph.walk()}
        with module.ir.context:
            for name, block in walk_blocks(module.body):
                body = Body(block)
                if not exchanges_of(body):
                    continue
                ops = self._region(graphs[name])
                refusals.extend(self._look(body, graphs[name], k, ops))
                if refusals and refusals[-1].reason.startswith(_NOTHING):
                    continue
                splits.append(Split(block=name, first=min(ops), last=max(ops), k=k, ragged=ragged))
        return tuple(splits), tuple(refusals)

    def _ranges(self, module: Module, graph: Graph, context: Context) -> tuple[Split, ...]:
        """Return the ranges of every block that the paper's dynamic program chooses."""
        knobs = Knobs(self.rho, self.gamma_us, self.iota_us)
        graphs = {inside.name: inside for inside, _ in graph.walk()}
        splits: list[Split] = []
        with module.ir.context:
            for name, block in walk_blocks(module.body):
                body, inside = Body(block), graphs[name]
                if exchanges_of(body):
                    ops = self._region(inside)
                    splits += choose_forward_splits(name, body, inside, ops, context, knobs)
        return tuple(splits)

    def _region(self, graph: Graph) -> range:
        """Return the ops that may be cut: all, or the forward pass."""
        if self.direction == "both":
            return range(len(graph.ops))
        roles = roles_of(graph)
        return range(
            1 + max((i for i, role in enumerate(roles) if role is Role.FORWARD), default=0)
        )

    def _look(self, body: Body, graph: Graph, k: int, ops: range) -> Iterator[Refusal]:
        """Yield why exchanges stay whole, and why ops do that the cut reaches."""
        sites = find_sites(body)
        for place, reason in sites.refusals:
            yield _refusal(graph, place, reason)
        found = cut_tokens(body, sites, k, ops)
        for place, reason in sorted(found.states.refusals.items()):
            yield _refusal(graph, place, reason)
        if not (found.puts or found.fetches):
            exchange = exchanges_of(body)[0]
            why = "no exchange sends rows by index" if not (sites.puts or sites.fetches) else (
                f"its tokens have no {k} equal parts"
            )  # fmt: skip
            yield _refusal(graph, exchange, f"{_NOTHING} into {k} parts: {why}")


_NOTHING = "nothing is cut"


def _refusal(graph: Graph, place: int, reason: str) -> Refusal:
    op = graph.ops[place]
    return Refusal(op=op.key, reason=f"stays whole: {reason}" if not reason.startswith(_NOTHING)
                   else reason, source=op.source)  # fmt: skip
