"""How much communication stays exposed whatever the order.

In `Problem`'s execution some op runs at every moment of the step, so the compute lane idles exactly
while an exchange is exposed: exposed time = makespan - compute time. Every lower bound on one is a
lower bound on the other.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from hlo_passes.schedule.overlaps import Overlaps
from hlo_passes.schedule.problem import Lane, Problem

_FLOW_UNITS = 1 << 29
"""Resolution of the flow: scipy's capacities are 32-bit integers."""

_SINKS = 256
"""Above this number of exchanges neighbours are taken for one, which can only raise the flow."""


def exposed_bound(problem: Problem) -> float:
    """Return time in us that stays exposed in every legal order.

    It holds with contention as well, which only ever makes an order longer.
    """
    return max(0.0, makespan_bound(problem) - problem.compute_us)


def makespan_bound(problem: Problem) -> float:
    """Return a time in us that no legal order undercuts.

    The largest of: the longest path; per lane, the preemptive one-machine bound; all compute plus
    the exchange time that no incomparable compute can cover. Where exchanges have several streams,
    those that count them all as one are left out. About O(n log n) and one max flow
    between groups of ops that may run beside the same exchanges.
    """
    blocked = sum(problem.us[op] for op in problem.blocking)
    alone = max(max(problem.tail_us, default=0.0),
                one_machine_bound(problem, (Lane.COMPUTE, Lane.BOTH)))  # fmt: skip
    if problem.streams.is_one:
        talk = sum(problem.us[op] for op in problem.exchanges)
        return max(
            alone,
            one_machine_bound(problem, (Lane.EXCHANGE, Lane.BOTH)),
            problem.compute_us + blocked + max(0.0, talk - hideable_us(problem)),
        )
    return max(alone, problem.compute_us + blocked, _one_stream_bound(problem))


def _one_stream_bound(problem: Problem) -> float:
    """Return the bound by the busiest of several streams: what runs beside it hides nothing."""
    hideable, talk = hideable_us(problem), [0.0] * problem.streams.count
    for op in problem.exchanges:
        talk[problem.streams.of.get(op, 0)] += problem.us[op]
    return problem.compute_us + max(0.0, max(talk) - hideable)


def exchange_bounds(problem: Problem) -> dict[int, float]:
    """Return per exchange the us of it that no order can hide, looking at it alone.

    Their sum is at most `exposed_bound`'s flow term: exchanges may want the same compute.
    """
    beside: dict[int, float] = dict.fromkeys(problem.exchanges, 0.0)
    overlaps = Overlaps.of(problem)
    for bits, lengths in _beside(problem, overlaps).items():
        for i in _ones(bits):
            beside[overlaps.exchanges[i]] += sum(lengths)
    alone = {op: max(0.0, problem.us[op] - us) for op, us in beside.items()}
    return alone | {op: problem.us[op] for op in sorted(problem.blocking)}


def hideable_us(problem: Problem) -> float:
    """Return an upper bound in us on the exchange time that compute can cover.

    The maximum of the paper's objective (section 4.1) over fractional assignments: every us of
    compute covers at most one us of one exchange that it is incomparable with. An op runs in one
    piece, so of exchanges with compute between them it covers at most one.
    """
    overlaps = Overlaps.of(problem)
    groups = _coverage(problem, overlaps)
    width = -(-len(overlaps.exchanges) // _SINKS)
    sinks: defaultdict[int, float] = defaultdict(float)
    for i, op in enumerate(overlaps.exchanges):
        sinks[i // max(width, 1)] += problem.us[op]
    block = (1 << width) - 1
    reach = [[s for s in sinks if bits >> s * width & block] for bits in groups]
    return _max_flow(list(groups.values()), reach, sinks)


def _max_flow(
    sources: Sequence[float], reach: Sequence[Collection[int]], sinks: Mapping[int, float]
) -> float:
    """Return how much can flow from sources to the sinks that each may reach, rounded upwards."""
    unit = (sum(sources) + sum(sinks.values())) / _FLOW_UNITS
    if unit == 0.0:
        return 0.0
    start, end, first = 0, 1, 2 + len(sinks)
    arcs = [(2 + sink, end, us) for sink, us in sinks.items()]
    for node, (us, into) in enumerate(zip(sources, reach, strict=True), first):
        arcs.append((start, node, us))
        arcs += [(node, 2 + sink, us) for sink in sorted(into)]
    tails, heads, room = zip(*arcs, strict=True)
    capacity = np.ceil(np.array(room) / unit).astype(np.int32)
    size = first + len(sources)
    network = csr_array((capacity, (tails, heads)), shape=(size, size))
    return maximum_flow(network, start, end).flow_value * unit


def one_machine_bound(problem: Problem, lanes: Sequence[Lane]) -> float:
    """Return the makespan in us of the ops on one lane if they could be interrupted at will.

    Jackson's preemptive schedule: whenever the lane is free, the released op with the longest path
    behind it runs. Release times and paths behind come from precedence alone. O(n log n).
    """
    ops = [op for op in range(problem.size) if problem.lane[op] in lanes and problem.us[op] > 0]
    # What has slack comes to the exchange lane that much later.
    late = dict.fromkeys(ops, 0.0) if Lane.COMPUTE in lanes else problem.slack_us
    head = {op: problem.head_us[op] + late.get(op, 0.0) for op in ops}
    ops.sort(key=head.__getitem__)
    behind = {op: problem.tail_us[op] - problem.us[op] for op in ops}
    ready: list[tuple[float, int, float]] = []
    now = longest = 0.0
    for place, op in enumerate(ops):
        now = max(now, head[op])
        heapq.heappush(ready, (-behind[op], op, problem.us[op] - late.get(op, 0.0)))
        until = head[ops[place + 1]] if place + 1 < len(ops) else math.inf
        while ready and now < until:
            back, first, left = heapq.heappop(ready)
            run = min(left, until - now)
            now += run
            if run < left:
                heapq.heappush(ready, (back, first, left - run))
            else:
                longest = max(longest, now - back)
    return longest


def _beside(problem: Problem, overlaps: Overlaps) -> dict[int, list[float]]:
    """Return what ops can hide by the exchanges they may run beside; see `Problem.covers_us`."""
    groups: defaultdict[int, list[float]] = defaultdict(list)
    for op in range(problem.size):
        bits = overlaps.beside(op)
        if bits and (us := problem.covers_us(op)) > 0:
            groups[bits].append(us)
    return dict(groups)


def _coverage(problem: Problem, overlaps: Overlaps) -> dict[int, float]:
    """Return the exchange time in us that each group of ops beside the same exchanges can cover.

    If compute has to run between two exchanges, an op in flight beside the first ends before the
    second starts. So of every chain of such exchanges one op covers at most one.
    """
    apart = _apart(problem, overlaps)
    coverage = {}
    for bits, lengths in _beside(problem, overlaps).items():
        most = _most(problem, overlaps, apart, bits, max(lengths))
        coverage[bits] = sum(min(us, most) for us in lengths)
    return coverage


def _most(
    problem: Problem, overlaps: Overlaps, apart: Sequence[int], bits: int, enough: float
) -> float:
    """Return the us of the exchanges `bits` that one op can cover, or anything over `enough`."""
    ends = 0
    longest: dict[int, float] = {}
    for i in _ones(bits):
        us = problem.us[overlaps.exchanges[i]]
        chain = apart[i] & ends
        last = chain.bit_length() - 1
        longest[i] = max(longest.pop(last, 0.0), us)
        ends = (ends ^ (1 << last if chain else 0)) | 1 << i
        if us >= enough or sum(longest.values()) >= enough:
            break
    return sum(longest.values())


def _apart(problem: Problem, overlaps: Overlaps) -> list[int]:
    """Per exchange, the bits of those before it with compute on the way."""
    through = [0] * problem.size
    for op in range(problem.size):
        for p in problem.preds[op]:
            works = problem.us[p] > 0 and problem.lane[p] in (Lane.COMPUTE, Lane.BOTH)
            through[op] |= through[p] | (overlaps.before[p] if works else 0)
    return [through[op] for op in overlaps.exchanges]


def _ones(bits: int) -> Iterator[int]:
    """Yield the places of the set bits, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
