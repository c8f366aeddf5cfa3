"""`lancet-jax view`: a step as a page to look at, or in the format of another viewer."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hlo_passes.base import AnyModule
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.files import write_atomically
from hlo_passes.ir.graph import Graph
from hlo_passes.pipelines import DEFAULT, parse_pipeline
from hlo_passes.plans import Plan
from hlo_passes.run import run_pass
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.split_pass import ordered
from lancet_jax.cli.files import job_of, print_json, read, working
from lancet_jax.cli.opt import follow
from lancet_jax.cli.options import Costs, Json, Opaque, PipelineOption, TargetOption
from lancet_jax.report.export import check_names, export
from lancet_jax.report.report import Report, pieces_of


def view(
    file: Path,
    *,
    output: Annotated[tuple[Path, ...], Parameter(name=["--output", "-o"])],
    target: TargetOption = None,
    costs: Costs = None,
    opaque: Opaque = (),
    pipeline: PipelineOption = DEFAULT,
    plan: Path | None = None,
    json: Json = False,
) -> None:
    """Draw the step of a module file before and after its plan.

    Parameters
    ----------
    file
        Anything that `inspect` reads.
    output
        What to write; may be given several times. The ending says what it is: .html a page of its
        own, .svg, .png or .pdf a figure, .perfetto.json a trace for ui.perfetto.dev, .me.json a
        graph for Model Explorer with node data beside it, .dot a graph for Graphviz.
    pipeline
        A preset (off, dw, exchange, lancet, full, best) or passes; off draws the step as it is.
    plan
        A plan made by `lancet-jax plan` for this very file, to be drawn instead.
    json
        Print the names of the files and the report as JSON.
    """
    check_names(output)
    parse_pipeline(pipeline)
    saved = Plan.load(plan) if plan is not None else None
    module, graph, prices = read(file, target, costs, opaque)
    with working("planning"):
        if saved is not None:
            report = of_saved(module, graph, prices, saved)
        else:
            report = of_pipeline(module, graph, prices, pipeline)
    with working("drawing"):
        written = {name: data for path in output for name, data in export(report, path).items()}
    for name, data in written.items():
        write_atomically(name, data)
    if json:
        print_json({"wrote": [str(name) for name in written], "report": report.to_dict()})
    else:
        print("\n".join(f"wrote {name}" for name in written))


def of_pipeline(module: AnyModule, graph: Graph, costs: TargetCosts, pipeline: str) -> Report:
    """Run the passes one after another, and report on the step that the last one leaves.

    Args:
        module: what the file holds.
        graph: its picture.
        costs: prices for the target.
        pipeline: preset or passes.
    """
    stock = final = Simulator(graph, costs)
    plans, pieces = [], frozenset[str]()
    for step in parse_pipeline(pipeline).passes:
        seen = module.snapshot() if plans else graph
        applied = run_pass(step, module, job_of(costs))
        module, decided = applied.module, applied.plan
        final = left_by(decided, seen, module, costs)
        pieces |= pieces_of(seen, decided.splits)
        plans.append(decided)
    nothing = Plan(module=module.fingerprint, target=costs.name)
    return Report.of_steps(module.name, stock, final, plans or [nothing], pieces)


def of_saved(module: AnyModule, graph: Graph, costs: TargetCosts, plan: Plan) -> Report:
    """Report on the step that follows a saved plan.

    Args:
        module: what the file holds.
        graph: its picture.
        costs: prices for the target.
        plan: what was decided for it.

    Raises:
        PlanError: if it was made for another module.
    """
    final = left_by(plan, graph, follow(module, plan), costs)
    pieces = pieces_of(graph, plan.splits)
    return Report.of_steps(module.name, Simulator(graph, costs), final, [plan], pieces)


def left_by(plan: Plan, seen: Graph, module: AnyModule, costs: TargetCosts) -> Simulator:
    """Return the step that a plan leaves, with the order in which it is predicted to run.

    Args:
        plan: what was decided.
        seen: the step that it was decided for. A new order is an order of its ops: their keys,
            which count ops of one scope in program order, stay those that the plan speaks of.
        module: the module that follows the plan.
        costs: prices for the target.
    """
    if not plan.changes or not (plan.splits or plan.pins):
        return Simulator(seen, costs.for_graph(seen), plan.orders)
    graph = module.snapshot()
    if plan.splits:
        return ordered(graph, job_of(costs).context(module, graph))[0]
    return Simulator(graph, costs.for_graph(graph))
