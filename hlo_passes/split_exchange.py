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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from msgspec.structs import replace

from hlo_passes.analysis.blocks import exchanges_of, walk_blocks
from hlo_passes.analysis.cuts import Cut, integer, shape_of
from hlo_passes.analysis.split_states import is_generator, spread_cuts
from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.errors import OptionError
from hlo_passes.ir.body import Body
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module
from hlo_passes.plan.plan import Plan, Refusal, Split
from hlo_passes.rewrite.region import cut_module
from hlo_passes.trial import Trial, best_trial, module_of


@dataclass(frozen=True)
class SplitExchange(Pass):
    """Cut exchange, experts and exchange along the experts' rows.

    Attributes:
        k: number of parts; none to try every divisor up to `rho`.
        rho: most parts.
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
    """

    tier: ClassVar[Tier] = Tier.REASSOCIATES

    k: int | None = None
    rho: int = 8
    memory_limit: int | None = None

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide k, and along which dim every pair of exchanges is cut.

        Raises:
            OptionError: if k or rho is below 2.
        """
        if min(self.k or 2, self.rho) < 2:
            raise OptionError(self.spec, "a split has at least 2 parts", "give k=2 or more")
        module = module_of(context, self.spec)
        trials, refusals = [], []
        for k in (self.k,) if self.k else range(2, self.rho + 1):
            splits, refused = _splits(module, graph, k)
            refusals.append(refused)
            if splits:
                trials.append(Trial(splits, cut_module(module, splits)))
        plan = best_trial(
            graph, context, trials, forced=self.k is not None, memory_limit=self.memory_limit
        )
        return replace(plan, passes=(self.spec,), refusals=(*plan.refusals, *(refusals or [()])[0]))

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


def _splits(module: Module, graph: Graph, k: int) -> tuple[tuple[Split, ...], tuple[Refusal, ...]]:
    """Return the pairs that are cut into k parts, and why others are not."""
    splits: list[Split] = []
    refusals: list[Refusal] = []
    graphs = {inside.name: inside for inside, _ in graph.walk()}
    with module.ir.context:
        for name, block in walk_blocks(module.body):
            body = Body(block)
            found = dict(_pairs(body, k))
            seeds = [(at, cut.dim, cut.outer) for at, (_, cut) in found.items() if cut]
            if seeds:
                ops = sorted(op for between, cut in found.values() if cut for op in between)
                splits.append(Split(block=name, first=ops[0], last=ops[-1], k=k,
                                    along="capacity", seeds=tuple(seeds),
                                    only=tuple(ops)))  # fmt: skip
            for at, (_, cut) in found.items():
                if cut is None:
                    op = graphs[name].ops[at]
                    reason = (
                        f"stays whole: no dim can be cut into {k} parts up to the next exchange"
                    )
                    refusals.append(Refusal(op=op.key, reason=reason, source=op.source))
    return tuple(splits), tuple(refusals)


def _pairs(body: Body, k: int) -> Iterator[tuple[int, tuple[tuple[int, ...], Cut | None]]]:
    """Yield every all-to-all that leads to another: its place, the ops between, how to cut."""
    after = _next_exchange(body)
    seconds: set[int] = set()
    for first in exchanges_of(body):
        for second in exchanges_of(body) if first not in seconds else ():
            between = _between(body, first, second, after)
            if any(body.kind(i) == "dot_general" for i in between):
                seconds.add(second)
                yield first, (between, _best_cut(body, first, second, between, k))
                break


def _next_exchange(body: Body) -> list[frozenset[int]]:
    """Return, per op, the all-to-alls that its results reach without passing another."""
    found: list[frozenset[int]] = [frozenset()] * len(body.ops)
    for i in reversed(range(len(body.ops))):
        reached: set[int] = set()
        for value in body.ops[i].results:
            for user in body.users.get(value, ()):
                is_exchange = body.kind(user) == "all_to_all"
                reached.update([user] if is_exchange else found[user])
        found[i] = frozenset(reached)
    return found


def _between(body: Body, first: int, second: int, after: list[frozenset[int]]) -> tuple[int, ...]:
    """Return the ops on paths from one all-to-all to the next, both included; () for none."""
    if second not in after[first]:
        return ()
    reached = {first}
    for i in range(first + 1, second):
        if (
            body.kind(i) != "all_to_all"
            and second in after[i]
            and any(body.maker.get(v, -1) in reached for v in body.ops[i].operands)
        ):
            reached.add(i)
    return (*sorted(reached), second)


def _best_cut(body: Body, first: int, second: int, between: tuple[int, ...], k: int) -> Cut | None:
    """Return a cut of the first exchange's operand that reaches through to the second's result."""
    operand, peers = body.ops[first].operands[0], integer(body.ops[first], "split_count")
    shape = shape_of(operand)
    last = body.ops[second].results[0]
    others = frozenset(range(len(body.ops))) - set(between)
    dealt = {integer(body.ops[first], f"{name}_dimension") for name in ("split", "concat")}
    for dim in sorted(range(len(shape)), key=lambda d: (d in dealt, -shape[d])):
        for outer in (1, peers):
            cut = Cut(dim, outer)
            if not cut.fits(shape, k):
                continue
            made_outside = {i for i in others if not is_generator(body, i)}
            states = spread_cuts(body, [(operand, cut)], k, made_outside)
            if all(i in states.splits for i in between) and isinstance(states.cuts.get(last), Cut):
                return cut
    return None
