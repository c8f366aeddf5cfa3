"""Limits that a step has to keep, and the lines of code that break them."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hlo_passes.errors import OptionError
from hlo_passes.facts.footprint import footprint_of, parse_bytes
from hlo_passes.ir.graph import Graph
from hlo_passes.schedule.problem import Problem
from lancet_jax.report.inspection import Inspection
from lancet_jax.report.inspection_text import what_of, why_bare

_BLAMED = 10
"""How many ops are named per limit that is broken."""

_TIMES = {"us": 1.0, "ms": 1e3, "s": 1e6}
_LIMIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z%]+)")


@dataclass(frozen=True, slots=True)
class Offence:
    """One op that adds to a broken limit.

    Attributes:
        op, name: which.
        line: `file:line` of the user's code, or "".
        message: what it does, with figures.
    """

    op: str
    name: str
    line: str
    message: str


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and how the step stands to it.

    Attributes:
        rule: `exposed` or `memory`.
        ok: whether it is kept.
        message: figure and limit, in words.
        value, limit: both, in us or bytes.
        offences: who adds most; empty if the limit is kept.
    """

    rule: str
    ok: bool
    message: str
    value: float
    limit: float
    offences: tuple[Offence, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def judge_exposed(found: Inspection, limit: str) -> Limit:
    """Hold a step's exposed communication against a limit.

    Args:
        found: the step.
        limit: a share of the step (`15%`), or a time (`200us`, `2ms`).

    Raises:
        OptionError: if the limit is neither.
    """
    t = found.timeline
    number, unit = _share_or_time(limit)
    most = number / 100 * t.makespan_us if unit == "%" else number * _TIMES[unit]
    share = t.exposed_us / t.makespan_us if t.makespan_us else 0.0
    ok = t.exposed_us <= most
    word = "measured" if t.source == "measured" else "predicted"
    return Limit(
        "exposed", ok,
        f"{t.exposed_us:,.0f} us exposed, {share:.1%} of a step of {t.makespan_us:,.0f} us "
        f"({word} for {found.target}); limit {limit}",
        t.exposed_us, most, () if ok else tuple(_exposed(found))[:_BLAMED],
    )  # fmt: skip


def _exposed(found: Inspection) -> Iterator[Offence]:
    for e in sorted(found.exchanges, key=lambda e: -e.exposed_us * e.times):
        if e.exposed_us > 0:
            times = f" x{e.times}" if e.times > 1 else ""
            hint = why_bare(e) or f"{e.could_hide_us:,.0f} us of compute could hide it"
            what = f"{what_of(e)} {e.layer}".rstrip()
            message = f"{what}: {e.exposed_us:,.0f} of {e.us:,.0f} us{times} exposed; {hint}"
            yield Offence(e.op, e.name, e.line, message)


def judge_memory(graph: Graph, problem: Problem, limit: str) -> Limit:
    """Hold a step's memory against a limit: arguments, and temporaries at their peak.

    An estimate: sizes are unpadded, nothing fragments, and results are taken to reuse the memory
    of donated arguments.

    Args:
        graph: the step.
        problem: the same, reduced.
        limit: a size, as `70GiB` or in bytes.

    Raises:
        OptionError: if the limit is none.
    """
    most = parse_bytes(limit, "--max-memory")
    arguments = footprint_of(graph).arguments
    order = range(problem.size)
    peak = problem.buffers.peak(order)
    ok = arguments + peak <= most
    message = (f"{_gib(arguments + peak)} needed (estimated): {_gib(arguments)} arguments, "
               f"{_gib(peak)} temporaries; limit {limit}")  # fmt: skip
    held = [] if ok else [
        Offence(op.key, op.name, op.source, f"{_gib(size)} of {op.kind} alive at the peak")
        for size, maker in problem.buffers.at_peak(order)[:_BLAMED]
        for op in [graph.ops[maker]]
    ]  # fmt: skip
    return Limit("memory", ok, message, float(arguments + peak), float(most), tuple(held))


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**28 else f"{size / 2**20:,.2f} MiB"


def _share_or_time(text: str) -> tuple[float, str]:
    """Read a number and its unit."""
    match = _LIMIT.fullmatch(text.strip())
    units = [*_TIMES, "%"]
    if match is None or match[2] not in units:
        raise OptionError(f"--max-exposed {text}", f"is no number with one of {', '.join(units)}",
                          "say 15% of the step, or 2ms")  # fmt: skip
    return float(match[1]), match[2]
