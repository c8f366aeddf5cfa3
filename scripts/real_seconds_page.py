"""Writes `docs/real-seconds.md` from the runs that `bench_wallclock --json` has kept."""

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.origin import describe

_KINDS = {"all_to_all": "all-to-all", "ragged_all_to_all": "all-to-all", "all_reduce": "sums"}

_COLUMNS = (
    "program", "parts", "step ms", "times `off`", "quartiles", "hidden", "compute ms",
    "exchanges ms", "waits ms: all-to-all, sums", "CPU ms", "predicted ms", "error",
)  # fmt: skip

_NATIVE_COLUMNS = (
    "program", "ops moved", "step ms", "times `off`", "quartiles", "CPU ms", "error",
)  # fmt: skip

_FASTER, _HIDDEN = 1.5, 0.75
"""Targets."""

_QUIET = 0.3
"""Cores that others may use of a quiet machine."""

_HEAD = """# Real seconds

Generated from `docs/real-seconds.json` by `python -m scripts.bench_wallclock --render
docs/real-seconds.json docs/real-seconds.md`. Every step time on this page is **measured**; the link
is **emulated**; columns that say so are **predicted**.

**What runs.** A train step of a small MoE GPT, one process a rank, through the replay executor
(`lancet_jax.replay`): the StableHLO that a pipeline leaves is cut at its exchanges into segments of
compute; XLA:CPU compiles each, one thread runs them in the plan's order, and another does the
exchanges in order of issue, each beside the compute that the plan puts there. It is not one jit of
the whole step: XLA:CPU orders a module by dataflow, drops barriers, and reuses buffers in ways that
tie independent work together, so that one jit does not run the plan. On a GPU the plan's order is
XLA's schedule, and no replay is needed.

**What is compared.** All programs of a table are interleaved, A B C A B C; a speed-up is the median
of the ratios to `off` of the same round, with quartiles. `off` is the step as JAX lowers it in the
same executor: nothing runs beside an exchange unless text order lets it. `ideal` is the same
step with nothing to wait for. *Hidden* is the time of the stock step's exchanges that the program
saves, as a share of the shorter of compute and exchanges, which is all that can be hidden; the
*bound* is the stock step over the longer of the two. *Waits* is time in which compute stood still
for an exchange. *Error* is the largest difference of what the first rank has in the end from what
`jax.jit` gives, as a share of the array's largest element. Experts are ReLUs: of some millions of
hidden values a few are so near to zero that rounding turns their sign, and those elements of
experts' gradients differ by more than rounding does (see [sharp bits](sharp-bits.md)).

**Plans** are made on the machine that plays them, at the time that each kernel of the step and of
its cuts takes alone on one core there, and at the link's rate and latency. The gate sends tokens by
a hash of their place, as even as chance makes it, and drops few: a router that was never trained
sends most tokens to one or two experts.

    python -m scripts.bench_wallclock --shares 0.45 --prepare plans --pipelines 'off;dw;...'
    python -m scripts.bench_wallclock --shares 0.45 --prepared plans --paced --pairs \\
        --json docs/real-seconds.json

plan, and play the plans. With `--pairs` every rank has two cores, the second for its exchanges, as
a device has engines of its own that copy. With one core a rank the thread that exchanges comes
before compute there (real-time priority), and what it copies is taken from compute. A paced link:
an exchange ends no sooner than a link of that rate and 100 us of latency would have carried its
bytes, counted from when the last rank began. A token bucket: a loopback that the kernel holds to
the rate. `--native` runs the jitted step instead.
"""


def write(data: str, page: str) -> None:
    """Write the page.

    Args:
        data: file of runs.
        page: file to write.
    """
    runs = json.loads(Path(data).read_text())["runs"]
    played = [run for run in runs if run["kind"] == "replay"]
    lines = [_HEAD, *_verdict(played), *_by_speed(played), *_losses(played)]
    for run in runs:
        for rows in _speeds(run):
            lines += _tables(run)(run, rows)
    Path(page).write_text("\n".join(lines) + "\n")


def _verdict(runs: Sequence[Any]) -> Iterator[str]:
    """Say what the targets were, and what was reached where exchanges take 45 %."""
    yield "\n## Where exchanges take 45 % of the stock step\n"
    told = f"""
        Wanted: {_FASTER} times as fast, and {_HIDDEN:.0%} hidden. A schedule for two parts made
        by hand, of a step without gradient sums, reached 1.39 to 1.52 and 67% to 73% on another
        machine."""
    yield _filled(told) + "\n"
    for run, rows, best in _at_the_target(runs):
        yield _bullet(f"""
            {_where(run)}, commit {run["commit"]}, exchanges
            {_share(rows)}: `{best["pipeline"]}` {best["speed_up"]:.2f} times
            ({_range(best["quartiles"])}), {best["hidden"]:.0%} hidden;
            bound {_bound(rows):.2f}. {_reached(best)}""")


def _reached(row: Any) -> str:
    """Say whether the targets are met."""
    is_fast, is_hidden = row["speed_up"] >= _FASTER, row["hidden"] >= _HIDDEN
    if is_fast == is_hidden:
        return "Both reached." if is_fast else "Both missed."
    return "Only the speed." if is_fast else "Only the share."


def _by_speed(runs: Sequence[Any]) -> Iterator[str]:
    """Say how much every pipeline gains over links of every speed."""
    yield """
## By speed of the link

Times `off`, measured; in brackets how much of what can be hidden is.

| where | exchanges of `off` | bound | `dw` | `exchange` | `lancet` | `full` |
|---|---|---|---|---|---|---|"""
    for run in filter(_is_quiet, runs):
        for rows in _speeds(run):
            named = _by_name(rows)
            where = f"{_where(run)}, commit {run['commit']}"
            cells = [where, _share(rows), f"{_bound(rows):.2f}"]
            for name in ("dw", "exchange", "lancet", "full"):
                row = named.get(name)
                cells.append(f"{row['speed_up']:.2f} ({row['hidden']:.0%})" if row else "-")
            yield _line(cells)


def _losses(runs: Sequence[Any]) -> Iterator[str]:
    """Say where the best program's time goes, beside the stock step's."""
    yield "\n## What bounds it\n"
    for run, rows, best in _at_the_target(runs):
        if _cores(run) < run["ranks"]:
            continue
        stock = _by_name(rows)["off"]
        waits, more = sum(best["waits_s"].values()), best["compute_s"] - stock["compute_s"]
        before = stock["compute_s"] + waits
        yield _bullet(f"""
{_where(run)}, commit {run["commit"]}: compute of `{best["pipeline"]}` stands still for
  {_ms(waits)} ms in all; that of `off` for {_ms(sum(stock["waits_s"].values()))} ms. But it
  computes for {_ms(best["compute_s"])} ms instead of {_ms(stock["compute_s"])}. Without these
  {_ms(more)} ms more, the same waits would make it {stock["step_s"] / before:.2f} times as fast
  (arithmetic, not measured). The planner expected {_ms(best["predicted_compute_s"])} ms of compute
  instead of {_ms(stock["predicted_compute_s"])}, and a step of {_ms(best["predicted_s"])} ms.""")


def _at_the_target(runs: Sequence[Any]) -> Iterator[tuple[Any, list[Any], Any]]:
    """Yield (run, rows, best row) of quiet machines where exchanges are to take 45 %."""
    for run in filter(_is_quiet, runs):
        rows = [row for row in run["rows"] if row.get("share") == 0.45]
        cut = [row for row in rows if row["pipeline"] not in ("off", "ideal")]
        if cut:
            yield run, rows, max(cut, key=lambda row: row["speed_up"])


def _speeds(run: Any) -> Iterator[list[Any]]:
    """Yield a run's rows, one speed of the link after another."""
    for rate in dict.fromkeys(row["mbit"] for row in run["rows"]):
        yield [row for row in run["rows"] if row["mbit"] == rate]


def _bullet(text: str) -> str:
    """Lay a bullet point out."""
    return "- " + _filled(text).replace("\n", "\n  ")


def _filled(text: str) -> str:
    """Lay a paragraph out."""
    return textwrap.fill(" ".join(text.split()), 98, break_long_words=False, break_on_hyphens=False)


def _is_quiet(run: Any) -> bool:
    """Whether others left the machine alone."""
    return max(row["foreign_cores"] for row in run["rows"]) <= _QUIET


def _tables(run: Any) -> Callable[[Any, Sequence[Any]], Iterator[str]]:
    """Return what lays a run out."""
    if not _is_quiet(run):
        return _cpu_table
    return _table if run["kind"] == "replay" else _native_table


def _where(run: Any) -> str:
    cores = "one core a rank" if _cores(run) >= run["ranks"] else "two ranks a core"
    if run["pairs"]:
        cores = "two cores a rank, one of them for its exchanges"
    link = "token bucket" if run["link"] == "token bucket" else f"{run['link']} link"
    return f"{run['ranks']} ranks, {cores}, {link}"


def _share(rows: Sequence[Any]) -> str:
    """Say what exchanges take of the stock step."""
    stock = _by_name(rows)["off"]
    return f"{stock['exchange_s'] / stock['step_s']:.0%}"


def _cores(run: Any) -> int:
    """How many the machine has."""
    return int(run["machine"].split()[0])


def _range(values: Sequence[float]) -> str:
    return f"{values[0]:.2f} to {values[-1]:.2f}"


def _by_name(rows: Sequence[Any]) -> dict[str, Any]:
    return {row["pipeline"]: row for row in rows}


def _bound(rows: Sequence[Any]) -> float:
    named = _by_name(rows)
    return named["off"]["step_s"] / max(named["ideal"]["step_s"], named["off"]["exchange_s"])


def _table(run: Any, rows: Sequence[Any]) -> Iterator[str]:
    """Yield one link speed's table."""
    named = _by_name(rows)
    stock = named["off"]
    foreign = max(row["foreign_cores"] for row in rows)
    told = f"""
        Exchanges are {_share(rows)} of the stock step (measured); bound {_bound(rows):.2f}.
        {run["machine"]}, quiet (others used {foreign:.2f} cores at most)."""
    yield from _headed(run, f"{_where(run)}, {stock['mbit']:.0f} Mbit/s", told)
    yield from _titled(_COLUMNS)
    for row in rows:
        yield _row(row)


def _headed(run: Any, title: str, told: str) -> Iterator[str]:
    """Yield what stands above a table: what was run, where, and what a reader has to know."""
    yield f"\n## {title}\n"
    yield _filled(f"{told} {_origin(run)}") + "\n"
    if run.get("note"):
        yield _filled(run["note"]) + "\n"


def _titled(columns: Sequence[str]) -> Iterator[str]:
    """Yield the head of a table."""
    yield _line(columns)
    yield "|" + "---|" * len(columns)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu_table(run: Any, rows: Sequence[Any]) -> Iterator[str]:
    """Yield what a clock of CPU time is good for on a busy machine."""
    foreign = max(row["foreign_cores"] for row in rows)
    told = f"""
        {run["machine"]}, of which others used {foreign:.1f}: wall times mean nothing there, CPU
        times (measured, all threads of one rank) a little."""
    yield from _headed(run, f"{_where(run)}, busy machine: CPU time alone", told)
    yield from _titled(("program", "CPU ms", "lowest and highest", "error"))
    for row in rows:
        low, high = map(_ms, row["cpu_low_high_s"])
        yield _line(
            (f"`{row['pipeline']}`", _ms(row["cpu_s"]), f"{low} to {high}", f"{row['error']:.0e}")
        )


def _origin(run: Any) -> str:
    """Say what was run, and when."""
    return f"{describe(run)}; {run['rounds']} rounds; step `{run['shape']}`."


def _native_table(run: Any, rows: Sequence[Any]) -> Iterator[str]:
    """Yield what one jit of the whole step makes of the same plans."""
    told = f"""
        `lancet_jax.jit` itself, over gloo, on XLA:CPU, which runs ops by dataflow whatever their
        order. {run["machine"]}, quiet."""
    title = f"One jit of the whole step, {run['ranks']} ranks, {rows[0]['mbit']:.0f} Mbit/s"
    yield from _headed(run, title, told)
    yield from _titled(_NATIVE_COLUMNS)
    for row in rows:
        yield _line([
            f"`{row['pipeline']}`", f"{row['moves'] or '-'}", _ms(row["step_s"]),
            f"{row['speed_up']:.2f}", _range(row["quartiles"]), _ms(row["cpu_s"]),
            f"{row['error']:.0e}",
        ])  # fmt: skip


def _row(row: Any) -> str:
    waits = {"all-to-all": 0.0, "sums": 0.0}
    for kind, seconds in row["waits_s"].items():
        waits[_KINDS[kind]] += seconds
    parts = ",".join(map(str, row.get("parts", []))) or "-"
    hidden = "-" if row["pipeline"] in ("off", "ideal") else f"{row['hidden']:.0%}"
    said = _ms(row["predicted_s"]) if "predicted_s" in row else "-"
    return _line([
        f"`{row['pipeline']}`", parts, _ms(row["step_s"]), f"{row['speed_up']:.2f}",
        _range(row["quartiles"]), hidden, _ms(row["compute_s"]), _ms(row["exchange_s"]),
        ", ".join(map(_ms, waits.values())), _ms(row["cpu_s"]), said, f"{row['error']:.0e}",
    ])  # fmt: skip


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"
