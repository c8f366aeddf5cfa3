"""Before and after on one time axis, as a figure for papers and the README. Needs matplotlib."""

from pathlib import Path
from typing import Any, BinaryIO

from hlo_passes.schedule.timeline import Timeline
from lancet_jax.errors import UnsupportedError
from lancet_jax.report.comparison import Comparison

_COMPUTE, _HIDDEN, _EXPOSED, _SUM = "#8a9bb0", "#9ecae1", "#d9480f", "#c9c3e6"
_INK = "#57606a"
"""A grey that reads on white and on black: the figure has no background of its own."""


def save(
    report: Comparison, path: str | Path | BinaryIO, *, form: str | None = None, title: str = ""
) -> None:
    """Draw a report as two strips, `before` and `after`, with two lanes each.

    Args:
        report: what to draw.
        path: where to; the ending chooses SVG, PNG or PDF.
        form: `svg`, `png` or `pdf`, where there is no ending.
        title: a line above the strips.

    Raises:
        UnsupportedError: if matplotlib is not installed.
    """
    pyplot = _pyplot()
    with pyplot.rc_context({"svg.hashsalt": "lancet", "font.size": 9, "text.color": _INK}):
        figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(9, 2.9))
        for axis, name, timeline in zip(
            axes, ("before", "after"), (report.before, report.after), strict=True
        ):
            _strip(axis, name, timeline)
        axes[-1].set_xlabel("ms", color=_INK)
        end = max(report.before.makespan_us, report.after.makespan_us) or 1.0
        axes[0].set_xlim(0, end / 1e3)
        figure.suptitle(title, x=0.01, ha="left", color=_INK)
        _legend(figure, pyplot)
        figure.tight_layout(rect=(0, 0.06, 1, 0.98))
        figure.savefig(path, format=form, transparent=True, dpi=150,
                       metadata=_undated(form or str(path)))  # fmt: skip
        pyplot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise UnsupportedError("figure", "matplotlib is not installed",
                               "pip install matplotlib") from None  # fmt: skip
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _strip(axis: Any, name: str, timeline: Timeline) -> None:
    """Draw one timeline: compute above, exchanges below, exposed time hatched."""
    compute = [(s.start_us / 1e3, s.us / 1e3) for s in timeline.slots if s.lane == "compute"]
    axis.broken_barh(compute, (1, 0.9), color=_COMPUTE, linewidth=0)
    for kind, colour in ((True, _HIDDEN), (False, _SUM)):
        sent = [(w.start_us / 1e3, w.us / 1e3) for w in timeline.windows if w.is_all_to_all is kind]
        axis.broken_barh(sent, (0, 0.9), color=colour, linewidth=0)
    bare = [
        (start / 1e3, (end - start) / 1e3)
        for window in timeline.windows
        for start, end in _uncovered(timeline, window.start_us, window.start_us + window.us)
    ]
    axis.broken_barh(bare, (0, 0.9), facecolor=_EXPOSED, edgecolor="white", hatch="////",
                     linewidth=0)  # fmt: skip
    axis.set_yticks([1.45, 0.45], ["compute", "exchange"])
    axis.tick_params(colors=_INK, length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    step, exposed = timeline.makespan_us / 1e3, timeline.exposed_us / 1e3
    axis.set_title(f"{name}: step {step:.1f} ms, exposed {exposed:.2f} ms ({timeline.source})",
                   loc="left", fontsize=9, color=_INK)  # fmt: skip


def _uncovered(timeline: Timeline, start: float, end: float) -> list[tuple[float, float]]:
    """Return the parts of an interval in which no compute runs."""
    parts = []
    at = start
    for slot in timeline.slots:
        if slot.lane != "compute" or slot.end_us <= at or slot.start_us >= end:
            continue
        if slot.start_us > at:
            parts.append((at, slot.start_us))
        at = max(at, slot.end_us)
    if at < end:
        parts.append((at, end))
    return parts


def _legend(figure: Any, pyplot: Any) -> None:
    entries = (
        (_COMPUTE, "compute", ""), (_HIDDEN, "all-to-all", ""), (_SUM, "gradient sum", ""),
        (_EXPOSED, "exposed: nothing runs beside it", "////"),
    )  # fmt: skip
    patches = [
        pyplot.Rectangle(
            (0, 0), 1, 1, facecolor=colour, hatch=hatch, edgecolor="white", label=label
        )
        for colour, label, hatch in entries
    ]
    figure.legend(handles=patches, loc="lower right", ncols=4, frameon=False, fontsize=8)


def _undated(name: str) -> dict[str, Any] | None:
    """Leave the date out of an SVG, so that equal figures are equal files."""
    return {"Date": None} if name.endswith("svg") else None
