"""A report as a trace in the Trace Event Format, for ui.perfetto.dev and chrome://tracing.

Each step is a process with two threads, compute and exchange, and a counter of temporary memory.
An arrow leads from an exchange to the first op that needs what it brings. The format is JSON, so
nothing but the standard library writes it, and people can read it.
"""

import json
from collections.abc import Iterator
from typing import Any

from hlo_passes.schedule.timeline import Timeline
from lancet_jax.report.comparison import Comparison
from lancet_jax.report.encode import steps_of
from lancet_jax.report.step import Bar, LaidOutStep

_COMPUTE, _EXCHANGE = 1, 2


def trace(report: Comparison) -> str:
    """Return a report as a trace; one us of the trace is one us of the step.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    events = [
        event
        for process, (name, timeline, step) in enumerate(steps_of(report), 1)
        for event in _events(process, f"{name} ({timeline.source})", timeline, step)
    ]
    about = {"module": report.name, "target": report.after.target,
             "plan": report.plan.hash if report.plan else ""}  # fmt: skip
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": about})


def _events(
    process: int, name: str, timeline: Timeline, step: LaidOutStep
) -> Iterator[dict[str, Any]]:
    """Yield the events of one step."""
    yield _about("process_name", process, name=name)
    yield _about("process_sort_index", process, sort_index=process)
    for thread, lane in ((_COMPUTE, "compute"), (_EXCHANGE, "exchange")):
        yield _about("thread_name", process, thread, name=lane)
        yield _about("thread_sort_index", process, thread, sort_index=thread)
    for bar in step.compute:
        yield _slice(process, _COMPUTE, step, bar)
    exposed = {w.key: w.exposed_us for level in step.levels for w in level.timeline.windows}
    for bar in step.exchange:
        yield _slice(process, _EXCHANGE, step, bar, exposed_us=exposed[step.op(bar).key])
    yield from _arrows(process, step)
    for us, size in _changes(step):
        yield {"ph": "C", "name": "temporary memory", "pid": process, "ts": us,
               "args": {"bytes": size}}  # fmt: skip


def _about(what: str, process: int, thread: int = 0, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "ts": 0, "args": args}


def _slice(process: int, thread: int, step: LaidOutStep, bar: Bar, **more: Any) -> dict[str, Any]:
    op, level = step.op(bar), step.levels[bar.level]
    args = {"key": op.key, "kind": op.kind, "role": str(level.roles[bar.op]),
            "cost": str(bar.source), "line": op.source,
            "bytes": op.collective.bytes if op.collective else op.bytes, "flops": op.flops,
            **more}  # fmt: skip
    return {"ph": "X", "name": op.name, "cat": op.kind, "pid": process, "tid": thread,
            "ts": _us(bar.start_us), "dur": round(_us(bar.end_us) - _us(bar.start_us), 3),
            "args": args}  # fmt: skip


def _arrows(process: int, step: LaidOutStep) -> Iterator[dict[str, Any]]:
    """Yield an arrow from every exchange to the first op that waits for it, in the same trip."""
    begins: dict[tuple[int, int], list[Bar]] = {}
    for bar in step.compute:
        begins.setdefault((bar.level, bar.op), []).append(bar)
    for number, bar in enumerate(step.exchange):
        waiting = [
            found
            for op in _users(step, bar)
            for found in begins.get((bar.level, op), ())
            if found.start_us >= bar.end_us - 1e-6
        ]
        if not waiting:
            continue
        first = min(waiting, key=lambda found: found.start_us)
        arrow = {"name": "waits for", "cat": "flow", "id": process * 1_000_000 + number,
                 "pid": process}  # fmt: skip
        yield arrow | {"ph": "s", "tid": _EXCHANGE, "ts": _us(bar.start_us)}
        yield arrow | {"ph": "f", "bp": "e", "tid": _COMPUTE, "ts": _us(first.start_us)}


def _users(step: LaidOutStep, bar: Bar) -> set[int]:
    """Return the ops that read what an exchange brings, looking through ops of no length."""
    graph, us = step.levels[bar.level].graph, step.levels[bar.level].simulator.problem.us
    found, seen, queue = set(), {bar.op}, [bar.op]
    while queue:
        for op in graph.succs[queue.pop()]:
            if us[op] > 0:
                found.add(op)
            elif op not in seen:
                seen.add(op)
                queue.append(op)
    return found


def _changes(step: LaidOutStep) -> Iterator[tuple[float, int]]:
    """Yield the memory curve: of several values at one time the largest."""
    at, size = 0.0, 0
    for us, now in step.memory:
        if us > at:
            yield _us(at), size
            at, size = us, now
        size = max(size, now)
    yield _us(at), size


def _us(us: float) -> float:
    """Round to whole nanoseconds: that is what trace viewers keep."""
    return round(us, 3)
