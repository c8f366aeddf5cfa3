"""Steps by the clock: reads what `jax.profiler.trace` wrote into the timeline that plans use.

    with jax.profiler.trace("profile"):
        jax.block_until_ready(step(state, batch))
    $ lancet-jax inspect profile

A capture holds the module that ran, as an HloProto, and an event for every op of every run, on
every device. On GPU, XLA launches ops in groups, as CUDA graphs, and the profiler does not tell
which op in a group a kernel belongs to: such time counts as compute, of ops without a name. With
`XLA_FLAGS=--xla_gpu_enable_command_buffer=` every op is launched, and named, by itself.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from hlo_passes.errors import InputError
from hlo_passes.files import read_file
from hlo_passes.ir.files import parse
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.schedule.timeline import Slot, Timeline, Window
from lancet_jax.profile.events import Event, RunKey, protos_in, runs_in

_SUFFIX = ".xplane.pb"
_REMEDY = "capture one or more whole steps with jax.profiler.trace"

type _Placed = tuple[float, Event, Graph, Op]
"""Start from the run's begin, in us; the event; its op, and the graph that it is in."""


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
        protos = dict(protos_in(data))
        runs = runs_in(data)
    except Exception as error:
        raise InputError(str(path), f"no profiler capture: {str(error)[:120]}", _REMEDY) from None
    runs = {key: events for key, events in runs.items() if key[0] in protos}
    if not runs:
        what = "no op of XLA's ran in this capture" if protos else "it holds no module"
        raise InputError(str(path), what, _REMEDY)
    busy = _busy_us(runs)
    name = max(busy, key=lambda m: busy[m])
    devices = sorted({device for module, device, _ in runs if module == name})
    own = [events for key, events in runs.items() if key[:2] == (name, devices[0])]
    module = parse(protos[name], str(path))
    assert isinstance(module, ScheduledModule)
    where = f"{devices[0]} of {len(devices)}"
    notes = [f"{path.name}: {name} on {where}, the median of {len(own)} runs"]
    if len(busy) > 1:
        notes.append(f"{len(busy) - 1} other modules in the capture took less time")
    events = _median_run(own)
    return Capture(module, devices[0], tuple(events), (*notes, *_unnamed(events)))


def _busy_us(runs: Mapping[RunKey, Sequence[Event]]) -> Counter[str]:
    """Return the us of all events of every module."""
    busy: Counter[str] = Counter()
    for (module, _, _), events in runs.items():
        busy[module] += int(sum(e.us for e in events))
    return busy


def _median_run(runs: Sequence[Sequence[Event]]) -> Sequence[Event]:
    """Return the first run of median length."""
    lengths = [_end(events) - events[0].start_us for events in runs]
    return runs[lengths.index(median_low(lengths))]


def _end(events: Sequence[Event]) -> float:
    return max(e.start_us + e.us for e in events)


def _unnamed(events: Sequence[Event]) -> Iterator[str]:
    """Say how much of a run's time has no op's name, if any."""
    grouped = sum(e.us for e in events if e.is_command_buffer)
    if grouped:
        share = grouped / sum(e.us for e in events)
        yield (
            f"{share:.0%} of the kernels' time is in CUDA graphs, whose ops the profiler does not "
            "name: it counts as compute; XLA_FLAGS=--xla_gpu_enable_command_buffer= names them"
        )


def _timeline(graph: Graph, events: Sequence[Event], device: str) -> Timeline:
    known = {op.name.removeprefix("%"): (inside, op) for inside, _ in graph.walk()
             for op in inside.ops}  # fmt: skip
    zero = events[0].start_us
    placed = _whole([(e.start_us - zero, e, *known[e.op]) for e in events if e.op in known])
    unnamed = [(e.start_us - zero, e.us) for e in events if e.is_command_buffer]
    work = [(start, e.us) for start, e, _, op in placed if _is_compute(op)]
    busy = _union([(start, start + us) for start, us in work + unnamed])
    return Timeline(
        source="measured",
        target=device,
        slots=tuple(_slots(graph, placed)),
        windows=tuple(_windows(placed, busy)),
        makespan_us=_end(events) - zero,
        compute_us=sum(b - a for a, b in busy),
        peak_bytes=0,
    )


def _slots(graph: Graph, placed: Sequence[_Placed]) -> Iterator[Slot]:
    """Yield what a graph's own ops took, without those inside its loops."""
    for start, e, inside, op in placed:
        if inside is graph and e.us > 0:
            kind = "exchange" if op.collective else "compute"
            yield Slot(op.id, op.key, op.name, kind, start, e.us, "measured")


def _is_compute(op: Op) -> bool:
    """Whether an op is no exchange, and nothing that only waits for one or runs other ops."""
    return op.collective is None and not op.inner and not op.is_done


def _whole(placed: Sequence[_Placed]) -> list[_Placed]:
    """Join the kernels and copies of one launch of an exchange."""
    joined: dict[tuple[str, int], _Placed] = {}
    found: list[_Placed] = []
    for start, e, inside, op in placed:
        if op.collective is None or not e.launch:
            found.append((start, e, inside, op))
            continue
        first, begun, *_ = joined.get((e.op, e.launch), (start, e, inside, op))
        us = max(first + begun.us, start + e.us) - first
        joined[e.op, e.launch] = first, begun._replace(us=us), inside, op
    return sorted([*found, *joined.values()], key=lambda p: (p[0], -p[1].us))


def _windows(placed: Sequence[_Placed], busy: Sequence[tuple[float, float]]) -> Iterator[Window]:
    """Yield a window per exchange; the trips of a loop are averaged."""
    events: dict[str, list[tuple[float, float]]] = defaultdict(list)
    ops: dict[str, Op] = {}
    work = [(start, start + e.us, op.key) for start, e, _, op in placed if _is_compute(op)]
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


def _union(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
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
