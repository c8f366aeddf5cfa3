"""An inspection as text: good at 80 columns, in a pipe and without colour."""

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from hlo_passes.facts.exchange_labels import scope_steps
from hlo_passes.schedule.reasons import Stop
from lancet_jax.report.inspection import Filler, InspectedExchange, Inspection
from lancet_jax.report.reasons import grouped_notes

_EXPOSED = 8
"""How many of the most exposed exchanges are told apart with their fillers."""

_LEAST = 0.01
"""An exchange that is exposed for less of its length counts as hidden."""


def show_inspection(found: Inspection, console: Console) -> None:
    """Print an inspection."""
    t = found.timeline
    order = "XLA's schedule" if found.scheduled else "program order"
    by = "measured on" if t.source == "measured" else "priced for"
    console.print(f"{found.module}: {found.ops:,} ops, {_count(found.devices, 'device')}, {order}, "
                  f"{by} {found.target}", style="bold")  # fmt: skip
    word = "measured" if t.source == "measured" else "predicted"
    console.print(f"step {t.makespan_us:,.0f} us, compute {t.compute_us:,.0f}, exchanges "
                  f"{t.exchange_us:,.0f}, exposed {t.exposed_us:,.0f} ({word})")  # fmt: skip
    if found.bound_exposed_us is not None and found.exchanges:
        console.print(f"whatever the order, {found.bound_exposed_us:,.0f} us stay exposed")
    for note in grouped_notes(found.notes):
        console.print(str(note), markup=False)
    if not found.exchanges:
        console.print("no exchange found: an auto-sharded step has none before XLA partitions it; "
                      "inspect the HLO after optimizations instead")  # fmt: skip
    else:
        console.print(_exchanges(found))
        _show_exposed(found, console)
    if found.roles_us:
        console.print(_roles(found))
        console.print(f"compute priced by: {_shares(found.sources_us)}")
    if found.exchanges:
        sources = sorted({e.source for e in found.exchanges})
        console.print(f"exchanges priced by: {', '.join(sources)}")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _exchanges(found: Inspection) -> Table:
    """Make one row of every layer, direction and phase."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("exchange", no_wrap=True, overflow="ellipsis")
    for name, width in (("MiB", 7), ("us", 5), ("exposed", 7), ("could hide", 10)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("line", no_wrap=True, overflow="ellipsis", max_width=16)
    for group in _grouped(found.exchanges):
        first, times = group[0], sum(e.times for e in group)
        could = [e.could_hide_us for e in group if e.could_hide_us is not None]
        table.add_row(
            _title(first) + (f" x{times}" if times > 1 else ""),
            f"{sum(e.bytes * e.times for e in group) / 2**20:,.2f}",
            f"{sum(e.us * e.times for e in group):,.0f}",
            f"{sum(e.exposed_us * e.times for e in group):,.0f}",
            f"{min(could):,.0f}" if could else "in loop",
            file_of(first.line),
        )
    return table


def _title(exchange: InspectedExchange) -> str:
    return f"{what_of(exchange)} {exchange.layer}".rstrip()


def what_of(exchange: InspectedExchange) -> str:
    """Return what an exchange is called, the kind included where the phase does not tell it."""
    if exchange.phase in ("dispatch", "combine"):
        ragged = " (ragged)" if exchange.kind.startswith("ragged") else ""
        return f"{exchange.direction} {exchange.phase}{ragged}"
    if exchange.phase == "gradient":
        return f"gradient {exchange.kind}"
    return f"{exchange.direction} {exchange.kind}"


def file_of(line: str) -> str:
    """Return `file:line` without folders."""
    return line.rpartition("/")[2]


def _grouped(exchanges: tuple[InspectedExchange, ...]) -> list[list[InspectedExchange]]:
    groups: dict[tuple[str, str], list[InspectedExchange]] = {}
    for e in exchanges:
        groups.setdefault((what_of(e), e.layer), []).append(e)
    return list(groups.values())


def _show_exposed(found: Inspection, console: Console) -> None:
    """Print the most exposed exchanges with what could fill their windows."""
    bare = [e for e in found.exchanges if e.exposed_us > _LEAST * e.us]
    bare.sort(key=lambda e: -e.exposed_us * e.times)
    if not bare:
        console.print("every exchange is hidden")
        return
    console.print("exposed, and what could run beside it:")
    for e in bare[:_EXPOSED]:
        times = f" x{e.times}" if e.times > 1 else ""
        at = f", {file_of(e.line)}" if e.line else ""
        console.print(f"  {_title(e)}: {e.exposed_us:,.0f} of {e.us:,.0f} us{times} "
                      f"({e.name}{at})", no_wrap=True, overflow="ellipsis")  # fmt: skip
        for line in _reasons(e):
            console.print(f"    {line}", no_wrap=True, overflow="ellipsis", style="dim")
    if len(bare) > _EXPOSED:
        console.print(f"  and {len(bare) - _EXPOSED} more: --json has them all")


def _reasons(exchange: InspectedExchange) -> Iterator[str]:
    """Say why a window is not full."""
    reason = why_bare(exchange)
    if reason:
        yield reason
    for filler in exchange.fillers:
        yield f"{filler.us:>7,.0f} us {filler.role}, {_where(filler)}: {_short(filler)}"


def why_bare(exchange: InspectedExchange) -> str:
    """Return what keeps all work from an exchange; "" if there is some that could hide it."""
    if exchange.blocking:
        return exchange.why_blocking or str(Stop.BLOCKED)
    if exchange.could_hide_us is None:
        return "inside a loop, whose body has an order of its own"
    if exchange.fillers:
        return ""
    if exchange.by_data_us:
        us = f"{exchange.by_data_us:,.0f} us"
        return f"{us} of work are kept from it by effects or control, not data"
    return "all other work needs it or feeds it: only a split helps (plan -p choose-split)"


def _short(filler: Filler) -> str:
    steps = scope_steps(filler.op)[-2:]
    return f"{filler.name} ({'/'.join(steps)})" if steps else filler.name


def _where(filler: Filler) -> str:
    """Say where a filler runs now."""
    doing = f"beside {filler.beside}" if filler.beside else "beside nothing"
    if abs(filler.late_us) < 1:
        return doing
    when = "later" if filler.late_us > 0 else "earlier"
    return f"{abs(filler.late_us):,.0f} us {when} {doing}"


def _roles(found: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("compute by role", min_width=22)
    table.add_column("us", justify="right")
    table.add_column("share", justify="right")
    total = sum(found.roles_us.values()) or 1.0
    for role, us in found.roles_us.items():
        table.add_row(role, f"{us:,.0f}", f"{us / total:.1%}")
    return table


def _shares(times: dict[str, float]) -> str:
    total = sum(times.values()) or 1.0
    return ", ".join(f"{name} {us / total:.0%}" for name, us in times.items())
