"""`lancet-jax opt`: rewrite a module file, by passes or by a saved plan."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hlo_passes.base import AnyModule, Pass
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.facts.footprint import parse_limit
from hlo_passes.files import write_atomically
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.opaque import opaque_notes
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pin_order import PinOrder
from hlo_passes.pipelines import DEFAULT, parse_pipeline
from hlo_passes.plans import Plan
from hlo_passes.reorder_scheduled import ReorderScheduled, at_post_scheduler
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.separate_tiers import SeparateTiers
from hlo_passes.split_region import SplitRegion
from hlo_passes.verify import verify_reordering
from lancet_jax.cli.files import context_of, print_json, read, working
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
from lancet_jax.report.reasons import grouped_notes


def opt(
    file: Path,
    *,
    output: Output = None,
    target: TargetOption = None,
    costs: Costs = None,
    opaque: Opaque = (),
    memory_limit: MemoryLimit = None,
    pipeline: PipelineOption = DEFAULT,
    plan: Path | None = None,
    json: Json = False,
) -> None:
    """Rewrite a module file; without --output the module is printed.

    Parameters
    ----------
    file
        Anything that `inspect` reads.
    output
        Where to write the module, as text.
    pipeline
        A preset (off, dw, exchange, lancet, full, best) or passes, as
        schedule-dw,split-region{k=4}; see `lancet-jax passes`.
    plan
        A plan made by `lancet-jax plan` for this very file, to be followed instead.
    json
        Print what was done as JSON; needs --output.
    """
    passes = parse_pipeline(pipeline).passes
    limit = parse_limit(memory_limit)
    saved = Plan.load(plan) if plan is not None else None
    module, graph, prices = read(file, target, costs, opaque)
    notes = opaque_notes(graph, module.opaque)
    with working("rewriting"):
        if saved is not None:
            module, done = follow(as_planned(module, saved, prices), saved), [saved]
        else:
            module, done, said = rewrite(module, passes, prices, limit)
            notes += said
    if output is not None:
        write_atomically(output, module_text(module).encode())
    if output is None and not json:
        print(module_text(module))
        for note in grouped_notes(notes):
            print(note, file=sys.stderr)
    else:
        _tell(module, done, output, notes, json)


def _tell(
    module: AnyModule, done: Sequence[Plan], output: Path | None, notes: Sequence[str], json: bool
) -> None:
    """Say what was done."""
    if json:
        print_json({
            "module": module.name,
            "output": str(output) if output else None,
            "plans": [p.hash for p in done],
            "changed": any(p.changes for p in done),
            "notes": list(notes),
        })  # fmt: skip
    else:
        moved = sum(len(p.moves) for p in done)
        parts = "".join(f", cut into {p.splits[0].k} parts" for p in done if p.splits)
        print(f"wrote {output}: {moved} ops moved beside exchanges{parts}")
        for note in grouped_notes(notes):
            print(note)


def rewrite(
    module: AnyModule, passes: Sequence[Pass], costs: TargetCosts, memory_limit: int | None
) -> tuple[AnyModule, list[Plan], tuple[str, ...]]:
    """Run passes on a module file, partitioned first if need be; return plans and notes too.

    What no pass changes is returned as it was, not even partitioned.

    Args:
        module: what the file holds.
        passes: what to run, in order.
        costs: prices for the target.
        memory_limit: bytes of a device; None for no limit.
    """
    source, done = local_source(module, passes, costs), []
    made = first = source.module if source is not None else module
    for step in passes:
        made, decided = run_pass(made, step, costs, memory_limit)
        done.append(decided)
    return (module if made is first else made), done, source.notes if source is not None else ()


def run_pass(
    module: AnyModule, step: Pass, costs: TargetCosts, memory_limit: int | None = None
) -> tuple[AnyModule, Plan]:
    """Plan and apply one pass, and check what it did.

    Args:
        module: what the pass before left.
        step: the pass.
        costs: prices for the target.
        memory_limit: bytes of a device; None for no limit.
    """
    graph = module.snapshot()
    chosen = at_post_scheduler(step) if isinstance(module, ScheduledModule) else step
    context = context_of(module, costs.for_graph(graph), memory_limit)
    decided = chosen.plan(graph, context)
    verify_reordering(graph, decided.orders)
    made = chosen.apply(module, decided).module
    check_waits(made)
    return made, decided


def check_waits(module: AnyModule) -> None:
    """Check that no exchange of a module can be waited for for ever.

    Raises:
        DeadlockError: if one can.
    """
    is_local = not isinstance(module, Module) or module.is_local
    verify_no_deadlock(module.snapshot(), is_local=is_local)


def as_planned(module: AnyModule, plan: Plan, costs: TargetCosts) -> AnyModule:
    """Return the module that a plan was made for: the file's, or that one partitioned first.

    Args:
        module: what the file holds.
        plan: a saved plan.
        costs: prices for the target.
    """
    if not (plan.splits or plan.domains) or plan.module == module.fingerprint:
        return module
    source = local_source(module, (SplitRegion(),), costs)
    return source.module if source is not None else module


def follow(module: AnyModule, plan: Plan) -> AnyModule:
    """Apply a saved plan.

    Raises:
        PlanError: if it was made for another module.
    """
    plan.check(module.fingerprint)
    verify_reordering(module.snapshot(), plan.orders)
    step: Pass
    if plan.pins:
        step = PinOrder()
    elif plan.domains:
        step = SeparateTiers()
    elif plan.splits:
        step = SplitRegion()
    elif isinstance(module, ScheduledModule):
        step = ReorderScheduled(ScheduleDw())
    else:
        step = ScheduleDw()
    made = step.apply(module, plan).module
    check_waits(made)
    return made


def module_text(module: AnyModule) -> str:
    """Return a module as text, with locations where the format keeps them apart."""
    return module.text(locations=True) if isinstance(module, Module) else module.text
