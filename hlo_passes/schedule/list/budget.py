"""What could hide what, and how much of it is still to come: the foresight of a list scheduler."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_

from hlo_passes.schedule.overlaps import Overlaps
from hlo_passes.schedule.problem import Lane, Problem


@dataclass(frozen=True)
class Foresight:
    """What every pass over one problem needs and none changes."""

    problem: Problem
    overlaps: Overlaps

    @staticmethod
    def of(problem: Problem) -> "Foresight":
        """Work them out."""
        return Foresight(problem, Overlaps.of(problem))

    @cached_property
    def wanted(self) -> tuple[int, ...]:
        """Per op, bits of the urgent exchanges that it could hide; 0 for what hides nothing."""
        overlaps, problem = self.overlaps, self.problem
        return tuple(
            overlaps.beside(op) & overlaps.urgent
            if problem.lane[op] is Lane.COMPUTE and problem.us[op] > 0
            else 0
            for op in range(problem.size)
        )

    @cached_property
    def leads_to(self) -> tuple[int, ...]:
        """Per op, the bit of the first urgent exchange that waits for it, itself included."""
        ahead = (after & self.overlaps.urgent for after in self.overlaps.after)
        return tuple(bits & -bits for bits in ahead)

    @cached_property
    def served(self) -> int:
        """Bits of the urgent exchanges that some compute could hide."""
        return reduce(or_, set(self.wanted), 0)

    @cached_property
    def needed_us(self) -> float:
        """Length of those exchanges."""
        overlaps, us = self.overlaps, self.problem.us
        return sum(us[op] for op in overlaps.exchanges if overlaps.own(op) & self.served)

    def priority(self, sum_weight: float) -> tuple[float, ...]:
        """Per op, the longest path from its start to the end in us, gradient sums weighted."""
        problem = self.problem
        if sum_weight == 1.0:
            return problem.tail_us
        tail = [0.0] * problem.size
        for op in reversed(range(problem.size)):
            sums = problem.lane[op] is Lane.EXCHANGE and not problem.urgent[op]
            us = problem.us[op] * (sum_weight if sums else 1.0)
            tail[op] = us + max((tail[s] for s in problem.succs[op]), default=0.0)
        return tuple(tail)

    @cached_property
    def by_stage(self) -> tuple[float, ...]:
        """Per op, a priority that puts first what the earliest exchange waits for.

        Exchanges are ranked by the time from which they could start, then by program order, so
        that of several equal parts one comes first and the others are its company; what no urgent
        exchange waits for comes last, the longest path to the end first.
        """
        problem = self.problem
        urgent = [op for op in problem.exchanges if problem.urgent[op]]
        ranked = sorted(urgent, key=lambda op: (problem.head_us[op], op))
        rank = {op: place for place, op in enumerate(ranked)}
        first = [len(rank)] * problem.size
        for op in reversed(range(problem.size)):
            ahead = min((first[s] for s in problem.succs[op]), default=len(rank))
            first[op] = min(rank.get(op, len(rank)), ahead)
        step = 1.0 + max(problem.tail_us, default=0.0)
        return tuple(
            tail - place * step for tail, place in zip(problem.tail_us, first, strict=True)
        )


class Budget:
    """What the urgent exchanges still to come need, and the compute that there is for them.

    Attributes:
        pending: bits of the urgent exchanges not yet issued.
        flying: bit of the exchange issued last.
    """

    def __init__(self, facts: Foresight) -> None:
        self.facts = facts
        self.pending = facts.overlaps.urgent
        self.flying = 0
        self._needed = facts.needed_us
        self._usable = 0.0
        self._supply: defaultdict[int, float] = defaultdict(float)
        self._work: defaultdict[int, float] = defaultdict(float)
        for op, bits in enumerate(facts.wanted):
            us = facts.problem.us[op]
            if bits:
                self._supply[bits] += us
                self._usable += us
            if facts.problem.lane[op] in (Lane.COMPUTE, Lane.BOTH):
                self._work[facts.leads_to[op]] += us

    def issue(self, op: int) -> bool:
        """Enter an op; return whether it was an urgent exchange."""
        facts, us = self.facts, self.facts.problem.us[op]
        if facts.problem.lane[op] is not Lane.EXCHANGE:
            self._work[facts.leads_to[op]] -= us
            bits = facts.wanted[op]
            if bits & self.pending:
                self._supply[bits] -= us
                self._usable -= us
            return False
        self.flying = facts.overlaps.own(op)
        if not self.flying & self.pending:
            return False
        self.pending &= ~self.flying
        if self.flying & facts.served:
            self._needed -= us
        for bits in [bits for bits in self._supply if not bits & self.pending]:
            self._usable -= self._supply.pop(bits)
        return True

    def spare(self, save: float) -> float:
        """Return the us of compute beyond `save` times what the pending exchanges need."""
        return self._usable - save * self._needed

    def next_urgent(self) -> int | None:
        """Return the first pending urgent exchange in program order."""
        low = self.pending & -self.pending
        return self.facts.overlaps.exchanges[low.bit_length() - 1] if low else None

    def work_before(self, exchange: int) -> float:
        """Return the us of compute that the next urgent exchange still waits for."""
        return self._work[self.facts.overlaps.own(exchange)]
