"""What a profiler capture holds: the modules that ran, and every run's events.

Events name their op (`hlo_op`) and module. On CPU they name their run as well. On GPU they stand in
scopes instead: one per launch of an op, inside one per run of a module, and a plane of the capture
says which scope is in which.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hlo_passes.ir.hlo.wire import fields

_PLANES, _NAME, _EVENT_METADATA, _STATS, _BYTES = 1, 2, 4, 5, 6
_SCOPES = b"/host:__ScopeRangeCallStack__"
_PLANE_STATS, _STAT_ID, _STAT_VALUES = 6, 1, (3, 4)


class Event(NamedTuple):
    """One op on one device, times in us.

    Attributes:
        op: its name.
        start_us, us: when, and for how long.
        launch: events of one launch of the op share it, its kernels and copies; 0 if not known.
    """

    op: str
    start_us: float
    us: float
    launch: int = 0

    @property
    def is_command_buffer(self) -> bool:
        """Whether XLA launched several ops at once, as a CUDA graph: which they are is not told."""
        return self.op.startswith("command_buffer")


type RunKey = tuple[str, str, str]
"""Module, device, run."""


def protos_in(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (module and program id, HloProto) of every module in a capture's metadata plane.

    Several modules of a process may have one name; they are told apart as in `jit_step(18)`.
    The profiler's own reader does not hand out metadata of events, so the wire format is read.
    """
    for plane in _messages(data, _PLANES):
        for entry in _messages(plane, _EVENT_METADATA):
            yield from _proto_in(entry)


def _messages(data: bytes, field: int) -> Iterator[bytes]:
    """Yield what a message holds in one of its fields: messages, texts."""
    for number, _, value, _, _ in fields(data):
        if number == field and isinstance(value, bytes):
            yield value


def _proto_in(entry: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the module in one map entry of event metadata: a stat whose value is bytes."""
    metadata = next(_messages(entry, 2), b"")
    name = ""
    for number, _, value, _, _ in fields(metadata):
        if number == _NAME and isinstance(value, bytes):
            name = value.decode("utf-8", "replace")
        elif number == _STATS and isinstance(value, bytes) and name:
            yield from ((name, payload) for payload in _messages(value, _BYTES))


def runs_in(data: bytes) -> dict[RunKey, list[Event]]:
    """Return the events of every (module, device, run), in order of time."""
    from jax.profiler import ProfileData

    found: dict[RunKey, list[Event]] = defaultdict(list)
    parents = _parents(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for plane in ProfileData.from_serialized_xspace(data).planes:
            for line in plane.lines:
                for event in line.events:
                    stats = dict(event.stats)
                    if "hlo_op" in stats and "hlo_module" in stats:
                        launch = int(stats.get("scope_range_id", 0))
                        found[_place(plane.name, stats, parents)].append(
                            Event(str(stats["hlo_op"]), event.start_ns / 1e3,
                                  event.duration_ns / 1e3, launch)
                        )  # fmt: skip
    runs: dict[RunKey, list[Event]] = {}
    for (module, device, run), events in found.items():
        events.sort(key=lambda e: (e.start_us, -e.us))
        parts = [events] if run else _cut_runs(events)
        for i, part in enumerate(parts):
            runs[module, device, run or str(i)] = part
    return runs


def _parents(data: bytes) -> dict[int, int]:
    """Return the scope that each scope is in; nothing where the profiler does not tell."""
    found: dict[int, int] = {}
    for plane in _messages(data, _PLANES):
        if _SCOPES not in plane[:64]:
            continue
        for stat in _messages(plane, _PLANE_STATS):
            parts = {n: v for n, _, v, _, _ in fields(stat) if isinstance(v, int)}
            values = [parts[n] for n in _STAT_VALUES if n in parts]
            if values and _STAT_ID in parts:
                found[parts[_STAT_ID]] = values[0]
    return found


def _outermost(scope: int, parents: Mapping[int, int]) -> str:
    """Return the scope around all those that a scope is in: a run of a module."""
    for _ in range(len(parents)):
        if scope not in parents:
            break
        scope = parents[scope]
    return str(scope)


def _place(plane: str, stats: dict[str, Any], parents: Mapping[int, int]) -> RunKey:
    """Return (module, device, run) of an event; no run where the device does not say it."""
    ordinal = stats.get("device_ordinal")
    device = plane if ordinal is None else f"device {ordinal}"
    module = f"{stats['hlo_module']}({stats.get('program_id', '')})"
    run = str(stats.get("run_id", ""))
    if not run and stats.get("scope_range_id", 0) in parents:
        run = _outermost(int(stats["scope_range_id"]), parents)
    return module, device, run


def _cut_runs(events: list[Event]) -> list[list[Event]]:
    """Cut a device's events into runs: one begins whenever the first op comes again."""
    starts = [i for i, e in enumerate(events) if e.op == events[0].op]
    return [events[a:b] for a, b in zip(starts, [*starts[1:], len(events)], strict=True) if b > a]
