"""The facts of one module as it stands: what it exchanges, who could hide it, and what works when.

Everything is by one schedule: the module's own, if it has one, else program order.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hlo_passes.facts.exchange_labels import Label, labels_of
from hlo_passes.facts.moe_roles import MoePart, moe_parts_of
from hlo_passes.facts.reach import Reach
from hlo_passes.facts.recompute import Recomputed
from hlo_passes.facts.roles import Role, roles_of
from hlo_passes.ir.graph import Graph
from hlo_passes.schedule.bound import exposed_bound
from hlo_passes.schedule.problem import Lane, Problem
from hlo_passes.schedule.reasons import by_data
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Timeline, Window
from lancet_jax.report.recomputation import RECOMPUTED, recomputation_notes, recomputed_us

_FILLERS = 3
"""How many of the longest fillers are named per exchange."""

_ROWS = 512
"""Rows of bits that are unpacked at a time."""


@dataclass(frozen=True, slots=True)
class Filler:
    """An op that may run beside an exchange, and where it runs now.

    Attributes:
        op, name, role: which.
        us: its length.
        late_us: how much later than the exchange it starts; below 0 for earlier.
        beside: what it hides now; "" if nothing.
    """

    op: str
    name: str
    role: str
    us: float
    late_us: float
    beside: str


@dataclass(frozen=True, slots=True)
class InspectedExchange:
    """One exchange of a step.

    Attributes:
        op, name, kind: which.
        phase, direction, layer: its label.
        bytes: payload of one device.
        us: its window's length; `times` of these per step.
        source: where that comes from.
        start_us: when it starts.
        exposed_us: how much of it nothing hides.
        could_hide_us: compute that neither needs nor feeds it; None inside a loop.
        by_data_us: the same as far as data goes: without side effects and the like; None likewise.
        times: how often it happens.
        line: `file:line` of the user's code, or "".
        blocking: whether nothing can run beside it, as when XLA made it synchronous.
        why_blocking: why, if that is not XLA's doing.
        fillers: the longest of that compute.
    """

    op: str
    name: str
    kind: str
    phase: str
    direction: str
    layer: str
    bytes: int
    us: float
    source: str
    start_us: float
    exposed_us: float
    could_hide_us: float | None
    by_data_us: float | None
    times: int
    line: str
    blocking: bool = False
    why_blocking: str = ""
    fillers: tuple[Filler, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What `lancet-jax inspect` prints, times in us.

    Attributes:
        module, target: what was priced for what.
        timeline: predicted, compiled or measured.
        scheduled: whether the order is XLA's schedule.
        devices, ops: of the module.
        bound_exposed_us: exposed whatever the order; None for a measured step.
        roles_us: compute by role, `expert` and `gate` apart.
        sources_us: compute by where its prices come from.
        exchanges: in order of issue.
        notes: what the reader should know.
    """

    module: str
    target: str
    timeline: Timeline
    scheduled: bool
    devices: int
    ops: int
    bound_exposed_us: float | None
    roles_us: dict[str, float]
    sources_us: dict[str, float]
    exchanges: tuple[InspectedExchange, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        t = self.timeline
        return {
            "module": self.module,
            "target": self.target,
            "source": t.source,
            "scheduled": self.scheduled,
            "devices": self.devices,
            "ops": self.ops,
            "step_us": t.makespan_us,
            "compute_us": t.compute_us,
            "exchange_us": t.exchange_us,
            "exposed_us": t.exposed_us,
            "bound_exposed_us": self.bound_exposed_us,
            "peak_bytes": t.peak_bytes,
            "roles_us": self.roles_us,
            "sources_us": self.sources_us,
            "exchanges": [asdict(e) for e in self.exchanges],
            "notes": list(self.notes),
        }


def inspection_of(
    name: str,
    simulator: Simulator,
    *,
    measured: Timeline | None = None,
    notes: Sequence[str] = (),
    recomputed: Recomputed | None = None,
) -> Inspection:
    """Inspect a module.

    Args:
        name: the module's name.
        simulator: its entry, loops inside it, priced for a target.
        measured: the same step by the clock, instead of a prediction.
        notes: what the reader should know.
        recomputed: what it computes twice, where that was looked for.
    """
    graph = simulator.graph
    timeline = measured or simulator.timeline(source="compiled" if graph.scheduled else "predicted")
    roles = roles_of(graph)
    labels = labels_of(graph, roles)
    parts = moe_parts_of(graph, roles, labels)
    names = named_roles(roles, parts)
    if recomputed is not None:
        names = [
            RECOMPUTED if op.key in recomputed.repeats else name
            for op, name in zip(graph.ops, names, strict=True)
        ]
        again = recomputed_us(recomputed, timeline)
        notes = [*notes, *recomputation_notes(recomputed, again)]
    return Inspection(
        module=name,
        target=timeline.target,
        timeline=timeline,
        scheduled=graph.scheduled,
        devices=graph.devices,
        ops=graph.size,
        bound_exposed_us=None if measured else exposed_bound(simulator.problem),
        roles_us=_longest_first(_by_role(simulator, timeline, names, labels)),
        sources_us=_longest_first(_by_source(simulator, timeline)),
        exchanges=tuple(_exchanges(graph, simulator.problem, timeline, labels, names)),
        notes=tuple(notes),
    )


def named_roles(roles: Sequence[Role], parts: Sequence[MoePart]) -> list[str]:
    """Put part and role of every op together, as in `expert dW`."""
    return [
        f"{part} {role}" if part else str(role) for part, role in zip(parts, roles, strict=True)
    ]


def _longest_first(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for name, us in times:
        total[name] += us
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _by_role(
    simulator: Simulator, timeline: Timeline, names: Sequence[str], labels: Mapping[str, Label]
) -> Iterator[tuple[str, float]]:
    """Yield (role, us) of every compute slot; a loop's time is that of what is inside it."""
    inner = {} if timeline.source == "measured" else simulator.inner
    for slot in timeline.slots:
        if slot.lane != "compute":
            continue
        bodies = inner.get(slot.op, ())
        if not bodies:
            yield names[slot.op], slot.us
        op = simulator.graph.ops[slot.op]
        for body, run in zip(op.inner, bodies, strict=False):
            roles = roles_of(body)
            inside = named_roles(roles, moe_parts_of(body, roles, labels))
            for name, us in _by_role(_inside(simulator, body), run, inside, labels):
                yield name, us * max(op.trips, 1)


def _by_source(simulator: Simulator, timeline: Timeline) -> Iterator[tuple[str, float]]:
    """Yield (source of the price, us) of every compute slot, those in loops included."""
    inner = {} if timeline.source == "measured" else simulator.inner
    for slot in timeline.slots:
        bodies = inner.get(slot.op, ())
        if slot.lane == "compute" and not bodies:
            yield str(slot.source), slot.us
        op = simulator.graph.ops[slot.op]
        for body, run in zip(op.inner, bodies, strict=False):
            for name, us in _by_source(_inside(simulator, body), run):
                yield name, us * max(op.trips, 1)


def _inside(simulator: Simulator, body: Graph) -> Simulator:
    return Simulator(body, simulator.costs, simulator.orders)


def _exchanges(
    graph: Graph,
    problem: Problem,
    timeline: Timeline,
    labels: dict[str, Label],
    names: Sequence[str],
) -> Iterator[InspectedExchange]:
    """Describe every exchange, and the compute that neither needs it nor feeds it.

    Those that are issued as one have a row each.
    """
    ops = {op.key: op for inside, _ in graph.walk() for op in inside.ops if op.collective}
    places = {graph.ops[e].key: i for i, e in enumerate(graph.exchanges)}
    able, longest = _could_hide(graph, problem)
    data = by_data(graph, problem)
    start = {slot.op: slot.start_us for slot in timeline.slots}
    hides = _hidden_by(timeline, labels)
    for w in sorted(timeline.windows, key=lambda w: w.start_us):
        label, place = labels[w.key], places.get(w.key)
        could, free = (None, None) if place is None else (able[place], data.get(w.op))
        fillers = () if place is None else tuple(
            _filler(graph, op, problem.us[op], names, start, w, hides) for op in longest[place]
        )  # fmt: skip
        for part in w.members or (w,):
            yield InspectedExchange(
                w.key, w.name, part.kind, str(label.phase), label.direction, label.layer,
                part.bytes, part.us, str(w.source), part.start_us, part.exposed_us,
                could, free, w.times, ops[w.key].source,
                ops[w.key].blocking, ops[w.key].why_blocking, fillers,
            )  # fmt: skip


def _filler(
    graph: Graph,
    op: int,
    us: float,
    names: Sequence[str],
    start: dict[int, float],
    window: Window,
    hides: dict[str, str],
) -> Filler:
    key = graph.ops[op].key
    late = start.get(op, window.start_us) - window.start_us
    return Filler(key, graph.ops[op].name, names[op], us, late, hides.get(key, ""))


def _hidden_by(timeline: Timeline, labels: dict[str, Label]) -> dict[str, str]:
    """Return for every op that runs beside an exchange what that is called."""
    hides: dict[str, str] = {}
    for window in timeline.windows:
        label = labels[window.key]
        for filler in window.fillers:
            hides.setdefault(filler, f"{label} {label.layer}".strip())
    return hides


def _could_hide(graph: Graph, problem: Problem) -> tuple[list[float], list[list[int]]]:
    """Return per exchange the us of compute that may run beside it, and the longest such ops.

    Ops that are tied to the same exchanges are one row; the rows' bits are unpacked to a table, a
    few hundred at a time. Rows come in order of their longest op, so an exchange's longest ops are
    in its first rows.
    """
    count = len(graph.exchanges)
    able, seen = np.zeros(count), np.zeros(count, int)
    longest: list[list[int]] = [[] for _ in range(count)]
    rows = sorted(_rows(graph, problem).items(), key=lambda row: -problem.us[row[1][1][0]])
    size = -(-count // 8)
    for at in range(0, len(rows), _ROWS):
        part = rows[at : at + _ROWS]
        data = b"".join(bits.to_bytes(size, "little") for bits, _ in part)
        table = np.frombuffer(data, np.uint8).reshape(len(part), size)
        free = np.unpackbits(table, axis=1, count=count, bitorder="little")
        able += np.array([us for _, (us, _) in part]) @ free
        found = free.any(axis=0)
        for i in np.flatnonzero(found & (seen < _FILLERS)):
            first = np.flatnonzero(free[:, i])[: _FILLERS - seen[i]]
            seen[i] += len(first)
            longest[i] += [op for row in first for op in part[row][1][1]]
    best = [heapq.nlargest(_FILLERS, ops, problem.us.__getitem__) for ops in longest]
    return [float(us) for us in able], best


def _rows(graph: Graph, problem: Problem) -> dict[int, tuple[float, list[int]]]:
    """Return by the exchanges that they may run beside: us of all compute ops, and the longest."""
    reach = Reach.of(problem, graph.exchanges)
    every = (1 << len(graph.exchanges)) - 1
    groups: dict[int, list[int]] = defaultdict(list)
    for op in range(problem.size):
        if problem.lane[op] is Lane.COMPUTE and problem.us[op] > 0:
            bits = every & ~(reach.before[op] | reach.after[op])
            if bits:
                groups[bits].append(op)
    return {
        bits: (sum(problem.us[op] for op in ops),
               heapq.nlargest(_FILLERS, ops, problem.us.__getitem__))
        for bits, ops in groups.items()
    }  # fmt: skip
