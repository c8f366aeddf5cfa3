"""A report as text: good at 80 columns, in a pipe and without colour."""

import io

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hlo_passes.choose_split import describe_race
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.report.comparison import Comparison, WindowChange
from lancet_jax.report.headline import headline
from lancet_jax.report.reasons import reasons_of

_LANE = 60
"""Columns of a timeline strip."""

_SAMPLES = 12
"""Moments that one column stands for."""


def render(report: Comparison, *, width: int = 80, colour: bool = False) -> str:
    """Return a report as text of at most `width` columns.

    Args:
        report: what to write.
        width: columns.
        colour: whether to style it for a terminal.
    """
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, no_color=not colour,
                      highlight=False, soft_wrap=False)  # fmt: skip
    show(report, console)
    return out.getvalue()


def show(report: Comparison, console: Console) -> None:
    """Print a report to a console: first the one line that says it all, which is not wrapped."""
    console.print(headline(report), style="bold", soft_wrap=True, markup=False)
    console.print(f"{report.name} on {report.after.target}", style="dim")
    console.print(_totals(report))
    console.print(strips(report))
    if report.windows:
        console.print(_windows(report))
    for line in _remarks(report):
        console.print(line, markup=False)


def _totals(report: Comparison) -> Table:
    before, after = report.before, report.after
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("us per step")
    table.add_column(f"before ({before.source})", justify="right")
    table.add_column(f"after ({after.source})", justify="right")
    table.add_column("", justify="right")
    rows = (
        ("step", before.makespan_us, after.makespan_us),
        ("compute", before.compute_us, after.compute_us),
        ("exchanges", before.exchange_us, after.exchange_us),
        ("exposed", before.exposed_us, after.exposed_us),
        ("  of all-to-alls", before.exposed_all_to_all_us, after.exposed_all_to_all_us),
    )
    for name, old, new in rows:
        table.add_row(name, f"{old:,.0f}", f"{new:,.0f}", _percent(old, new))
    table.add_row("temp memory, MB", *(f"{t.peak_bytes / 1e6:,.1f}" for t in (before, after)),
                  _percent(before.peak_bytes, after.peak_bytes))  # fmt: skip
    return table


def _percent(old: float, new: float) -> str:
    return f"{(new - old) / old:+.1%}" if old else ""


def strips(report: Comparison) -> Text:
    """Draw both timelines on one axis: `=` compute, `#` exchange hidden, `!` exchange exposed."""
    end = max(report.before.makespan_us, report.after.makespan_us) or 1.0
    text = Text()
    for name, timeline in (("before", report.before), ("after", report.after)):
        compute, exchange = _strip(timeline, end)
        text.append(f"{name:>7} compute  {compute}\n")
        text.append(f"{'':>7} exchange {exchange}\n")
    text.append(f"{'':>17}= compute   # exchange beside compute   ! exchange exposed\n")
    return text


def _strip(timeline: Timeline, end: float) -> tuple[str, str]:
    """Return a timeline's two lanes; a column shows what fills most of its time."""
    lanes = {"compute": [], "exchange": []}
    for slot in timeline.slots:
        lanes[slot.lane].append((slot.start_us, slot.end_us))
    samples = [(i + 0.5) * end / (_LANE * _SAMPLES) for i in range(_LANE * _SAMPLES)]
    busy, sent = (_active(sorted(lanes[name]), samples) for name in ("compute", "exchange"))
    compute = exchange = ""
    for i in range(0, len(samples), _SAMPLES):
        works, talks = busy[i : i + _SAMPLES], sent[i : i + _SAMPLES]
        bare = sum(t and not w for w, t in zip(works, talks, strict=True))
        compute += "=" if sum(works) > _SAMPLES / 2 else " "
        exchange += " " if not any(talks) else "!" if bare > sum(talks) / 2 else "#"
    return compute, exchange


def _active(intervals: list[tuple[float, float]], times: list[float]) -> list[bool]:
    """Return for each time whether an interval is open then; both ascend."""
    found, at, open_until = [], 0, -1.0
    for time in times:
        while at < len(intervals) and intervals[at][0] <= time:
            open_until = max(open_until, intervals[at][1])
            at += 1
        found.append(time < open_until)
    return found


def _windows(report: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="all-to-alls", title_justify="left")
    table.add_column("", no_wrap=True, min_width=12)
    for name, width in (("MiB", 6), ("us", 5), ("exposed", 10)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("beside it", ratio=1, overflow="ellipsis", no_wrap=True)
    for w in report.windows:
        direction = "bwd" if w.backward else "fwd"
        times = f" x{w.times}" if w.times > 1 else ""
        before = "new" if w.before_us is None else f"{w.before_us:,.0f}"
        exposed = f"{before} -> {w.after_us:,.0f}"
        table.add_row(f"{direction} {w.label}{times}", f"{w.bytes / 2**20:,.2f}",
                      f"{w.us:,.0f}", exposed, _beside(w))  # fmt: skip
    return table


def _beside(window: WindowChange) -> str:
    if not window.fillers:
        return "nothing"
    first = "/".join(window.fillers[0].split("/")[-3:])
    more = len(window.fillers) - 1
    return first + (f" + {more}" if more else "")


def _remarks(report: Comparison) -> list[str]:
    lines = []
    plan = report.plan
    if plan is not None:
        done = "cut" if plan.splits else f"{len(plan.moves)} ops moved"
        lines.append(f"plan {plan.hash}: strategy {plan.strategy}, {done}")
        if plan.race:
            lines.append(describe_race(plan))
        if not plan.splits:
            lines.append(f"bound: {plan.bound_us:,.0f} us stay exposed whatever the order")
    if report.drift is not None:
        lines.append(f"drift: {report.drift}")
    priced = sorted({w.source for w in report.windows})
    if priced:
        lines.append(f"all-to-alls priced by: {', '.join(priced)}")
    sources = ", ".join(f"{n} {source}" for source, n in sorted(report.sources.items()))
    lines.append(f"costs: {sources}")
    if report.seconds:
        lines.append(f"planning and editing: {report.seconds:.2f} s")
    return lines + list(map(str, reasons_of(report)))
