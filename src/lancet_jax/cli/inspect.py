"""`lancet-jax inspect`: what a module exchanges, what stays exposed, and who could hide it."""

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from hlo_passes.analysis.reach import Reach
from hlo_passes.analysis.roles import phases_of, roles_of
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.ir.graph import Graph
from hlo_passes.plan.bound import exposed_bound
from hlo_passes.plan.problem import Lane, Problem
from hlo_passes.plan.simulate import Simulator
from hlo_passes.plan.timeline import Timeline
from lancet_jax.cli.files import Json, print_json, read, stdout, working


def inspect(
    file: Path, *, target: str | None = None, costs: Path | None = None, json: Json = False
) -> None:
    """Show the exchanges of a module file: bytes, time, exposed time, and what could hide them.

    Parameters
    ----------
    file
        StableHLO text or bytecode, HLO text (scheduled or not) or .hlo.pb.
    target
        What to price for, as h100:1x8; by default as many H100 as the module has devices.
    costs
        Times measured by `lancet-jax calibrate`; their devices are then the default target.
    json
        Print JSON instead of tables.
    """
    module, graph, prices = read(file, target, costs)
    with working("pricing"):
        facts = facts_of(module.name, graph, prices)
    if json:
        print_json(facts)
    else:
        _show(facts)


def facts_of(name: str, graph: Graph, costs: TargetCosts) -> dict[str, Any]:
    """Collect what `inspect` prints, times in us."""
    simulator = Simulator(graph, costs)
    timeline, problem = simulator.timeline(), simulator.problem
    roles, times = roles_of(graph), {}
    for slot in timeline.slots:
        if slot.lane == "compute":
            times[str(roles[slot.op])] = times.get(str(roles[slot.op]), 0.0) + slot.us
    return {
        "module": name,
        "target": costs.name,
        "scheduled": graph.scheduled,
        "devices": graph.devices,
        "ops": graph.size,
        "step_us": timeline.makespan_us,
        "compute_us": timeline.compute_us,
        "exchange_us": timeline.exchange_us,
        "exposed_us": timeline.exposed_us,
        "bound_exposed_us": exposed_bound(problem),
        "peak_bytes": timeline.peak_bytes,
        "roles_us": times,
        "exchanges": list(_exchanges(graph, problem, timeline)),
    }


def _exchanges(graph: Graph, problem: Problem, timeline: Timeline) -> list[dict[str, Any]]:
    """Describe every exchange, and the compute that neither needs it nor feeds it."""
    reach, top = Reach.of(graph), {w.key: w for w in timeline.windows}
    found = []
    labels = {
        g.ops[op].key: str(phase) for g, _ in graph.walk() for op, phase in phases_of(g).items()
    }
    able = {graph.ops[e].key: _could_hide(problem, reach, e) for e in graph.exchanges}
    for window in sorted(top.values(), key=lambda w: w.start_us):
        op = graph.ops[window.op] if window.key in able else None
        found.append({
            "op": window.key,
            "kind": window.kind,
            "phase": labels.get(window.key, "other"),
            "bytes": window.bytes,
            "us": window.us,
            "source": str(window.source),
            "exposed_us": window.exposed_us,
            "times": window.times,
            "could_hide_us": able.get(window.key),
            "line": op.source if op else "",
        })  # fmt: skip
    return found


def _could_hide(problem: Problem, reach: Reach, exchange: int) -> float:
    """Sum of compute that may run beside an exchange, as far as dependence goes."""
    return sum(
        us
        for op, (us, lane) in enumerate(zip(problem.us, problem.lane, strict=True))
        if lane is Lane.COMPUTE and reach.may_overlap(op, exchange)
    )


def _show(facts: dict[str, Any]) -> None:
    console = stdout()
    state = "scheduled HLO" if facts["scheduled"] else "not scheduled: program order"
    console.print(f"{facts['module']}: {facts['ops']:,} ops, {facts['devices']} devices, {state}; "
                  f"priced for {facts['target']}", style="bold")  # fmt: skip
    console.print(
        f"step {facts['step_us']:,.0f} us, compute {facts['compute_us']:,.0f}, exchanges "
        f"{facts['exchange_us']:,.0f}, exposed {facts['exposed_us']:,.0f} (predicted); whatever "
        f"the order, {facts['bound_exposed_us']:,.0f} us stay exposed"
    )
    if not facts["exchanges"]:
        console.print("no exchange found: an auto-sharded step has none before XLA partitions it; "
                      "inspect the HLO after optimizations instead")  # fmt: skip
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("exchange", "MiB", "us", "cost", "exposed", "could hide"):
        table.add_column(name, justify="left" if name in ("exchange", "cost") else "right",
                         no_wrap=True)  # fmt: skip
    table.add_column("line", ratio=1, no_wrap=True, overflow="ellipsis")
    for e in facts["exchanges"]:
        could = "in loop" if e["could_hide_us"] is None else f"{e['could_hide_us']:,.0f}"
        times = f" x{e['times']}" if e["times"] > 1 else ""
        table.add_row(f"{e['kind']} {e['phase']}{times}", f"{e['bytes'] / 2**20:,.2f}",
                      f"{e['us']:,.0f}", e["source"], f"{e['exposed_us']:,.0f}", could,
                      e["line"].rpartition("/")[2])  # fmt: skip
    console.print(table)
    console.print("compute by role: " + ", ".join(
        f"{role} {us:,.0f}" for role, us in sorted(facts["roles_us"].items(), key=lambda r: -r[1])
    ))  # fmt: skip
