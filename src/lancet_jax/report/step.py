"""One step laid out in time: every op of every trip of every loop, and what is known of it.

A `Timeline` draws a loop as one block. A step that scans over its layers is little else than two
loops, so people who look at it want to see inside: here the trips are laid out one after another.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hlo_passes.facts.roles import Role, phases_of, roles_of
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.schedule.bound import exchange_bounds
from hlo_passes.schedule.memory import Ledger
from hlo_passes.schedule.overlaps import Overlaps
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Timeline

MOST_BARS = 60_000
"""A loop whose trips would need more bars than this is drawn as one block."""


@dataclass(frozen=True)
class Level:
    """One computation of a step: the entry, or the body of a loop.

    Attributes:
        simulator: the computation, its prices and its order.
        timeline: one run of it.
        trips: how often it runs per step.
    """

    simulator: Simulator
    timeline: Timeline
    trips: int = 1

    @property
    def graph(self) -> Graph:
        """The computation."""
        return self.simulator.graph

    @property
    def order(self) -> Sequence[int]:
        """Op ids in order of issue."""
        return self.simulator.orders.get(self.graph.name, range(len(self.graph.ops)))

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """What every op is for."""
        return roles_of(self.graph)

    @cached_property
    def phases(self) -> dict[int, Phase]:
        """What every exchange is for."""
        return phases_of(self.graph)

    @cached_property
    def windows(self) -> Overlaps:
        """Which compute may run beside which exchange."""
        return Overlaps.of(self.simulator.problem)

    @cached_property
    def bounds(self) -> dict[int, float]:
        """Per exchange, the us of it that stay exposed whatever the order."""
        return exchange_bounds(self.simulator.problem)


@dataclass(frozen=True, slots=True)
class Bar:
    """One execution of one op.

    Attributes:
        level: index into `LaidOutStep.levels`.
        op: id in that level's graph.
        start_us, us: when it begins and how long it lasts.
        source: where the duration comes from.
    """

    level: int
    op: int
    start_us: float
    us: float
    source: str

    @property
    def end_us(self) -> float:
        """When it ends."""
        return self.start_us + self.us


@dataclass(frozen=True)
class LaidOutStep:
    """A step laid out on two lanes.

    Attributes:
        levels: its computations, the entry first.
        compute, exchange: what runs on each lane, by start.
        loops: the time that all trips of an unfolded loop take; their ops are in the lanes.
        folded: loops with too many trips to lay out; each is one bar in `compute`.
    """

    levels: tuple[Level, ...]
    compute: tuple[Bar, ...]
    exchange: tuple[Bar, ...]
    loops: tuple[Bar, ...] = ()
    folded: tuple[Bar, ...] = ()

    @staticmethod
    def of(simulator: Simulator, source: str = "predicted") -> "LaidOutStep":
        """Lay out the step that a simulator runs; see `Timeline` for `source`."""
        return _Layout().step(simulator, source)

    def op(self, bar: Bar) -> Op:
        """Return the op that a bar is one execution of."""
        return self.levels[bar.level].graph.ops[bar.op]

    @cached_property
    def bare(self) -> tuple[tuple[float, float], ...]:
        """Begin and end in us of every stretch of an exchange with no compute beside it."""
        starts = [bar.start_us for bar in self.compute]
        return tuple(
            stretch for bar in self.exchange for stretch in _uncovered(bar, self.compute, starts)
        )

    @cached_property
    def memory(self) -> tuple[tuple[float, int], ...]:
        """Bytes of temporary memory over time: (us, bytes), by time; a loop's peak is one block.

        Memory is taken at issue, so an op of no length counts when the compute after it begins.
        """
        top = self.levels[0]
        ledger = Ledger(top.simulator.problem.buffers)
        start = {s.op: s.start_us for s in top.timeline.slots if s.lane == "compute"}
        points, now = [], 0.0
        for op in top.order:
            now = max(now, start.get(op, now))
            points.append((now, ledger.need((op,))))
            ledger.issue((op,))
            points.append((now, ledger.live))
        return tuple(points)


def _uncovered(
    bar: Bar, compute: Sequence[Bar], starts: Sequence[float]
) -> Iterator[tuple[float, float]]:
    """Yield the stretches of `bar` in which no compute runs."""
    at = bar.start_us
    for i in range(max(bisect_right(starts, at) - 1, 0), len(compute)):
        if compute[i].start_us >= bar.end_us:
            break
        if compute[i].start_us > at:
            yield at, compute[i].start_us
        at = max(at, compute[i].end_us)
    if at < bar.end_us:
        yield at, bar.end_us


def _in_turn(bars: Sequence[Bar]) -> Iterator[Bar]:
    """Let exchanges wait for what was in flight when their loop began; it has slack for that."""
    end = 0.0
    for bar in bars:
        start = max(bar.start_us, end)
        end = start + bar.us
        yield bar if start == bar.start_us else replace(bar, start_us=start)


class _Layout:
    """Collects bars, level by level."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.lanes: dict[str, list[Bar]] = {"compute": [], "exchange": []}
        self.loops: list[Bar] = []
        self.folded: list[Bar] = []

    def step(self, simulator: Simulator, source: str) -> LaidOutStep:
        self._add(simulator, source, 0.0, 1)
        compute, exchange = (
            tuple(sorted(lane, key=lambda bar: bar.start_us)) for lane in self.lanes.values()
        )
        if simulator.problem.streams.is_one:
            exchange = tuple(_in_turn(exchange))
        return LaidOutStep(
            tuple(self.levels), compute, exchange, tuple(self.loops), tuple(self.folded)
        )

    def _add(self, simulator: Simulator, source: str, start_us: float, trips: int) -> None:
        """Lay out one run of a computation, and all trips of the loops in it."""
        order = simulator.orders.get(simulator.graph.name)
        level = Level(simulator, simulator.timeline(order, source=source), trips)
        index = len(self.levels)
        self.levels.append(level)
        for slot in level.timeline.slots:
            bar = Bar(index, slot.op, start_us + slot.start_us, slot.us, slot.source)
            op = level.graph.ops[slot.op]
            if op.inner:
                self._loop(level, op, bar, source)
            else:
                self.lanes[slot.lane].append(bar)

    def _loop(self, level: Level, op: Op, bar: Bar, source: str) -> None:
        """Lay out the longest body of a loop or branch, as often as it runs."""
        body = max(zip(op.inner, level.simulator.inner[op.id], strict=True),
                   key=lambda pair: pair[1].makespan_us)  # fmt: skip
        trips = max(op.trips, 1)
        before, loops = {name: len(lane) for name, lane in self.lanes.items()}, len(self.loops)
        inside = Simulator(body[0], level.simulator.costs, level.simulator.orders)
        self._add(inside, source, bar.start_us, level.trips * trips)
        laid = {name: lane[before[name] :] for name, lane in self.lanes.items()}
        if (trips - 1) * sum(map(len, laid.values())) + self._size > MOST_BARS:
            for name, lane in self.lanes.items():
                del lane[before[name] :]
            del self.loops[loops:]
            self.lanes["compute"].append(bar)
            self.folded.append(bar)
            return
        self.loops.append(bar)
        for name, once in laid.items():
            for trip in range(1, trips):
                by = trip * body[1].makespan_us
                self.lanes[name] += [
                    Bar(b.level, b.op, b.start_us + by, b.us, b.source) for b in once
                ]

    @property
    def _size(self) -> int:
        return sum(map(len, self.lanes.values()))
