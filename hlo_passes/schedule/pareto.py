"""What time costs in memory: orders of a step under several limits, and those worth having.

No one order is best: what hides an exchange holds its results for longer. An order is worth having
if no other is as short and as small.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hlo_passes.schedule.list.policies import list_order
from hlo_passes.schedule.simulate import Simulator

SLACKS = (0.0, 0.02, 0.05, 0.1, None)
"""Shares by which temporary memory may grow over that of the old order; None for any."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way to run a step, by the planner's own simulation.

    Attributes:
        name: which.
        step_us: its length.
        peak_bytes: its temporary memory.
    """

    name: str
    step_us: float
    peak_bytes: int


def orders_within(simulator: Simulator, what: str = "order") -> Iterator[Point]:
    """Yield the list scheduler's order under every limit of `SLACKS`; loops keep their orders.

    Args:
        simulator: the step; the limits are shares of what its program order needs.
        what: what to call it, before the limit.
    """
    problem = simulator.problem
    stock = problem.buffers.peak(range(problem.size))
    for slack in SLACKS:
        limit = None if slack is None else int(stock * (1 + slack))
        order = list_order(problem, memory_limit=limit, contention=simulator.costs.contention)
        timeline = simulator.timeline(order)
        within = "any memory" if slack is None else f"memory +{slack:.0%}"
        yield Point(f"{what}, {within}", timeline.makespan_us, timeline.peak_bytes)


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other is as short and as small as, smallest memory first.

    Of equal points the first is kept.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.peak_bytes, p.step_us)):
        if not found or point.step_us < found[-1].step_us:
            found.append(point)
    return tuple(found)
