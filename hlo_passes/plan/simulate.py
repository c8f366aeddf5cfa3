"""Runs an order on two lanes, and says when everything happens and what stays exposed."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from hlo_passes.cost.model import CostModel
from hlo_passes.ir.graph import Graph
from hlo_passes.plan.problem import Lane, Problem, problem_of
from hlo_passes.plan.timeline import Slot, Timeline, Window


@dataclass(frozen=True, slots=True)
class Run:
    """Start of every op, by op id, and the end of the last."""

    start_us: tuple[float, ...]
    makespan_us: float


def execute(problem: Problem, order: Sequence[int], contention: float = 0.0) -> Run:
    """Execute `order` as `Problem` describes.

    Args:
        problem: what to run.
        order: every op once, legal.
        contention: fraction by which an exchange in flight slows the compute beside it.
    """
    start = [0.0] * problem.size
    finish = [0.0] * problem.size
    compute = exchange = flight = 0.0
    for op in order:
        ready = max((finish[p] for p in problem.preds[op]), default=0.0)
        lane, us = problem.lane[op], problem.us[op]
        if lane is Lane.FREE:
            start[op] = finish[op] = ready
            continue
        begin = max(ready, compute)
        if lane is not Lane.COMPUTE:
            begin = max(begin, exchange)
        if contention and lane is Lane.COMPUTE:
            us += contention * max(0.0, min(us, flight - begin))
        start[op], finish[op] = begin, begin + us
        if lane is not Lane.EXCHANGE:
            compute = finish[op]
        if lane is not Lane.COMPUTE:
            exchange = flight = finish[op]
    return Run(tuple(start), max(finish, default=0.0))


def simulate(
    graph: Graph,
    costs: CostModel,
    order: Sequence[int] | None = None,
    *,
    source: str = "predicted",
    orders: dict[str, Sequence[int]] | None = None,
) -> Timeline:
    """Run a graph on a target.

    Args:
        graph: what to run.
        costs: prices for the target.
        order: op ids in order of issue; program order by default.
        source: what the timeline is a picture of (see `Timeline`).
        orders: orders of the computations inside loops, by name; program order by default.
    """
    inner = _inner_timelines(graph, costs, orders)
    problem = problem_of(graph, costs, _loop_times(graph, inner))
    chosen = range(problem.size) if order is None else order
    run = execute(problem, chosen, costs.contention)
    windows = _windows(graph, problem, run)
    for op, timelines in inner.items():
        windows += _looped(timelines, max(graph.ops[op].trips, 1), run.start_us[op])
    return Timeline(
        source=source,
        target=costs.name,
        slots=_slots(graph, problem, run, chosen),
        windows=tuple(windows),
        makespan_us=run.makespan_us,
        compute_us=problem.compute_us - _exposed_inside(graph, inner),
        peak_bytes=problem.buffers.peak(chosen),
    )


def problem_with_loops(
    graph: Graph, costs: CostModel, orders: dict[str, Sequence[int]] | None = None
) -> Problem:
    """Reduce a graph to a scheduling problem, with the time of its loops simulated.

    Args:
        graph: what is to be ordered.
        costs: prices for the target.
        orders: orders of the computations inside loops, by name; program order by default.
    """
    return problem_of(graph, costs, _loop_times(graph, _inner_timelines(graph, costs, orders)))


def _inner_timelines(
    graph: Graph, costs: CostModel, orders: dict[str, Sequence[int]] | None
) -> dict[int, list[Timeline]]:
    """Run every body inside the graph once."""
    return {
        op.id: [simulate(g, costs, (orders or {}).get(g.name), orders=orders) for g in op.inner]
        for op in graph.ops
        if op.inner
    }


def _loop_times(graph: Graph, inner: dict[int, list[Timeline]]) -> dict[int, float]:
    """Time of every op with bodies: all its trips, or the longest of its branches."""
    return {
        op: max((t.makespan_us for t in timelines), default=0.0) * max(graph.ops[op].trips, 1)
        for op, timelines in inner.items()
    }


def _exposed_inside(graph: Graph, inner: dict[int, list[Timeline]]) -> float:
    """Exposed time inside loops, which the loop's own slot counts as if it were compute."""
    return sum(
        max((t.makespan_us - t.compute_us for t in timelines), default=0.0)
        * max(graph.ops[op].trips, 1)
        for op, timelines in inner.items()
    )


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


def _windows(graph: Graph, problem: Problem, run: Run) -> list[Window]:
    """Measure how much of every exchange compute covers."""
    busy = sorted(
        (run.start_us[op], run.start_us[op] + problem.us[op], op)
        for op in range(problem.size)
        if problem.lane[op] is Lane.COMPUTE and problem.us[op] > 0
    )
    starts = [begin for begin, _, _ in busy]
    windows = []
    for exchange in graph.exchanges:
        op = graph.ops[exchange]
        begin, us = run.start_us[exchange], problem.us[exchange]
        beside = _beside(busy, starts, begin, begin + us)
        hidden = 0.0 if op.blocking else min(us, sum(overlap for overlap, _ in beside))
        assert op.collective is not None
        windows.append(
            Window(
                exchange, op.key, op.name, op.collective.kind, op.collective.bytes, begin, us,
                max(0.0, us - hidden), problem.sources[exchange],
                fillers=tuple(graph.ops[f].key for _, f in sorted(beside, reverse=True)),
            )
        )  # fmt: skip
    return windows


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
        )
        for timeline in timelines
        for w in timeline.windows
    ]  # fmt: skip
