"""A report as the data of its page: columns of small integers, every text once.

A step of 24 layers has thousands of ops, drawn twice. A row of the op table is therefore shared by
all bars that are the same op; begins are written as the gap to the bar before (mostly 0), numbers
as differences, scopes as a tree of their segments. Times are whole nanoseconds.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hlo_passes.facts.exchange_labels import is_backward
from hlo_passes.ir.graph import Op
from hlo_passes.plans import Move, Plan
from hlo_passes.schedule.bound import exposed_bound
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.errors import UnsupportedError
from lancet_jax.report.comparison import Comparison
from lancet_jax.report.data import data_of
from lancet_jax.report.step import Bar, LaidOutStep, Level

SCHEMA = 1

_NUMBERED = re.compile(r"^(.*?)(\d+)$")

_MEMORY_STEPS = 400
"""Memory is drawn to this share of its peak: a smaller change is no point of the curve."""


def encode(report: Comparison) -> dict[str, Any]:
    """Return what the page of a report shows, as plain data.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    steps = steps_of(report)
    table = OpTable(report)
    views = [_view(table, name, timeline, step) for name, timeline, step in steps]
    moves = table.moves(move for plan in report.plans for move in plan.moves)
    return {
        "schema": SCHEMA,
        "report": data_of(report),
        "plans": [_plan(plan) for plan in report.plans],
        "race": _race(report.plans),
        "cut": bool(report.pieces),
        "bound_us": _bound(report, steps[-1][2]),
        "ops": table.columns(),
        "moves": moves,
        "views": views,
    }


def steps_of(report: Comparison) -> list[tuple[str, Timeline, LaidOutStep]]:
    """Return what a report compares: `before` and `after`, or one step if nothing changes.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    if report.stock is None or report.final is None:
        raise UnsupportedError("report", "it has timelines but no graph",
                               "make it with Lowered.report() or Compiled.report()")  # fmt: skip
    final = "after", report.after, LaidOutStep.of(report.final, report.after.source)
    if report.before.slots == report.after.slots:
        return [("as it is", *final[1:])]
    return [("before", report.before, LaidOutStep.of(report.stock, report.before.source)), final]


def stem_of(key: str) -> str:
    """Return an op's key without its ordinal."""
    return key.rpartition("#")[0]


class Texts:
    """Numbers texts in the order in which they are first seen."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Return the number of a text."""
        return self.index.setdefault(text, len(self.index))


class Scopes:
    """Numbers scopes as nodes of a tree: each has a parent (-1 for none) and a segment."""

    def __init__(self) -> None:
        self.segments = Texts()
        self.index: dict[tuple[int, int], int] = {}

    def __call__(self, scope: str) -> int:
        """Return the number of a scope; -1 for no scope."""
        node = -1
        for segment in filter(None, scope.split("/")):
            step = node, self.segments(segment)
            node = self.index.setdefault(step, len(self.index))
        return node


class OpTable:
    """One row per op that takes time, shared by all that is the same in `before` and `after`."""

    def __init__(self, report: Comparison) -> None:
        self.pieces = report.pieces
        self.stems, self.kinds, self.roles = Texts(), Texts(), Texts()
        self.costs, self.files, self.reasons = Texts(), Texts(), Texts()
        self.scopes = Scopes()
        self.rows: dict[tuple[int, ...], int] = {}
        self.by_key: dict[str, list[int]] = {}

    def row(self, level: Level, op: Op, bar: Bar) -> int:
        """Return the row of the op that `bar` runs.

        Args:
            level: the computation that the op is in.
            op: the op.
            bar: one execution of it.
        """
        match = _NUMBERED.match(op.name)
        stem, number = (match[1], int(match[2])) if match else (op.name, -1)
        sent = op.collective.bytes if op.collective else 0
        row = (
            self.stems(stem), number, self.kinds(op.kind), self.scopes(op.scope),
            self.files(op.source), self.roles(str(level.roles[op.id])),
            self.costs(str(bar.source)), round(bar.us * 1e3), sent or int(op.bytes),
            int(op.flops), int(stem_of(op.key) in self.pieces), bar.level and level.trips,
        )  # fmt: skip
        if row not in self.rows:
            self.rows[row] = len(self.rows)
            self.by_key.setdefault(op.key, []).append(self.rows[row])
        return self.rows[row]

    def columns(self) -> dict[str, Any]:
        """Return the rows, column by column, and the texts that they name."""
        names = ("stem", "number", "kind", "scope", "file", "role", "cost", "ns", "bytes", "flops",
                 "piece", "trips")  # fmt: skip
        columns = {name: [row[i] for row in self.rows] for i, name in enumerate(names)}
        columns["number"] = differences(columns["number"])
        texts = {"stems": self.stems, "kinds": self.kinds, "files": self.files,
                 "roles": self.roles, "costs": self.costs, "reasons": self.reasons,
                 "segments": self.scopes.segments}  # fmt: skip
        nodes = list(self.scopes.index)
        return {
            **columns,
            **{name: list(found.index) for name, found in texts.items()},
            "scopes": {"parent": [p for p, _ in nodes], "segment": [s for _, s in nodes]},
        }

    def moves(self, moves: Iterable[Move]) -> list[tuple[int, int, int]]:
        """Return (row, row of the exchange that it moved beside or -1, reason) of what moved."""
        return [
            (row, next(iter(self.by_key.get(move.beside, ())), -1), self.reasons(move.reason))
            for move in moves
            for row in self.by_key.get(move.op, ())
        ]


def _view(table: OpTable, name: str, timeline: Timeline, step: LaidOutStep) -> dict[str, Any]:
    """Describe one of the steps that the page compares."""
    numbers = {(at, op): i for i, (at, op) in enumerate(_exchanges(step))}
    groups: dict[tuple[int, int], int] = {}
    return {
        "name": name,
        "source": timeline.source,
        "ns": round(timeline.makespan_us * 1e3),
        "compute": _lane(table, step, step.compute)
        | {"group": [_group(step, bar, groups) for bar in step.compute]},
        "exchange": _lane(table, step, step.exchange)
        | {"window": [numbers[bar.level, bar.op] for bar in step.exchange]},
        "groups": [
            runs(numbers[at, op] for op in _ones(step.levels[at], bits) if (at, op) in numbers)
            for at, bits in groups
        ],
        "bare": [v for a, b in step.bare for v in (round(a * 1e3), round((b - a) * 1e3))],
        "loops": [(table.row(step.levels[b.level], step.op(b), b), round(b.start_us * 1e3),
                   round(b.us * 1e3), step.op(b).trips) for b in step.loops],
        "folded": [step.op(bar).key for bar in step.folded],
        "memory": _memory(step),
        "windows": [_window(step, at, op) for at, op in numbers],
    }  # fmt: skip


def _lane(table: OpTable, step: LaidOutStep, bars: Sequence[Bar]) -> dict[str, list[int]]:
    """Return which op every bar is, and the gap in ns between it and the bar before."""
    rows = [table.row(step.levels[bar.level], step.op(bar), bar) for bar in bars]
    gaps, end = [], 0
    for bar in bars:
        start = round(bar.start_us * 1e3)
        gaps.append(start - end)
        end = start + round(bar.us * 1e3)
    return {"op": differences(rows), "gap": gaps}


def _exchanges(step: LaidOutStep) -> list[tuple[int, int]]:
    """Return (level, op) of every exchange that takes time, by the first time that it is drawn."""
    drawn = dict.fromkeys((bar.level, bar.op) for bar in step.exchange)
    return list(drawn)


def _group(step: LaidOutStep, bar: Bar, groups: dict[tuple[int, int], int]) -> int:
    """Number the set of exchanges that the op of a bar may run beside."""
    level = step.levels[bar.level]
    if level.graph.ops[bar.op].inner:
        return groups.setdefault((bar.level, 0), len(groups))
    return groups.setdefault((bar.level, level.windows.beside(bar.op)), len(groups))


def _ones(level: Level, bits: int) -> list[int]:
    """Return the exchanges whose bits are set."""
    return [op for i, op in enumerate(level.windows.exchanges) if bits >> i & 1]


def _window(step: LaidOutStep, at: int, exchange: int) -> dict[str, Any]:
    """Describe one exchange: what it is for and what no order can hide of it."""
    level = step.levels[at]
    window = next(w for w in level.timeline.windows if w.op == exchange)
    return {
        "key": window.key,
        "phase": str(level.phases.get(exchange, "other")),
        "backward": is_backward(level.graph, level.roles, exchange),
        "tokens": window.is_all_to_all,
        "exposed_ns": round(window.exposed_us * 1e3),
        "bound_ns": round(level.bounds.get(exchange, 0.0) * 1e3),
        "times": level.trips,
    }


def _memory(step: LaidOutStep) -> dict[str, Any]:
    """Return the memory curve without changes too small to be seen; extremes stay."""
    peak = max((size for _, size in step.memory), default=0)
    least = peak / _MEMORY_STEPS
    points: list[tuple[int, int]] = []
    for us, size in step.memory:
        ns = round(us * 1e3)
        if points and points[-1][0] == ns:
            points[-1] = ns, max(points[-1][1], size)
        elif not points or abs(size - points[-1][1]) > least:
            points.append((ns, size))
    unit = max(int(least / 8), 1)
    return {
        "peak": peak,
        "unit": unit,
        "ns": differences([ns for ns, _ in points]),
        "size": differences([round(size / unit) for _, size in points]),
    }


def differences(numbers: Sequence[int]) -> list[int]:
    """Return every number as its difference from the one before; the first from 0."""
    return [b - a for a, b in zip([0, *numbers], numbers, strict=False)]


def _bound(report: Comparison, step: LaidOutStep) -> float:
    """Return the us of communication that the step as it is drawn last exposes in any order."""
    plan = report.plan
    if plan is not None and plan.bound_us and not plan.splits:
        return plan.bound_us
    levels = {level.graph.name: level for level in step.levels}.values()
    bounds = (exposed_bound(level.simulator.problem) * level.trips for level in levels)
    return round(sum(bounds), 3)


def runs(numbers: Iterable[int]) -> list[int]:
    """Return a set of numbers as lengths: so many are not in it, so many are, so many are not."""
    lengths, inside = [0], False
    wanted = set(numbers)
    for number in range(max(wanted, default=-1) + 1):
        if (number in wanted) is not inside:
            lengths.append(0)
            inside = not inside
        lengths[-1] += 1
    return lengths


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "hash": plan.hash,
        "passes": list(plan.passes),
        "strategy": plan.strategy,
        "moved": len(plan.moves),
        "changes": plan.changes,
        "splits": [
            {"block": s.block, "ops": len(s.only) or s.last - s.first + 1, "k": s.k,
             "along": s.along} for s in plan.splits
        ],
        "refusals": [{"op": r.op, "reason": r.reason, "source": r.source} for r in plan.refusals],
    }  # fmt: skip


def _race(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Return what ran against each other in the first plan with a race."""
    plan = next((plan for plan in plans if plan.race), None)
    if plan is None:
        return []
    whole = {"not cut": plan.before} if plan.before and "off" not in plan.race else {}
    winner = plan.strategy.split()[0] if plan.splits or not whole else "not cut"
    return [
        {"name": name, "step_us": result.step_us, "exposed_us": result.exposed_us,
         "peak_bytes": result.peak_bytes, "won": name == winner}
        for name, result in (whole | plan.race).items()
    ]  # fmt: skip
