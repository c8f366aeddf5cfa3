"""A report in one line: what runs, how much shorter it is, what was left and why."""

from collections.abc import Iterator

from hlo_passes.plans import Plan, Split
from hlo_passes.schedule.reasons import LEAST
from lancet_jax.report.comparison import Comparison
from lancet_jax.report.reasons import reasons_of

_MOST = 0.95
"""A reason for this share of the exposed time is the reason for all of it."""


def headline(report: Comparison) -> str:
    """Return the line."""
    line = f"runs: {_program(report)}, {_length(report)}; {_exposed(report)}"
    why = report.left or _faster(report) or _nothing(report)
    return " ".join(f"{line}; {why}".split()) if why else line


def _program(report: Comparison) -> str:
    """Say what runs: cut, re-ordered, or as it was."""
    plans = report.plans
    cut = next((plan for plan in plans if plan.splits), None)
    if cut is not None:
        splits = [split for plan in plans for split in plan.splits]
        return f"{' and '.join(_cuts(splits))} ({_name(cut)})"
    if any(plan.orders or plan.pins for plan in plans):
        return f"re-ordered ({plans[-1].strategy})"
    if any(plan.streams for plan in plans):
        return "exchanges inside nodes beside those between them"
    return "as it was"


def _cuts(splits: list[Split]) -> Iterator[str]:
    """Say into how many parts a step is cut, and how many trips of loops run as one."""
    parts = sorted({split.k for split in splits if split.along != "trips"})
    trips = sorted({split.k for split in splits if split.along == "trips"})
    if parts:
        yield f"cut into {' and '.join(map(str, parts))} parts"
    if trips:
        yield f"loops run {' and '.join(map(str, trips))} trips at a time"


def _name(plan: Plan) -> str:
    """Return the way of cutting that won, or the one pass that cut."""
    won = plan.strategy.partition(" ")[0]
    return plan.passes[0].partition("{")[0] if "=" in won and plan.passes else won


def _length(report: Comparison) -> str:
    """Say how long the step takes, and how much shorter that is."""
    old, new = report.before.makespan_us, report.after.makespan_us
    if report.before.slots == report.after.slots or not old:
        return f"{new:,.0f} us"
    share = abs(new - old) / old
    if share < 0.0005:
        return f"{new:,.0f} us, as long as before"
    word = "shorter" if new < old else "longer"
    return f"{new:,.0f} us, {share:.{1 if share < 0.1 else 0}%} {word} than {old:,.0f}"


def _exposed(report: Comparison) -> str:
    """Say how much of the exchanges stays exposed, and why most of that does."""
    after = report.after
    if not after.windows:
        return "it has no exchange to hide"
    if after.exposed_us <= LEAST * after.exchange_us:
        return "every exchange is hidden"
    text = f"{after.exposed_us:,.0f} us of exchange stay exposed"
    times = {r.text: r.exposed_us for r in reasons_of(report) if r.exposed_us is not None}
    if not times or report.left:
        return text
    why, most = next(iter(times.items()))
    share = "" if most >= _MOST * sum(times.values()) else f", {most:,.0f} of them"
    return f"{text}{share}: {why}"


def _faster(report: Comparison) -> str:
    """Say what was predicted to be faster than what is predicted to run, and why it was left.

    Of a compiled step a race says nothing: it was run before XLA fused.
    """
    plan = next((plan for plan in report.plans if plan.race), None)
    if plan is None or plan.after is None or report.after.source == "compiled":
        return ""
    runs = plan.race if plan.before is None else {"uncut": plan.before} | plan.race
    name = min(runs, key=lambda name: runs[name].step_us)
    best_us, us = runs[name].step_us, plan.after.step_us
    if best_us >= us:
        return ""
    return f"{name} was predicted to take {best_us:,.0f} us, not {us:,.0f}: {_why_left(plan)}"


def _why_left(plan: Plan) -> str:
    """Say why a race was not won by who was fastest."""
    if plan.because:
        return f"{plan.strategy} {plan.because}"
    of_all = (refusal.reason for refusal in plan.refusals if "#" not in refusal.op)
    return next(of_all, "it gains too little, or does not fit")


def _nothing(report: Comparison) -> str:
    """Say why nothing was planned, which is the last thing that was noted; "" if a plan was."""
    return report.notes[-1] if report.notes and not report.plans else ""
