"""When every op runs, and how much communication nothing hides."""

from dataclasses import dataclass
from functools import cached_property

from hlo_passes.plans import Prediction


@dataclass(frozen=True, slots=True)
class Slot:
    """One op on one lane.

    Attributes:
        op: id in the graph that the timeline was made from.
        key: the op's key, which outlives the graph.
        name: HLO name, for people who look at dumps.
        lane: `compute` or `exchange`.
        start_us, us: when it begins and how long it lasts.
        source: where the duration comes from.
    """

    op: int
    key: str
    name: str
    lane: str
    start_us: float
    us: float
    source: str

    @property
    def end_us(self) -> float:
        """When it ends."""
        return self.start_us + self.us


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several exchanges that are issued as one has of their window.

    Attributes:
        kind, bytes: the exchange, as in `Window`.
        start_us, us, exposed_us: its part of the time; one follows the other.
    """

    kind: str
    bytes: int
    start_us: float
    us: float
    exposed_us: float


@dataclass(frozen=True, slots=True)
class Window:
    """The time that one exchange is in flight.

    Attributes:
        op, key, name, kind: the exchange.
        bytes: payload of one device.
        start_us, us: when it begins and how long it lasts.
        exposed_us: how much of that has no compute beside it.
        source: where its duration comes from.
        times: how often it happens per step, for an exchange in a loop.
        fillers: keys of the ops that run beside it, longest overlap first.
        members: the exchanges that are issued as this one; () for one alone.
    """

    op: int
    key: str
    name: str
    kind: str
    bytes: int
    start_us: float
    us: float
    exposed_us: float
    source: str
    times: int = 1
    fillers: tuple[str, ...] = ()
    members: tuple[Share, ...] = ()

    @property
    def is_all_to_all(self) -> bool:
        """Whether tokens move in it."""
        return self.kind in ("all_to_all", "ragged_all_to_all")


@dataclass(frozen=True)
class Timeline:
    """One step on two lanes.

    Attributes:
        source: `predicted` (from a plan), `compiled` (from XLA's final schedule) or `measured`.
        target: what it was priced for.
        slots: in order of issue; ops that take no time are left out.
        windows: every exchange, those in loops included.
        makespan_us: length of the step.
        compute_us: sum of all compute.
        peak_bytes: temporary memory, estimated.
    """

    source: str
    target: str
    slots: tuple[Slot, ...]
    windows: tuple[Window, ...]
    makespan_us: float
    compute_us: float
    peak_bytes: int

    @cached_property
    def exchange_us(self) -> float:
        """Sum of all exchanges."""
        return sum(w.us * w.times for w in self.windows)

    @cached_property
    def exposed_us(self) -> float:
        """Communication time with no compute beside it."""
        return sum(w.exposed_us * w.times for w in self.windows)

    @cached_property
    def exposed_all_to_all_us(self) -> float:
        """The part of `exposed_us` that all-to-alls cause."""
        return sum(w.exposed_us * w.times for w in self.windows if w.is_all_to_all)


def prediction_of(timeline: Timeline) -> Prediction:
    """Return the figures of a simulated step."""
    return Prediction(
        step_us=round(timeline.makespan_us, 3),
        compute_us=round(timeline.compute_us, 3),
        exchange_us=round(timeline.exchange_us, 3),
        exposed_us=round(timeline.exposed_us, 3),
        exposed_all_to_all_us=round(timeline.exposed_all_to_all_us, 3),
        peak_bytes=timeline.peak_bytes,
    )
