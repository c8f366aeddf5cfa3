"""`lancet-jax plan`: decide how to hide the exchanges of a module file, and save the decision."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from hlo_passes.base import AnyModule, Pass
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.errors import OptionError
from hlo_passes.facts.footprint import describe_room, footprint_of, parse_limit
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.opaque import opaque_notes
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import DEFAULT, parse_pipeline
from hlo_passes.plans import Plan
from hlo_passes.run import run_pass
from hlo_passes.schedule.timeline import Timeline
from hlo_passes.split.module import cut_module
from hlo_passes.split_pass import ordered_timeline
from lancet_jax.cli.files import job_of, print_json, read, stdout, working
from lancet_jax.cli.local import local_source
from lancet_jax.cli.options import (
    Costs,
    Json,
    MemoryLimit,
    Opaque,
    Output,
    PipelineOption,
    TargetOption,
)
from lancet_jax.report.pareto import show_pareto
from lancet_jax.report.recomputation import with_recomputation
from lancet_jax.report.report import Report
from lancet_jax.report.text import show


def plan(
    file: Path,
    *,
    output: Output = None,
    target: TargetOption = None,
    costs: Costs = None,
    opaque: Opaque = (),
    memory_limit: MemoryLimit = None,
    pareto: Json = False,
    pipeline: PipelineOption = DEFAULT,
    json: Json = False,
) -> None:
    """Plan a module file and show what the plan is predicted to hide.

    Parameters
    ----------
    file
        Anything that `inspect` reads.
    output
        Where to write the plan, as JSON.
    pareto
        Show also what step time costs in memory: the orders and cuts worth having.
    pipeline
        A preset of one pass (off, dw) or a pass, as split-region{k=2} or choose-split; see
        `lancet-jax passes`.
    json
        Print the report as JSON.
    """
    passes = parse_pipeline(pipeline).passes
    limit = parse_limit(memory_limit)
    module, graph, prices = read(file, target, costs, opaque)
    with working("planning"):
        module, notes = partitioned_first(module, passes, prices)
        graph = module.snapshot() if notes else graph
        prices = prices.for_graph(graph)
        decided = decide(module, graph, prices, pipeline, limit)
    if output is not None:
        decided.save(output)
    report = report_of(module, graph, prices, decided, limit)
    report = replace(report, notes=(*report.notes, *notes))
    with working("ordering under limits of memory"):
        points = report.pareto() if pareto else None
    if json:
        front = {} if points is None else {"pareto": [asdict(point) for point in points]}
        print_json(report.to_dict() | front)
        return
    show(report, stdout())
    if points is not None:
        show_pareto(points, stdout())
    if output is not None:
        print(f"wrote {output}")


def partitioned_first(
    module: AnyModule, passes: Sequence[Pass], costs: TargetCosts
) -> tuple[AnyModule, tuple[str, ...]]:
    """Return a module as passes need it, and what was done about that.

    Args:
        module: what the file holds.
        passes: what will be run on it.
        costs: prices for the target.
    """
    source = local_source(module, passes, costs)
    return (module, ()) if source is None else (source.module, source.notes)


def report_of(
    module: AnyModule, graph: Graph, prices: TargetCosts, plan: Plan, limit: int | None
) -> Report:
    """Report on a plan, with notes on what is known and allowed besides.

    Args:
        module: what was planned.
        graph: its picture.
        prices: for the target.
        plan: what was decided.
        limit: bytes of a device; None for no limit.
    """
    cut = rewritten(module, prices, plan, limit)
    report = Report.of_plan(module.name, graph, prices, plan, cut)
    if cut is None:
        report = with_recomputation(report, module)
    notes = [*report.notes, *opaque_notes(graph, module.opaque)]
    if limit is not None:
        notes.append(room_note(module, graph, limit, report))
    return replace(report, notes=tuple(notes))


def room_note(module: AnyModule, graph: Graph, limit: int, report: Report) -> str:
    """Say what a memory limit leaves for temporaries, and what fits.

    Args:
        module: what was planned.
        graph: its picture.
        limit: bytes of a device.
        report: on the plan.
    """
    if isinstance(module, Module) and not module.is_local:
        return "the memory limit does not count: XLA has not partitioned this step yet"
    peaks = report.before.peak_bytes, report.after.peak_bytes
    return describe_room(footprint_of(graph), limit, *peaks)


def rewritten(
    module: AnyModule, costs: TargetCosts, plan: Plan, memory_limit: int | None = None
) -> tuple[Graph, Timeline] | None:
    """Return the step that a plan cuts, and its predicted timeline; None if it cuts nothing.

    Args:
        module: what was planned.
        costs: prices for the target.
        plan: what was decided.
        memory_limit: bytes of a device; None for no limit.
    """
    if not plan.splits or not isinstance(module, Module):
        return None
    cut = cut_module(module, plan.splits).snapshot()
    return cut, ordered_timeline(cut, job_of(costs, memory_limit).context(module, cut))


def decide(
    module: AnyModule,
    graph: Graph,
    costs: TargetCosts,
    pipeline: str,
    memory_limit: int | None = None,
) -> Plan:
    """Run the one pass of `pipeline` that plans a module as it stands in a file.

    Args:
        module: what the file holds, partitioned if need be.
        graph: its picture.
        costs: prices for the target.
        pipeline: the pass, as text.
        memory_limit: bytes of a device; None for no limit.

    Raises:
        OptionError: if the pipeline has several passes: each sees what the one before left, so
            their plans are made by `opt`, not for one file.
    """
    passes = parse_pipeline(pipeline).passes
    if len(passes) > 1:
        raise OptionError(f"pipeline {pipeline!r}", "a plan is of one pass",
                          "plan one pass, or run them all with `lancet-jax opt`")  # fmt: skip
    if not passes:
        return Plan(module=module.fingerprint, target=costs.name)
    return run_pass(passes[0], module, job_of(costs, memory_limit)).plan
