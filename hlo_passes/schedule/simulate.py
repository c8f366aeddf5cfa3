"""Runs an order on two lanes, and says when everything happens and what stays exposed."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hlo_passes.cost.model import CostModel
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.traits import BRANCHES
from hlo_passes.schedule.problem import Lane, Problem, problem_of
from hlo_passes.schedule.timeline import Share, Slot, Timeline, Window


@dataclass(frozen=True, slots=True)
class Run:
    """Start of every op, by op id, and the end of the last."""

    start_us: tuple[float, ...]
    makespan_us: float


def execute(
    problem: Problem, order: Sequence[int], contention: float = 0.0, busy_us: float = 0.0
) -> Run:
    """Execute `order` as `Problem` describes.

    Args:
        problem: what to run.
        order: every op once, legal.
        contention: fraction by which an exchange in flight slows the compute beside it.
        busy_us: how long the exchange lane is still busy with what was started before.
    """
    start = [0.0] * problem.size
    finish = [0.0] * problem.size
    compute, exchange, flight = 0.0, busy_us, busy_us
    ends = [busy_us] * problem.streams.count
    preds, one = problem.preds, problem.streams.is_one
    slack = problem.slack_us
    for op in order:
        ready = 0.0
        for before in preds[op]:  # a plain loop: this is where planning spends its time
            if finish[before] > ready:
                ready = finish[before]
        lane, us = problem.lane[op], problem.us[op]
        if lane is Lane.FREE:
            start[op] = finish[op] = ready
            continue
        begin = max(ready, compute)
        if lane is not Lane.COMPUTE:
            if not one:
                exchange = _stream_free_us(problem, op, ends, finish)
            begin = max(begin, exchange - slack.get(op, 0.0))
        if contention and lane is Lane.COMPUTE:
            us += contention * max(0.0, min(us, flight - begin))
        start[op], finish[op] = begin, begin + us
        if lane is not Lane.EXCHANGE:
            compute = finish[op]
        if lane is not Lane.COMPUTE:
            exchange = flight = finish[op]
            if not one:
                problem.hold(op, ends, finish[op])
                flight = max(ends)
    return Run(tuple(start), max(finish, default=0.0))


def _stream_free_us(
    problem: Problem, op: int, ends: Sequence[float], finish: Sequence[float]
) -> float:
    """Return when an exchange's own stream is free, and nothing in flight would cross it."""
    apart = problem.streams.apart.get(op, ())
    return max(problem.free_us(op, ends), *(finish[e] for e in apart), 0)


@dataclass(frozen=True)
class Simulator:
    """A graph priced for a target, ready to run in any order.

    Attributes:
        graph: what to run.
        costs: prices for the target.
        orders: orders of the computations inside loops, by name; program order by default.
    """

    graph: Graph
    costs: CostModel
    orders: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @cached_property
    def bodies(self) -> dict[int, list["Simulator"]]:
        """The bodies inside the graph, by the op that they belong to."""
        return {
            op.id: [Simulator(body, self.costs, self.orders) for body in op.inner]
            for op in self.graph.ops
            if op.inner
        }

    @cached_property
    def inner(self) -> dict[int, list[Timeline]]:
        """One run of every body inside the graph, by the op that it belongs to."""
        return {
            op: [body.timeline(self.orders.get(body.graph.name)) for body in bodies]
            for op, bodies in self.bodies.items()
        }

    @cached_property
    def problem(self) -> Problem:
        """The graph as a scheduling problem; a loop takes all its trips, a branch its longest.

        A loop whose trips are not known takes one, and the host has to ask twice, as it does once
        for a branch. What exchanges inside may begin while an exchange before it is in flight, as
        it does on a GPU.
        """
        loops = {
            op: max((t.makespan_us for t in timelines), default=0.0) * self._trips(op)
            + self._asks(self.graph.ops[op]) * self.costs.decide_us
            for op, timelines in self.inner.items()
        }
        problem = problem_of(self.graph, self.costs, loops)
        if not problem.streams.is_one:
            return problem
        talking = [op for op in loops if problem.lane[op] is Lane.BOTH]
        return replace(problem, slack_us={op: self._slack_us(op) for op in talking})

    def _slack_us(self, op: int) -> float:
        """Return how long the exchange lane may stay busy after an op has begun, at no cost.

        A run is made of sums and maxima, so its end is the later of its end on free lanes and of
        the end of what keeps the lane busy plus a constant: that of a run which that decides.
        """
        ends = []
        for body in self.bodies[op]:
            problem = body.problem
            order = self.orders.get(body.graph.name, range(problem.size))
            busy = sum(problem.us)
            run = execute(problem, order, self.costs.contention, busy)
            ends.append(run.makespan_us - busy)
        longest = max((t.makespan_us for t in self.inner[op]), default=0.0)
        return max(longest - max(ends, default=0.0), 0.0)

    def timeline(
        self, order: Sequence[int] | None = None, *, source: str = "predicted"
    ) -> Timeline:
        """Run the graph.

        Args:
            order: op ids in order of issue; program order by default.
            source: what the timeline is a picture of (see `Timeline`).
        """
        problem = self.problem
        chosen = range(problem.size) if order is None else order
        run = execute(problem, chosen, self.costs.contention)
        windows = _windows(self.graph, problem, run, self.costs)
        for op, timelines in self.inner.items():
            windows += _looped(timelines, self._trips(op), run.start_us[op])
        return Timeline(
            source=source,
            target=self.costs.name,
            slots=_slots(self.graph, problem, run, chosen),
            windows=tuple(windows),
            makespan_us=run.makespan_us,
            compute_us=problem.compute_us - self._exposed_inside(),
            peak_bytes=problem.buffers.peak(chosen),
        )

    def _asks(self, op: Op) -> int:
        """Return how often the host has to read a number before it knows how to go on."""
        if op.kind in BRANCHES:
            return 1
        return 0 if op.trips else 2

    def _trips(self, op: int) -> int:
        return max(self.graph.ops[op].trips, 1)

    def _exposed_inside(self) -> float:
        """Exposed time inside loops, which a loop's own slot counts as if it were compute."""
        return sum(
            max((t.makespan_us - t.compute_us for t in timelines), default=0.0) * self._trips(op)
            for op, timelines in self.inner.items()
        )


def simulate(
    graph: Graph,
    costs: CostModel,
    order: Sequence[int] | None = None,
    *,
    source: str = "predicted",
    orders: Mapping[str, Sequence[int]] | None = None,
) -> Timeline:
    """Run a graph on a target once; see `Simulator`.

    Args:
        graph: what to run.
        costs: prices for the target.
        order: op ids in order of issue; program order by default.
        source: what the timeline is a picture of (see `Timeline`).
        orders: orders of computations inside, by name.
    """
    return Simulator(graph, costs, orders or {}).timeline(order, source=source)


def _slots(graph: Graph, problem: Problem, run: Run, order: Sequence[int]) -> tuple[Slot, ...]:
    names = {Lane.COMPUTE: "compute", Lane.EXCHANGE: "exchange", Lane.BOTH: "compute"}
    return tuple(
        Slot(
            op,
            graph.ops[op].key,
            graph.ops[op].name,
            "exchange" if graph.ops[op].collective else names[problem.lane[op]],
            run.start_us[op],
            problem.us[op],
            problem.sources[op],
        )
        for op in order
        if problem.us[op] > 0
    )


def _windows(graph: Graph, problem: Problem, run: Run, costs: CostModel) -> list[Window]:
    """Measure how much of every exchange compute covers."""
    busy = sorted(
        (run.start_us[op], run.start_us[op] + covers, op)
        for op in range(problem.size)
        if (covers := problem.covers_us(op)) > 0
    )
    starts = [begin for begin, _, _ in busy]
    windows = []
    exposed = {} if problem.streams.is_one else _shared_out(graph, problem, run, busy)
    for exchange in graph.exchanges:
        op = graph.ops[exchange]
        begin, us = run.start_us[exchange], problem.us[exchange]
        beside = _beside(busy, starts, begin, begin + us)
        hidden = 0.0 if op.blocking else min(us, sum(overlap for overlap, _ in beside))
        assert op.collective is not None
        bare = exposed.get(exchange, max(0.0, us - hidden))
        windows.append(
            Window(
                exchange, op.key, op.name, op.collective.kind, op.collective.bytes, begin, us,
                bare, problem.sources[exchange],
                fillers=tuple(graph.ops[f].key for _, f in sorted(beside, reverse=True)),
                members=tuple(_shares(op.collective, costs, begin, bare / us if us else 0.0)),
            )
        )  # fmt: skip
    return windows


def _shares(collective: Collective, costs: CostModel, begin: float, bare: float) -> Iterator[Share]:
    """Yield the members of a group, one after the other; each exposes the same share `bare`."""
    for member in collective.members:
        us = costs.exchange(member).us
        yield Share(member.kind, member.bytes, begin, us, us * bare)
        begin += us


def _shared_out(
    graph: Graph, problem: Problem, run: Run, busy: list[tuple[float, float, int]]
) -> dict[int, float]:
    """Return what every exchange exposes, where several streams expose the same time.

    Time is counted once: for an all-to-all, then for the exchange that began first.
    """

    def rank(exchange: int) -> tuple[bool, float, int]:
        collective = graph.ops[exchange].collective
        return not (collective and collective.is_all_to_all), run.start_us[exchange], exchange

    taken = [(begin, end) for begin, end, _ in busy]
    exposed = {}
    for exchange in sorted(graph.exchanges, key=rank):
        begin = run.start_us[exchange]
        end = begin + problem.us[exchange]
        at, left = begin, 0.0
        for first, last in sorted(taken):
            if last > at and first < end:
                left += max(0.0, first - at)
                at = max(at, last)
        exposed[exchange] = left + max(0.0, end - at)
        taken.append((begin, end))
    return exposed


def _beside(
    busy: list[tuple[float, float, int]], starts: list[float], begin: float, end: float
) -> list[tuple[float, int]]:
    """Return (overlap in us, op) for the compute ops that run between `begin` and `end`."""
    found = []
    i = max(bisect_right(starts, begin) - 1, 0)
    while i < len(busy) and busy[i][0] < end:
        overlap = min(busy[i][1], end) - max(busy[i][0], begin)
        if overlap > 0:
            found.append((overlap, busy[i][2]))
        i += 1
    return found


def _looped(timelines: list[Timeline], trips: int, start_us: float) -> list[Window]:
    """Lift the windows of a loop's body into the step."""
    return [
        Window(
            w.op, w.key, w.name, w.kind, w.bytes, start_us + w.start_us, w.us, w.exposed_us,
            w.source, w.times * trips, w.fillers,
            tuple(replace(m, start_us=start_us + m.start_us) for m in w.members),
        )
        for timeline in timelines
        for w in timeline.windows
    ]  # fmt: skip
