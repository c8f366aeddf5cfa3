"""The exact optimum of small problems, by mixed-integer programming: a judge for the schedulers.

In `Problem`'s execution an exchange does not start before compute issued earlier has finished.
That constrains nothing: issue order is free, so every schedule that keeps precedence and never
uses a lane twice at once is reached by some order, and every order gives such a schedule. The
program is therefore the textbook disjunctive one: start times, and one binary per pair of ops that
share a lane and are not ordered already.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from hlo_passes.schedule.bound import makespan_bound
from hlo_passes.schedule.issue import Issuer
from hlo_passes.schedule.problem import Lane, Problem
from hlo_passes.schedule.simulate import execute

_ROUNDING = 1e-6
"""Relative error that HiGHS is allowed: two makespans this close are the same."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """What the solver found.

    Attributes:
        makespan_us: of the best order known.
        order: that order; None if the time was over before there was one to judge.
        proven: whether no order is shorter.
    """

    makespan_us: float
    order: tuple[int, ...] | None
    proven: bool


def optimal_makespan(
    problem: Problem, time_limit_s: float = 10.0, known: Sequence[int] | None = None
) -> Optimum:
    """Find a shortest order of a small problem (up to about 14 ops that take time).

    Args:
        problem: what to order; memory is not looked at.
        time_limit_s: after this long the best order so far is returned, not proven.
        known: a legal order to start from, the better the faster; program order by default.
    """
    best = tuple(range(problem.size) if known is None else known)
    upper = execute(problem, best).makespan_us
    if upper <= makespan_bound(problem) * (1 + _ROUNDING):
        return Optimum(upper, best, True)
    program = _Program(problem, upper)
    found = program.solve(time_limit_s, presolve=True)
    if found.status not in (_SOLVED, _OUT_OF_TIME):
        # HiGHS's presolve fails on a few of these programs ("Solve error", HiGHS in scipy 1.18).
        found = program.solve(time_limit_s, presolve=False)
    if found.x is not None:
        order = program.order(found.x)
        best = min(best, order, key=lambda o: execute(problem, o).makespan_us)
    length = execute(problem, best).makespan_us
    proven = found.status == _SOLVED and length <= found.fun * (1 + _PROOF)
    return Optimum(length, best, proven)


def _share_a_stream(problem: Problem, one: int, other: int) -> bool:
    streams = problem.streams
    mine, theirs = streams.of.get(one, 0), streams.of.get(other, 0)
    return mine == theirs or min(mine, theirs) < 0 or other in streams.apart.get(one, ())


class _Program:
    """Variables: a start time per op, then the makespan, then a binary per disjunction."""

    def __init__(self, problem: Problem, upper_us: float) -> None:
        self.problem = problem
        self.upper = upper_us * (1 + _ROUNDING)
        self.makespan = problem.size
        self.rows: list[tuple[dict[int, float], float]] = []
        self.pairs: list[tuple[int, int]] = []
        for op in range(problem.size):
            for p in problem.preds[op]:
                self._after({op: 1.0, p: -1.0}, problem.us[p])
            self._after({self.makespan: 1.0, op: -1.0}, problem.tail_us[op])
        before = _ancestors(problem)
        for lane in (Lane.COMPUTE, Lane.EXCHANGE):
            for i, j in self._at_odds(lane, before):
                if (i, j) not in self.pairs:
                    self._one_after_the_other(i, j)
        self.size = self.makespan + 1 + len(self.pairs)
        self.objective = np.zeros(self.size)
        self.objective[self.makespan] = 1.0
        self.integrality = np.zeros(self.size)
        self.integrality[self.makespan + 1 :] = 1

    def _at_odds(self, lane: Lane, before: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield pairs of ops that hold a lane, and that nothing orders yet."""
        problem = self.problem
        places = (op for op in range(problem.size) if problem.lane[op] in (lane, Lane.BOTH))
        for i, j in combinations(filter(self._counts, places), 2):
            beside = lane is Lane.EXCHANGE and not _share_a_stream(problem, i, j)
            ordered = before[j] >> i & 1 or not (problem.us[i] or problem.us[j])
            if not beside and not ordered:
                yield i, j

    def solve(self, time_limit_s: float, *, presolve: bool) -> OptimizeResult:
        """Hand the program to HiGHS."""
        return milp(
            self.objective,
            constraints=self.constraints(),
            bounds=self.bounds(),
            integrality=self.integrality,
            options={
                "time_limit": time_limit_s,
                "mip_rel_gap": _ROUNDING / 10,
                "presolve": presolve,
            },
        )

    def bounds(self) -> Bounds:
        """Keep every op between the paths on either side of it."""
        low, high = np.zeros(self.size), np.ones(self.size)
        low[: self.makespan] = self.problem.head_us
        high[: self.makespan] = [self._latest(op) for op in range(self.problem.size)]
        high[self.makespan] = self.upper
        return Bounds(low, high)

    def constraints(self) -> LinearConstraint:
        """Return all rows as `row @ x >= least`."""
        entries = [(r, c, v) for r, (row, _) in enumerate(self.rows) for c, v in row.items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = csr_array((values, (rows, columns)), shape=(len(self.rows), self.size))
        return LinearConstraint(matrix, lb=np.array([least for _, least in self.rows]))

    def order(self, x: np.ndarray) -> tuple[int, ...]:
        """Read an issue order off the start times.

        Compute goes by its end, exchanges by their start: who ends before an exchange starts is
        issued before it. The solver's times are off by a little; an exchange that seems to start a
        moment before something ends was meant to follow it.
        """
        problem, noise = self.problem, self.upper * _NOISE

        def when(op: int) -> tuple[float, bool, int]:
            talks = problem.lane[op] is Lane.EXCHANGE
            return (x[op] + noise if talks else x[op] + problem.us[op]), talks, op

        issuer = Issuer(problem)
        for op in sorted((op for op in range(problem.size) if self._counts(op)), key=when):
            issuer.pull(op)
        return issuer.finish()

    def _counts(self, op: int) -> bool:
        """Whether it matters that nothing else uses the lane of `op`.

        An op of no length may as well run in the middle of another one, unless an exchange follows
        it: then the lane has to be free for the exchange to be issued.
        """
        lane, us = self.problem.lane[op], self.problem.us[op]
        if lane is Lane.FREE:
            return False
        return us > 0 or lane is not Lane.COMPUTE or self._feeds_exchange(op)

    def _feeds_exchange(self, op: int) -> bool:
        """Whether an exchange follows `op` with nothing that takes time in between."""
        return any(
            self.problem.lane[s] is Lane.EXCHANGE
            or (self.problem.us[s] == 0.0 and self._feeds_exchange(s))
            for s in self.problem.succs[op]
        )

    def _latest(self, op: int) -> float:
        return self.upper - self.problem.tail_us[op]

    def _after(self, row: dict[int, float], least: float) -> None:
        self.rows.append((row, least))

    def _one_after_the_other(self, i: int, j: int) -> None:
        """Say that i ends before j starts (binary 1) or j before i (binary 0)."""
        binary = self.makespan + 1 + len(self.pairs)
        self.pairs.append((i, j))
        us, head = self.problem.us, self.problem.head_us
        slack = max(0.0, self._latest(i) + us[i] - head[j])
        self._after({j: 1.0, i: -1.0, binary: -slack}, us[i] - slack)
        slack = max(0.0, self._latest(j) + us[j] - head[i])
        self._after({i: 1.0, j: -1.0, binary: slack}, us[j])


def _ancestors(problem: Problem) -> list[int]:
    """Per op, the bits of the ops that it depends on."""
    before: list[int] = []
    for op in range(problem.size):
        bits = 0
        for p in problem.preds[op]:
            bits |= before[p] | 1 << p
        before.append(bits)
    return before


_SOLVED, _OUT_OF_TIME = 0, 1
"""Of scipy's status codes."""

_PROOF = 1e-3
"""What an order may be above the solver's objective, whose big-M rows are off by a little too."""

_NOISE = 1e-5
"""Share of the step by which the solver's times may be off."""
