"""A report as plain data: times in us, sizes in bytes."""

from typing import Any

from hlo_passes.schedule.timeline import Timeline
from lancet_jax.report.comparison import Comparison, WindowChange
from lancet_jax.report.headline import headline

_FILLERS = 8
"""How many of what runs beside an exchange are named."""


def data_of(report: Comparison) -> dict[str, Any]:
    """Return a report as what JSON can hold."""
    plan, drift = report.plan, report.drift
    return {
        "headline": headline(report),
        "module": report.name,
        "target": report.after.target,
        "before": _totals(report.before),
        "after": _totals(report.after),
        "bound_exposed_us": plan.bound_us if plan else None,
        "strategy": plan.strategy if plan else None,
        "plan": plan.hash if plan else None,
        "windows": [_window(w) for w in report.windows],
        "roles_us": report.roles,
        "cost_sources": report.sources,
        "drift": None if drift is None else {
            "common": drift.common, "moved": drift.moved, "missing": drift.missing,
        },
        "refusals": [
            {"op": r.op, "reason": r.reason, "source": r.source}
            for r in (plan.refusals if plan else ())
        ],
        "notes": list(report.notes),
        "left": report.left,
        "planner_seconds": report.seconds,
    }  # fmt: skip


def _window(w: WindowChange) -> dict[str, Any]:
    return {
        "op": w.key, "phase": str(w.label), "backward": w.backward, "bytes": w.bytes,
        "us": w.us, "source": w.source, "exposed_before_us": w.before_us,
        "exposed_after_us": w.after_us, "times": w.times, "fillers": list(w.fillers[:_FILLERS]),
    }  # fmt: skip


def _totals(timeline: Timeline) -> dict[str, Any]:
    return {
        "source": timeline.source,
        "step_us": timeline.makespan_us,
        "compute_us": timeline.compute_us,
        "exchange_us": timeline.exchange_us,
        "exposed_us": timeline.exposed_us,
        "exposed_all_to_all_us": timeline.exposed_all_to_all_us,
        "peak_bytes": timeline.peak_bytes,
    }
