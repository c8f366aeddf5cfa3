"""Which ops of a block can be cut into parts, and in which state every value then is.

A cut starts at the edges that `moe_sites` and the passes name, and spreads over the ops in both
directions: an op of which one operand or result is cut is cut along the same loop, and cuts its
other operands and results. Where an op refuses, it stays whole: its operands are joined before it
and parts are taken out of its results behind it, which is always right and ends the pipeline there.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.states import Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.proofs.engine import NotProved

BARRIER = "optimization_barrier"


@dataclass(frozen=True, slots=True)
class States:
    """How a block is cut into k parts.

    Attributes:
        k: number of parts.
        splits: per op that is cut, by its place, the states of all that it reads and makes.
        cuts: per value that is made in parts, or of which parts are taken, its cut.
        refusals: per op that stays whole although something it touches is cut, why.
        sums: ops that stay whole because they add up, over the cut dim, to something large.
    """

    k: int
    splits: dict[int, OpSplit]
    cuts: dict[ir.Value, Cut]
    refusals: dict[int, str]
    sums: frozenset[int] = frozenset()

    def limited_to(self, ops: Collection[int]) -> "States":
        """Return the same states with all other ops whole."""
        kept = {i: split for i, split in self.splits.items() if i in ops}
        refused = {i: why for i, why in self.refusals.items() if i in ops}
        return States(self.k, kept, self.cuts, refused, self.sums)


def spread_cuts(
    body: Body, seeds: Iterable[tuple[ir.Value, Cut]], k: int, fixed: Collection[int] = ()
) -> States:
    """Spread cuts over a block.

    Args:
        body: the block.
        seeds: values that are to be cut, and how.
        k: number of parts.
        fixed: ops that are dealt with otherwise: cuts do not pass through them.
    """
    spread = _Spread(body, k, frozenset(fixed))
    for value, cut in seeds:
        spread.mark(value, cut)
    spread.run()
    settled = spread.settled()
    return States(k, settled, spread.cuts, spread.refusals, frozenset(spread.sums))


@dataclass
class _Spread:
    body: Body
    k: int
    fixed: frozenset[int]
    splits: dict[int, OpSplit] = field(default_factory=dict)
    cuts: dict[ir.Value, Cut] = field(default_factory=dict)
    refusals: dict[int, str] = field(default_factory=dict)
    queue: deque[ir.Value] = field(default_factory=deque)
    sums: set[int] = field(default_factory=set)

    def mark(self, value: ir.Value, cut: Cut) -> None:
        """Note that a value is wanted in parts, and look at its neighbours later."""
        if value not in self.cuts and cut.fits(shape_of(value), self.k):
            self.cuts[value] = cut
            self.queue.append(value)

    def run(self) -> None:
        """Spread until nothing new is cut."""
        while self.queue:
            value = self.queue.popleft()
            cut = self.cuts[value]
            place, kind = self.body.made_by(value)
            if place >= 0:
                results = list(self.body.ops[place].results)
                self._cut(place, kind, Spot("result", results.index(value)), cut)
            for user in self.body.users.get(value, ()):
                for at, operand in enumerate(self.body.ops[user].operands):
                    if operand == value:
                        self._cut(user, self.body.kind(user), Spot("operand", at), cut)

    def _cut(self, place: int, kind: str, spot: Spot, cut: Cut) -> None:
        op = self.body.ops[place]
        if place in self.fixed or kind in ("return", "while", "case", "if"):
            return
        if kind == BARRIER:
            self._pass_barrier(place, spot, cut)
            return
        if place in self.splits:
            return
        rule = rule_of(op)
        try:
            if rule is None:
                raise NotProved(f"no rule says how a {kind} is cut")
            split = rule.cut(op, spot, cut, self.k)
            self._check(op, split)
        except NotProved as reason:
            self.refusals.setdefault(place, str(reason))
            return
        self.splits[place] = split
        self.refusals.pop(place, None)
        for values, states in ((op.operands, split.operands), (op.results, split.results)):
            for value, state in zip(values, states, strict=True):
                if isinstance(state, Cut):
                    self.mark(value, state)

    def _pass_barrier(self, place: int, spot: Spot, cut: Cut) -> None:
        """A barrier cuts every pair for itself."""
        op = self.body.ops[place]
        before = self.splits.get(place)
        states = list(before.operands) if before else [None] * len(op.operands)
        states[spot.index] = cut
        self.splits[place] = OpSplit(tuple(states), tuple(states))
        self.mark(op.operands[spot.index], cut)
        self.mark(op.results[spot.index], cut)

    def _check(self, op: ir.Operation, split: OpSplit) -> None:
        for values, states in ((op.operands, split.operands), (op.results, split.results)):
            for value, state in zip(values, states, strict=True):
                shape = shape_of(value)
                if isinstance(state, Cut) and not state.fits(shape, self.k):
                    size = shape[state.dim] if state.dim < len(shape) else 1
                    raise NotProved(f"dim {state.dim} of size {size} has no {self.k} equal parts")

    def settled(self) -> dict[int, OpSplit]:
        """Return the splits that do not need a cut value whole."""
        return {
            place: split
            for place, split in sorted(self.splits.items())
            if self.body.kind(place) == BARRIER or self._is_settled(place, split)
        }

    def _is_settled(self, place: int, split: OpSplit) -> bool:
        op = self.body.ops[place]
        if self.body.kind(place) != "dot_general" and _stays_whole(op, split, self.k):
            self.sums.add(place)
            return False
        for value, state in zip(op.operands, split.operands, strict=True):
            maker, _ = self.body.made_by(value)
            if state is None and value in self.cuts and self._is_made_in_parts(maker, value):
                self.refusals[place] = "one of its operands is cut, and every part needs all of it"
                return False
        return True

    def _is_made_in_parts(self, maker: int, value: ir.Value) -> bool:
        if maker not in self.splits:
            return False
        results = list(self.body.ops[maker].results)
        return isinstance(self.splits[maker].results[results.index(value)], Cut)


def _stays_whole(op: ir.Operation, split: OpSplit, k: int) -> bool:
    """Whether an op adds up, and is no reduction to something small.

    Of others k partial sums are more to read and write than what is summed up, joined.
    """
    if not any(isinstance(state, Sum) for state in split.results):
        return False
    if not op.name.endswith(".reduce"):
        return True
    summed = sum(
        math.prod(shape_of(v)) for v, s in zip(op.operands, split.operands, strict=True) if s
    )
    return k * sum(math.prod(shape_of(v)) for v in op.results) > summed


def outside(body: Body, ops: Collection[int]) -> frozenset[int]:
    """Return the ops that a cut of only `ops` must not pass through.

    Those that make a value from next to nothing are not among them: every part can do it itself.
    """
    inside = set(ops)
    return frozenset(
        i
        for i in range(len(body.ops))
        if i not in inside and body.kind(i) not in ("constant", "iota", "broadcast_in_dim")
    )
