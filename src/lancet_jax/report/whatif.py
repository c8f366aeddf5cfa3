"""One module on many machines: what its step would expose on each, in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import Cluster
from hlo_passes.errors import OptionError
from hlo_passes.facts.other_meshes import ExpertShapes, experts_of, on_devices, with_experts
from hlo_passes.ir.graph import Graph
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule.bound import exposed_bound
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule_dw import ScheduleDw


@dataclass(frozen=True, slots=True)
class Row:
    """One machine, times in us per step.

    Attributes:
        target: the machine.
        experts: experts on each device; None where the module's own were kept.
        error: why there are no figures; "" if there are.
        step_us, compute_us, exchange_us, exposed_us: in the module's order.
        bound_us: exposed whatever the order.
        dw_step_us, dw_exposed_us: after re-ordering.
        memory_bytes: arguments and temporaries, estimated.
    """

    target: str
    experts: int | None = None
    error: str = ""
    step_us: float = 0.0
    compute_us: float = 0.0
    exchange_us: float = 0.0
    exposed_us: float = 0.0
    bound_us: float = 0.0
    dw_step_us: float = 0.0
    dw_exposed_us: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class WhatIf:
    """A module on several machines.

    Attributes:
        module: its name.
        devices: devices that it was made for.
        rows: one per machine and number of experts.
        assumed: what the figures rest on, in words.
    """

    module: str
    devices: int
    rows: tuple[Row, ...]
    assumed: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"module": self.module, "devices": self.devices, "assumed": list(self.assumed),
                "rows": [asdict(row) for row in self.rows]}  # fmt: skip


def what_if(
    name: str, graph: Graph, targets: Sequence[Cluster], experts: Sequence[int] = ()
) -> WhatIf:
    """Price a module for several machines.

    Compute is priced by each device's roofline alone: XLA's estimates are of one device.

    Args:
        name: the module's name.
        graph: its entry.
        targets: the machines.
        experts: experts on each device, where the module's own number is not to be kept.

    Raises:
        OptionError: if `experts` are asked for and the module does not show its own.
    """
    known = experts_of(graph) if experts else None
    rows = tuple(
        _row(graph, target, count, known) for target in targets for count in (experts or (None,))
    )
    return WhatIf(name, graph.devices, rows, tuple(_assumptions(graph, targets, known)))


def _assumptions(
    graph: Graph, targets: Sequence[Cluster], known: ExpertShapes | None
) -> Iterator[str]:
    yield "compute by each device's roofline, exchanges by XLA's tables or links: predicted"
    if any(t.topology.devices != graph.devices for t in targets):
        yield (f"where a target has not {graph.devices} devices: work per device stays, exchanges "
               "of all devices reach all of the target's")  # fmt: skip
    if known is not None:
        yield (f"the module has {known.per_device} experts per device; e/dev shares the same "
               "experts out otherwise: groups of neighbours hold all of them, a device sends as "
               "many bytes to fewer peers, expert weights and updates grow, and their gradients "
               "are summed over the groups")  # fmt: skip


def _row(graph: Graph, target: Cluster, count: int | None, known: ExpertShapes | None) -> Row:
    try:
        step = on_devices(graph, target.topology.devices)
        if count is not None and known is not None:
            step = with_experts(step, count, known)
    except OptionError as error:
        return Row(target.name, count, f"{error.what}; {error.remedy}")
    costs = TargetCosts(target=target, xla_compute=False).for_graph(step)
    simulator = Simulator(step, costs)
    stock = simulator.timeline()
    schedule = ReorderScheduled() if step.scheduled else ScheduleDw()
    after = schedule.plan(step, Context(costs=costs)).after
    assert after is not None
    held = sum(v.bytes for v in step.values if v.op < 0 or step.ops[v.op].kind == "parameter")
    return Row(
        target=target.name, experts=count, step_us=stock.makespan_us, compute_us=stock.compute_us,
        exchange_us=stock.exchange_us, exposed_us=stock.exposed_us,
        bound_us=exposed_bound(simulator.problem), dw_step_us=after.step_us,
        dw_exposed_us=after.exposed_us, memory_bytes=held + stock.peak_bytes,
    )  # fmt: skip


def show_what_if(found: WhatIf, console: Console) -> None:
    """Print a table of machines, in the order that was asked for."""
    console.print(f"{found.module}, made for {found.devices} devices", style="bold")
    known = [row for row in found.rows if not row.error]
    if known:
        console.print(_table(known, any(row.experts is not None for row in found.rows)))
    for row in found.rows:
        if row.error:
            each = f" with {row.experts} experts per device" if row.experts else ""
            console.print(f"no figures for {row.target}{each}: {row.error}")
    console.print("dw: step and exposed time re-ordered; bound: exposed whatever the order")
    for line in found.assumed:
        console.print(f"assumed: {line}")


def _table(rows: Sequence[Row], with_experts: bool) -> Table:
    """Return a table of the machines that there are figures for."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("us", no_wrap=True)
    columns = ("step", "compute", "exch.", "exposed", "bound", "dw", "dw exp.", "GiB")
    for name in (*(("e/dev",) if with_experts else ()), *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.target, *((str(row.experts),) if with_experts else ()), *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    times = (row.step_us, row.compute_us, row.exchange_us, row.exposed_us, row.bound_us,
             row.dw_step_us, row.dw_exposed_us)  # fmt: skip
    return [*(f"{us:,.0f}" for us in times), f"{row.memory_bytes / 2**30:.1f}"]
