"""An order for a step and for the loops inside it, and why its exchanges stay exposed all the same.

Whether memory is what keeps work from an exchange is found out by deciding again: with all the room
there could be, and, if that helps, with the room that was needed then.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Refusal
from hlo_passes.schedule.reasons import LEAST, Held, why_exposed
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Timeline

_WORTH = 1e-3
"""Exposed time above the bound that is a smaller share of the step is not worth another look."""

AT_WILL = 1e6
"""A `memory-slack` that never binds."""

_AMPLE = 1.0
"""A `memory-slack` with which an order is mostly found that takes less: orders are made op by op,
and each op has to leave a way on within the limit."""


_STEP = 100_000
"""Bytes, to which a lack of memory is rounded up: what is said is what was tried."""


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        graph: the step.
        simulators: of every computation that was ordered, by name; they know all orders.
        orders: new orders by name; a computation that keeps its own is absent.
        strategies: who won, by name.
        bounds: exposed us whatever the order, by name.
        held: what may not move, by name.
        is_bound: whether an order did not fit into memory.
    """

    graph: Graph
    simulators: dict[str, Simulator]
    orders: dict[str, tuple[int, ...]]
    strategies: dict[str, str]
    bounds: dict[str, float]
    held: dict[str, Held] = field(default_factory=dict)
    is_bound: bool = False

    @cached_property
    def timeline(self) -> Timeline:
        """One run of the step."""
        return self.simulators[self.graph.name].timeline(self.orders.get(self.graph.name))

    @cached_property
    def bound_us(self) -> float:
        """Communication that stays exposed whatever the order."""
        return sum(self.bounds.get(g.name, 0.0) * trips for g, trips in self.graph.walk())

    @property
    def growth(self) -> float:
        """The largest share by which a computation needs more temporary memory than before."""
        shares = [0.0]
        for name, order in self.orders.items():
            buffers = self.simulators[name].problem.buffers
            stock = buffers.peak(range(len(order)))
            shares.append(buffers.peak(order) / stock - 1 if stock else 0.0)
        return max(shares)


type Again = Callable[[float, int], Decision]
"""Decides with another `memory-slack`, and with so many bytes more on a device."""


def refusals_of(
    made: Decision, again: Again, *, slack: float, room: int | None
) -> tuple[Refusal, ...]:
    """Say why exchanges stay exposed.

    Args:
        made: what was decided.
        again: decides once more.
        slack: the `memory-slack` that it was decided with.
        room: bytes that a device has for temporaries of the step; None for no limit.
    """
    after = made.timeline
    if not after.windows:
        return (
            Refusal(
                op=made.graph.name, reason="no exchange between devices: there is nothing to hide"
            ),
        )
    reasons: dict[str, str] = {}
    for name, simulator in made.simulators.items():
        is_loop = name != made.graph.name
        reasons |= why_exposed(simulator, held=made.held.get(name), is_loop=is_loop)
    better, text = _more_room(made, again, slack, room)
    for key in reasons.keys() & better:
        reasons[key] = f"{reasons[key].partition(':')[0]}: {text}"
    ops = {op.key: op for inside, _ in made.graph.walk() for op in inside.ops}
    return tuple(
        Refusal(op=w.key, reason=reasons[w.key], source=ops[w.key].source)
        for w in after.windows
        if w.key in reasons
    )


def _more_room(
    made: Decision, again: Again, slack: float, room: int | None
) -> tuple[set[str], str]:
    """Return the exchanges that more memory would hide more of, and how much does what."""
    before = made.timeline
    if not made.is_bound:
        return set(), ""
    if before.exposed_us - made.bound_us <= _WORTH * before.makespan_us:
        return set(), ""
    lift = 0 if room is None else sum(made.simulators[made.graph.name].problem.buffers.sizes)
    free = again(AT_WILL, lift)
    if not _is_better(free.timeline, before):
        return set(), ""
    lack = 0 if room is None else max(0, free.timeline.peak_bytes - room)
    lack = math.ceil(lack / _STEP) * _STEP
    needed, after = slack, before
    for growth in (free.growth, max(2 * free.growth, _AMPLE)):
        allowed = max(slack, math.ceil(growth * 100) / 100)
        timeline = again(allowed, lack).timeline
        if timeline.exposed_us < (1 - LEAST) * after.exposed_us:
            needed, after = allowed, timeline
        if after.exposed_us <= (1 + LEAST) * free.timeline.exposed_us:
            break
    if not _is_better(after, before):
        return set(), ""
    how = [f"memory-slack={needed:g}"] if needed > slack else []
    how += [f"a device or memory_limit with {lack / 1e6:,.1f} MB more"] if lack else []
    more = max(0, after.peak_bytes - before.peak_bytes)
    text = (
        f"no room in memory: with {more / 1e6:,.1f} MB more ({', '.join(how)})"
        f" {after.exposed_us:,.0f} us of the step's exchanges stay exposed, not"
        f" {before.exposed_us:,.0f}"
    )
    return set(_better(before, after)), text


def _is_better(after: Timeline, before: Timeline) -> bool:
    return after.exposed_us < (1 - LEAST) * before.exposed_us


def _better(before: Timeline, after: Timeline) -> Iterator[str]:
    """Yield the keys of the exchanges that are exposed for less long."""
    now = {w.key: w.exposed_us for w in after.windows}
    for w in before.windows:
        if now.get(w.key, w.exposed_us) < w.exposed_us - LEAST * w.us:
            yield w.key
