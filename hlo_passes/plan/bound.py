"""How much communication stays exposed whatever the order.

In `Problem`'s execution some op runs at every moment of the step, so the compute lane idles exactly
while an exchange is exposed: exposed time = makespan - compute time. Every lower bound on one is a
lower bound on the other.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from hlo_passes.plan.problem import Lane, Problem
from hlo_passes.plan.windows import Windows

_FLOW_UNITS = 1 << 29
"""Resolution of the flow: scipy's capacities are 32-bit integers."""


def exposed_bound(problem: Problem) -> float:
    """Return time in us that stays exposed in every legal order.

    It holds with contention as well, which only ever makes an order longer.
    """
    return max(0.0, makespan_bound(problem) - problem.compute_us)


def makespan_bound(problem: Problem) -> float:
    """Return a time in us that no legal order undercuts.

    The largest of: the longest path; per lane, the preemptive one-machine bound; all compute plus
    the exchange time that no incomparable compute can cover. About O(n log n) and one max flow
    between groups of ops that may run beside the same exchanges.
    """
    blocked = sum(problem.us[op] for op in problem.blocking)
    talk = sum(problem.us[op] for op in problem.exchanges)
    return max(
        max(problem.tail_us, default=0.0),
        one_machine_bound(problem, (Lane.COMPUTE, Lane.BOTH)),
        one_machine_bound(problem, (Lane.EXCHANGE, Lane.BOTH)),
        problem.compute_us + blocked + max(0.0, talk - hideable_us(problem)),
    )


def exchange_bounds(problem: Problem) -> dict[int, float]:
    """Return per exchange the us of it that no order can hide, looking at it alone.

    Their sum is at most `exposed_bound`'s flow term: exchanges may want the same compute.
    """
    beside: dict[int, float] = dict.fromkeys(problem.exchanges, 0.0)
    windows = Windows.of(problem)
    for bits, us in _groups(problem, windows).items():
        for i in _ones(bits):
            beside[windows.exchanges[i]] += us
    alone = {op: max(0.0, problem.us[op] - us) for op, us in beside.items()}
    return alone | {op: problem.us[op] for op in sorted(problem.blocking)}


def hideable_us(problem: Problem) -> float:
    """Return an upper bound in us on the exchange time that compute can cover.

    The maximum of the paper's objective (section 4.1) over fractional assignments: every us of
    compute covers at most one us of one exchange that it is incomparable with. An op runs in one
    piece, so of exchanges with compute between them it covers at most one.
    """
    windows = Windows.of(problem)
    groups = _groups(problem, windows, _most(problem, windows))
    total = sum(groups.values()) + sum(problem.us[op] for op in windows.exchanges)
    if not groups or total == 0.0:
        return 0.0
    unit = total / _FLOW_UNITS
    source, sink = 0, 1
    heads, tails, room = [], [], []

    def arc(head: int, tail: int, us: float) -> None:
        heads.append(head)
        tails.append(tail)
        room.append(math.ceil(us / unit))  # upwards: it has to stay an upper bound

    for i, op in enumerate(windows.exchanges):
        arc(2 + i, sink, problem.us[op])
    for node, (bits, us) in enumerate(groups.items(), 2 + len(windows.exchanges)):
        arc(source, node, us)
        for i in _ones(bits):
            arc(node, 2 + i, us)
    size = 2 + len(windows.exchanges) + len(groups)
    network = csr_array((np.array(room, np.int32), (heads, tails)), shape=(size, size))
    return maximum_flow(network, source, sink).flow_value * unit


def one_machine_bound(problem: Problem, lanes: Sequence[Lane]) -> float:
    """Return the makespan in us of the ops on one lane if they could be interrupted at will.

    Jackson's preemptive schedule: whenever the lane is free, the released op with the longest path
    behind it runs. Release times and paths behind come from precedence alone. O(n log n).
    """
    ops = [op for op in range(problem.size) if problem.lane[op] in lanes and problem.us[op] > 0]
    ops.sort(key=lambda op: problem.head_us[op])
    behind = {op: problem.tail_us[op] - problem.us[op] for op in ops}
    ready: list[tuple[float, int, float]] = []
    now = longest = 0.0
    for place, op in enumerate(ops):
        now = max(now, problem.head_us[op])
        heapq.heappush(ready, (-behind[op], op, problem.us[op]))
        until = problem.head_us[ops[place + 1]] if place + 1 < len(ops) else math.inf
        while ready and now < until:
            back, first, left = heapq.heappop(ready)
            run = min(left, until - now)
            now += run
            if run < left:
                heapq.heappush(ready, (back, first, left - run))
            else:
                longest = max(longest, now - back)
    return longest


def _groups(
    problem: Problem, windows: Windows, most: Callable[[int], float] = lambda _: math.inf
) -> dict[int, float]:
    """Add up compute time by the exchanges that it may run beside; loops cover none.

    Args:
        problem: of which.
        windows: its exchanges.
        most: the us of the given exchanges that one op can cover.
    """
    groups: defaultdict[int, float] = defaultdict(float)
    for op in range(problem.size):
        bits = windows.beside(op)
        if problem.lane[op] is Lane.COMPUTE and problem.us[op] > 0 and bits:
            groups[bits] += min(problem.us[op], most(bits))
    return dict(groups)


def _most(problem: Problem, windows: Windows) -> Callable[[int], float]:
    """Return a function that says how many us of the given exchanges one op can cover at most.

    If compute has to run between two exchanges, an op in flight beside the first ends before the
    second starts. So of every chain of such exchanges one op covers one.
    """
    apart = _apart(problem, windows)

    @cache
    def most(bits: int) -> float:
        ends: list[int] = []
        longest: list[float] = []
        for i in _ones(bits):
            us = problem.us[windows.exchanges[i]]
            chain = next((c for c, end in enumerate(ends) if apart[i] >> end & 1), len(ends))
            if chain == len(ends):
                ends.append(i)
                longest.append(us)
            else:
                ends[chain] = i
                longest[chain] = max(longest[chain], us)
        return sum(longest)

    return most


def _apart(problem: Problem, windows: Windows) -> list[int]:
    """Per exchange, the bits of those before it with compute on the way."""
    through = [0] * problem.size
    for op in range(problem.size):
        for p in problem.preds[op]:
            works = problem.us[p] > 0 and problem.lane[p] in (Lane.COMPUTE, Lane.BOTH)
            through[op] |= through[p] | (windows.before[p] if works else 0)
    return [through[op] for op in windows.exchanges]


def _ones(bits: int) -> list[int]:
    """Return the places of the set bits, ascending."""
    places = []
    while bits:
        low = bits & -bits
        places.append(low.bit_length() - 1)
        bits ^= low
    return places
