"""Steps by the clock: reads what `jax.profiler.trace` wrote into the timeline that plans use.

    with jax.profiler.trace("profile"):
        jax.block_until_ready(step(state, batch))
    $ lancet-jax inspect profile

A capture holds the module that ran, as an HloProto, and an event for every op of every run, on
every device. Events name their op (`hlo_op`), their device and, on CPU, their run.
"""

import warnings
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

from hlo_passes.errors import InputError
from hlo_passes.files import read_file
from hlo_passes.ir.dumps import parse
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.ir.wire import fields
from hlo_passes.plan.timeline import Slot, Timeline, Window

_SUFFIX = ".xplane.pb"
_REMEDY = "capture one or more whole steps with jax.profiler.trace"
_PLANES, _NAME, _EVENT_METADATA, _STATS, _BYTES = 1, 2, 4, 5, 6


class Event(NamedTuple):
    """One op on one device, times in us."""

    op: str
    start_us: float
    us: float


@dataclass(frozen=True)
class Capture:
    """One run of one module on one device, out of a capture.

    Attributes:
        module: what ran.
        device: which device, of how many.
        events: of that run, in order of time.
        notes: what was chosen, in words.
    """

    module: ScheduledModule
    device: str
    events: tuple[Event, ...]
    notes: tuple[str, ...]

    def timeline(self, graph: Graph) -> Timeline:
        """Return the run as a timeline of `graph`, the module's own.

        Slots and windows are as the clock has them; an exchange is exposed while no compute op of
        the same device runs. Memory is not in a capture: `peak_bytes` is 0.
        """
        return _timeline(graph, self.events, self.device)


def find_capture(path: Path) -> Path | None:
    """Return the capture that a path names: itself, or the newest in a profile folder."""
    if path.name.endswith(_SUFFIX):
        return path
    if not path.is_dir():
        return None
    found = [*path.glob(f"*{_SUFFIX}"), *path.glob(f"plugins/profile/*/*{_SUFFIX}")]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def read_capture(path: Path) -> Capture:
    """Read a capture: the module that took most time, and of its runs the median one.

    Raises:
        InputError: if the file is no capture, or holds no run of a module.
    """
    data = read_file(path, "name an .xplane.pb file")
    try:
        protos = dict(_protos(data))
        runs = _runs(data)
    except Exception as error:
        raise InputError(str(path), f"no profiler capture: {str(error)[:120]}", _REMEDY) from None
    runs = {key: events for key, events in runs.items() if key[0] in protos}
    if not runs:
        what = "no op of XLA's ran in this capture" if protos else "it holds no module"
        raise InputError(str(path), what, _REMEDY)
    busy: Counter[str] = Counter()
    for (module, _, _), events in runs.items():
        busy[module] += int(sum(e.us for e in events))
    name = max(busy, key=lambda m: busy[m])
    devices = sorted({device for module, device, _ in runs if module == name})
    own = {run: e for (m, d, run), e in runs.items() if (m, d) == (name, devices[0])}
    length = {run: _end(e) - e[0].start_us for run, e in own.items()}
    middle = median_low(length.values())
    chosen = next(run for run, us in length.items() if us == middle)
    module = parse(protos[name], str(path))
    assert isinstance(module, ScheduledModule)
    where = f"{devices[0]} of {len(devices)}"
    notes = [f"{path.name}: {name} on {where}, the median of {len(own)} runs"]
    if len(busy) > 1:
        notes.append(f"{len(busy) - 1} other modules in the capture took less time")
    return Capture(module, devices[0], tuple(own[chosen]), tuple(notes))


def _end(events: Sequence[Event]) -> float:
    return max(e.start_us + e.us for e in events)


def _protos(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (module and program id, HloProto) of every module in a capture's metadata plane.

    Several modules of a process may have one name; they are told apart as in `jit_step(18)`.
    The profiler's own reader does not hand out metadata of events, so the wire format is read.
    """
    for number, _, plane, _, _ in fields(data):
        if number != _PLANES or not isinstance(plane, bytes):
            continue
        for inner, _, entry, _, _ in fields(plane):
            if inner == _EVENT_METADATA and isinstance(entry, bytes):
                yield from _proto_in(entry)


def _proto_in(entry: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the module in one map entry of event metadata: a stat whose value is bytes."""
    metadata = next((v for n, _, v, _, _ in fields(entry) if n == 2 and isinstance(v, bytes)), b"")
    name = ""
    for number, _, value, _, _ in fields(metadata):
        if number == _NAME and isinstance(value, bytes):
            name = value.decode("utf-8", "replace")
        elif number == _STATS and isinstance(value, bytes):
            for stat, _, payload, _, _ in fields(value):
                if stat == _BYTES and isinstance(payload, bytes) and name:
                    yield name, payload


def _runs(data: bytes) -> dict[tuple[str, str, str], list[Event]]:
    """Return the events of every (module, device, run), in order of time."""
    from jax.profiler import ProfileData

    found: dict[tuple[str, str, str], list[Event]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for plane in ProfileData.from_serialized_xspace(data).planes:
            for line in plane.lines:
                for event in line.events:
                    stats = dict(event.stats)
                    if "hlo_op" in stats and "hlo_module" in stats:
                        found[_place(plane.name, stats)].append(
                            Event(str(stats["hlo_op"]), event.start_ns / 1e3,
                                  event.duration_ns / 1e3)
                        )  # fmt: skip
    runs: dict[tuple[str, str, str], list[Event]] = {}
    for (module, device, run), events in found.items():
        events.sort(key=lambda e: (e.start_us, -e.us))
        parts = [events] if run else _cut_runs(events)
        for i, part in enumerate(parts):
            runs[module, device, run or str(i)] = part
    return runs


def _place(plane: str, stats: dict[str, Any]) -> tuple[str, str, str]:
    """Return (module, device, run) of an event; no run where the device does not say it."""
    ordinal = stats.get("device_ordinal")
    device = plane if ordinal is None else f"device {ordinal}"
    module = f"{stats['hlo_module']}({stats.get('program_id', '')})"
    return module, device, str(stats.get("run_id", ""))


def _cut_runs(events: list[Event]) -> list[list[Event]]:
    """Cut a device's events into runs: one begins whenever the first op comes again."""
    starts = [i for i, e in enumerate(events) if e.op == events[0].op]
    return [events[a:b] for a, b in zip(starts, [*starts[1:], len(events)], strict=True) if b > a]


def _timeline(graph: Graph, events: Sequence[Event], device: str) -> Timeline:
    known = {op.name.removeprefix("%"): (inside, op) for inside, _ in graph.walk()
             for op in inside.ops}  # fmt: skip
    zero = events[0].start_us
    placed = [(e.start_us - zero, e, *known[e.op]) for e in events if e.op in known]
    busy = _union(
        (start, start + e.us) for start, e, _, op in placed if op.collective is None
        and not op.inner and not op.is_done
    )  # fmt: skip
    slots = tuple(
        Slot(op.id, op.key, op.name, "exchange" if op.collective else "compute", start, e.us,
             "measured")
        for start, e, inside, op in placed if inside is graph and e.us > 0
    )  # fmt: skip
    return Timeline(
        source="measured",
        target=device,
        slots=slots,
        windows=tuple(_windows(placed, busy)),
        makespan_us=_end(events) - zero,
        compute_us=sum(b - a for a, b in busy),
        peak_bytes=0,
    )


def _windows(
    placed: Sequence[tuple[float, Event, Graph, Op]], busy: Sequence[tuple[float, float]]
) -> Iterator[Window]:
    """Yield a window per exchange; the trips of a loop are averaged."""
    events: dict[str, list[tuple[float, float]]] = defaultdict(list)
    ops: dict[str, Op] = {}
    work = [(s, s + e.us, op.key) for s, e, _, op in placed
            if op.collective is None and not op.inner and not op.is_done]  # fmt: skip
    for start, e, _, op in placed:
        if op.collective is not None:
            ops[op.key] = op
            events[op.key].append((start, start + e.us))
    for key, spans in events.items():
        op, times = ops[key], len(spans)
        assert op.collective is not None
        us = sum(b - a for a, b in spans) / times
        hidden = sum(_overlap(busy, a, b) for a, b in spans) / times
        yield Window(
            op.id, key, op.name, op.collective.kind, op.collective.bytes, spans[0][0], us,
            max(0.0, us - hidden), "measured", times, _beside(work, spans),
        )  # fmt: skip


def _beside(
    work: Sequence[tuple[float, float, str]], spans: Sequence[tuple[float, float]]
) -> tuple[str, ...]:
    """Return the ops that run during any of the spans, longest overlap first."""
    found: Counter[str] = Counter()
    for begin, end in spans:
        for a, b, key in work:
            if a < end and b > begin:
                found[key] += int(1e3 * (min(b, end) - max(a, begin)))
    return tuple(key for key, ns in found.most_common() if ns > 0)


def _union(spans: Iterator[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge intervals."""
    merged: list[tuple[float, float]] = []
    for a, b in sorted(spans):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], b))
        else:
            merged.append((a, b))
    return merged


def _overlap(busy: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """Return how much of an interval merged ones cover."""
    i = max(bisect_right(busy, (begin, float("inf"))) - 1, 0)
    covered = 0.0
    while i < len(busy) and busy[i][0] < end:
        covered += max(0.0, min(busy[i][1], end) - max(busy[i][0], begin))
        i += 1
    return covered
