"""`lancet-jax opt`: rewrite a module file, by passes or by a saved plan."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hlo_passes.base import AnyModule, Job
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.facts.footprint import parse_limit
from hlo_passes.files import write_atomically
from hlo_passes.ir.opaque import opaque_notes
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import DEFAULT, parse_pipeline, pass_of
from hlo_passes.plans import Plan
from hlo_passes.run import After, Applied, Pipeline, run_pass
from hlo_passes.split_region import SplitRegion
from lancet_jax.cli.files import job_of, print_json, read, working
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
    print_after_all: Json = False,
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
    print_after_all
        Print the module to stderr after every pass, with the seconds that it took.
    json
        Print what was done as JSON; needs --output.
    """
    passes = parse_pipeline(pipeline)
    limit = parse_limit(memory_limit)
    saved = Plan.load(plan) if plan is not None else None
    module, graph, prices = read(file, target, costs, opaque)
    notes = opaque_notes(graph, module.opaque)
    with working("rewriting"):
        if saved is not None:
            module, done = follow(as_planned(module, saved, prices), saved), [saved]
        else:
            module, done, said = rewrite(
                module, passes, prices, limit, _printed if print_after_all else None
            )
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
    module: AnyModule,
    passes: Pipeline,
    costs: TargetCosts,
    memory_limit: int | None,
    after: After | None = None,
) -> tuple[AnyModule, Sequence[Plan], tuple[str, ...]]:
    """Run passes on a module file, partitioned first if need be; return plans and notes too.

    What no pass changes is returned as it was, not even partitioned.

    Args:
        module: what the file holds.
        passes: what to run, in order.
        costs: prices for the target.
        memory_limit: bytes of a device; None for no limit.
        after: called after every pass.
    """
    source = local_source(module, passes.passes, costs)
    first = source.module if source is not None else module
    made, done = passes.run(first, job_of(costs, memory_limit), after=after)
    notes = source.notes if source is not None else ()
    return (module if made is first else made), done, notes


def as_planned(module: AnyModule, plan: Plan, costs: TargetCosts) -> AnyModule:
    """Return the module that a plan was made for: the file's, or that one partitioned first.

    Args:
        module: what the file holds.
        plan: a saved plan.
        costs: prices for the target.
    """
    if not (plan.splits or plan.streams) or plan.module == module.fingerprint:
        return module
    source = local_source(module, (SplitRegion(),), costs)
    return source.module if source is not None else module


def follow(module: AnyModule, plan: Plan) -> AnyModule:
    """Apply a saved plan.

    Raises:
        PlanError: if it was made for another module.
    """
    job = Job(costs=TargetCosts(parse_target(plan.target)))
    return run_pass(pass_of(plan), module, job, plan).module


def _printed(applied: Applied) -> None:
    """Print what a pass left, on stderr."""
    print(f"// after {applied.step.spec} ({applied.seconds:.2f} s)", file=sys.stderr)
    print(module_text(applied.module), file=sys.stderr)


def module_text(module: AnyModule) -> str:
    """Return a module as text, with locations where the format keeps them apart."""
    return module.text(locations=True) if isinstance(module, Module) else module.text
