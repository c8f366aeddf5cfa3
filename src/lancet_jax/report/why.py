"""Why an op is where it is: what it does and costs, and beside which exchanges it may run."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from hlo_passes.cost.model import CostModel
from hlo_passes.errors import OptionError
from hlo_passes.facts.exchange_labels import labels_of
from hlo_passes.facts.moe_roles import moe_parts_of
from hlo_passes.facts.paths import path_between
from hlo_passes.facts.reach import Reach
from hlo_passes.facts.roles import roles_of
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.schedule.reasons import IN_ORDER, Stop, loosened
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.report.inspection_text import file_of

_NAMED = 6
"""How many exchanges of a sort are printed; JSON has them all."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How an op stands to one exchange.

    Attributes:
        exchange, name, label: which.
        us, exposed_us: its window.
        may_overlap: whether neither reaches the other.
        overlaps: whether the op runs beside it now.
        path: names of the ops on one path between the two; empty if there is none.
        needs: whether the op waits for the exchange, rather than the exchange for it.
        note: what keeps them apart although no data does; "" if nothing.
    """

    exchange: str
    name: str
    label: str
    us: float
    exposed_us: float
    may_overlap: bool
    overlaps: bool
    path: tuple[str, ...]
    needs: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Why:
    """Everything about one op.

    Attributes:
        op: the op.
        where: name of its computation.
        role: what it is for.
        us, source: its cost, and where that comes from.
        start_us: when it starts, from the begin of its computation.
        relations: to every exchange of its computation.
    """

    op: Op
    where: str
    role: str
    us: float
    source: str
    start_us: float
    relations: tuple[Relation, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        op = self.op
        return {
            "op": op.key, "name": op.name, "kind": op.kind, "line": op.source, "scope": op.scope,
            "computation": self.where, "role": self.role, "us": self.us, "source": self.source,
            "start_us": self.start_us, "flops": op.flops, "bytes": op.bytes,
            "exchanges": [asdict(r) for r in self.relations],
        }  # fmt: skip


def find_op(graph: Graph, name: str) -> tuple[Graph, Op]:
    """Find an op by its HLO name, its key, or a part of its key that no other has.

    Raises:
        OptionError: if none is called so, or several are, naming some.
    """
    wanted = name.removeprefix("%")
    ops = [(inside, op) for inside, _ in graph.walk() for op in inside.ops]
    found = [pair for pair in ops if wanted in (pair[1].name.removeprefix("%"), pair[1].key)]
    found = found or [pair for pair in ops if wanted in pair[1].key]
    if len(found) == 1:
        return found[0]
    if not found:
        raise OptionError(f"op {name!r}", "no op has this name or key",
                          "take a name that `inspect` prints, or a part of a scope")  # fmt: skip
    some = ", ".join(op.name for _, op in found[:5])
    raise OptionError(f"op {name!r}", f"{len(found)} ops are called so",
                      f"name one of them: {some}{', ...' if len(found) > 5 else ''}")  # fmt: skip


def why(graph: Graph, costs: CostModel, name: str) -> Why:
    """Explain one op of a module.

    Args:
        graph: the module's picture.
        costs: prices for the target.
        name: an HLO name, a key, or a part of a key that no other has.

    Raises:
        OptionError: if there is no such op.
    """
    inside, op = find_op(graph, name)
    simulator = Simulator(inside, costs)
    timeline = simulator.timeline()
    roles, labels = roles_of(inside), labels_of(graph)
    part = moe_parts_of(inside, roles, labels)[op.id]
    start = {slot.op: slot.start_us for slot in timeline.slots}
    return Why(
        op=op,
        where=inside.name,
        role=f"{part} {roles[op.id]}".strip(),
        us=simulator.problem.us[op.id],
        source=str(simulator.problem.sources[op.id]),
        start_us=start.get(op.id, 0.0),
        relations=tuple(_relations(simulator, op, timeline, {k: f"{v} {v.layer}".strip()
                                                          for k, v in labels.items()})),
    )  # fmt: skip


def _relations(
    simulator: Simulator, op: Op, timeline: Timeline, labels: dict[str, str]
) -> Iterator[Relation]:
    graph = simulator.graph
    reach = Reach.of(graph)
    data = Reach.of(loosened(graph, simulator.problem), graph.exchanges)
    windows = {w.op: w for w in timeline.windows if graph.ops[w.op].key == w.key}
    for exchange in graph.exchanges:
        if exchange == op.id:
            continue
        other, window = graph.ops[exchange], windows[exchange]
        needs = reach.depends_on(op.id, exchange)
        ends = (exchange, op.id) if needs else (op.id, exchange)
        free = reach.may_overlap(op.id, exchange)
        path = () if free else path_between(graph, *ends)
        yield Relation(
            other.key, other.name, labels[other.key], window.us, window.exposed_us, free,
            op.key in window.fillers, tuple(graph.ops[i].name for i in path), needs,
            _note(other, free, data.may_overlap(op.id, exchange)),
        )  # fmt: skip


def _note(exchange: Op, free: bool, free_by_data: bool) -> str:
    """Return what keeps an op from an exchange besides data, or "" if nothing does."""
    if not free:
        return IN_ORDER if free_by_data else ""
    if not exchange.blocking:
        return ""
    return exchange.why_blocking or str(Stop.BLOCKED)


def show_why(found: Why, console: Console) -> None:
    """Print an explanation."""
    op = found.op
    console.print(f"{op.name}: {op.kind}, {found.role}", style="bold")
    for name, value in _facts(found):
        console.print(f"  {name:9}{value}", no_wrap=True, overflow="ellipsis")
    free = sorted((r for r in found.relations if r.may_overlap), key=lambda r: -r.exposed_us)
    _show_free(free, console)
    for title, needs in (("needs, so it starts after", True), ("feeds, so it ends before", False)):
        tied = [r for r in found.relations if not r.may_overlap and r.needs is needs]
        tied.sort(key=lambda r: len(r.path))
        if tied:
            console.print(f"{title} {_count(len(tied))}:")
        for r in tied[:_NAMED]:
            how = ", not by data" if r.note else ""
            console.print(f"  {r.label}{how}: {_chain(r.path)}", no_wrap=True, overflow="ellipsis")
        _show_rest(tied, console)


def _facts(found: Why) -> Iterator[tuple[str, str]]:
    op = found.op
    yield "key", op.key
    if op.source:
        yield "line", op.source
    exchange = op.collective
    if exchange is None:
        work = f"{op.flops:.3g} FLOP, {op.bytes:,.0f} bytes"
    else:
        groups = f"groups of {exchange.group_size}" if exchange.group_size else "all devices"
        work = f"{exchange.bytes / 2**20:,.2f} MiB of each device, {groups}"
    yield "cost", f"{found.us:,.1f} us ({found.source}); {work}"
    yield "starts", f"{found.start_us:,.0f} us into {found.where}"


def _show_free(free: list[Relation], console: Console) -> None:
    if not free:
        console.print("may run beside no exchange: it needs or feeds every one")
        return
    console.print(f"may run beside {_count(len(free))}:")
    for r in free[:_NAMED]:
        now = f", but {r.note}" if r.note else ", runs beside it now" if r.overlaps else ""
        console.print(f"  {r.label} ({r.name}): {r.exposed_us:,.0f} of {r.us:,.0f} us exposed{now}",
                      no_wrap=True, overflow="ellipsis")  # fmt: skip
    _show_rest(free, console)


def _show_rest(relations: list[Relation], console: Console) -> None:
    if len(relations) > _NAMED:
        console.print(f"  and {len(relations) - _NAMED} more: --json has them all")


def _count(n: int) -> str:
    return f"{n} exchange{'' if n == 1 else 's'}"


def _chain(path: tuple[str, ...]) -> str:
    """Write a path; the middle of a long one is left out."""
    names = list(path) if len(path) <= 4 else [*path[:2], f"({len(path) - 3} ops)", path[-1]]
    return " > ".join(file_of(name) for name in names)
