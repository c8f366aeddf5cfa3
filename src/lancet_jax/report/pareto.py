"""Step time against memory, for one report: made only when somebody asks."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from hlo_passes.schedule.pareto import Point, front, orders_within
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.errors import UnsupportedError
from lancet_jax.report.comparison import Comparison


def pareto_of(report: Comparison) -> tuple[Point, ...]:
    """Return what is worth having of all that was tried, smallest memory first.

    What competes: the step before and after, orders under several limits of memory, and the ways
    to cut it that ran in the race. Of a compiled step the race is left out: it was run on
    StableHLO, whose memory is not comparable.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    return front(_points(report))


def _points(report: Comparison) -> Iterator[Point]:
    if report.stock is None:
        raise UnsupportedError("report", "it has timelines but no graph to order again",
                               "make it of a step or a module file")  # fmt: skip
    yield _point("as it is", report.before)
    yield _point("as planned", report.after)
    yield from orders_within(report.stock)
    if report.after.source == "compiled" or report.plan is None:
        return
    if report.plan.splits and report.final is not None:
        yield from orders_within(report.final, "cut")
    for plan in (*report.cuts, report.plan):
        for name, result in plan.race.items():
            yield Point(f"cut {name}", result.step_us, result.peak_bytes)


def _point(name: str, timeline: Timeline) -> Point:
    return Point(name, timeline.makespan_us, timeline.peak_bytes)


def show_pareto(points: Sequence[Point], console: Console) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="time against memory (predicted)",
                  title_justify="left")  # fmt: skip
    for name in ("temp memory, MB", "us per step"):
        table.add_column(name, justify="right")
    table.add_column("")
    for point in points:
        table.add_row(f"{point.peak_bytes / 1e6:,.1f}", f"{point.step_us:,.0f}", point.name)
    console.print(table)
