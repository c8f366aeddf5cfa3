"""Runs passes on a step's StableHLO, and says what they did."""

from collections.abc import Iterator, Sequence

from hlo_passes.base import Context, Pass
from hlo_passes.choose_split import describe_race
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan


def run_on_stablehlo(
    module: Module,
    passes: Sequence[Pass],
    costs: TargetCosts,
    *,
    ragged: bool = False,
    made: Sequence[Plan] | None = None,
    memory_limit: int | None = None,
    checked: bool = False,
) -> tuple[Module, tuple[Plan, ...]]:
    """Run passes on StableHLO, each on what the one before left.

    Args:
        module: what to rewrite.
        passes: in order.
        costs: prices for the target.
        ragged: whether the backend has ragged exchanges.
        made: plans of all passes, where another process has made them.
        memory_limit: bytes of a device for all that the step holds. It does not count for a step
            that XLA has yet to partition: what one device will hold of it is not known.
        checked: whether a cut step will be held against the uncut one.

    Returns:
        The rewritten module and the plan of every pass.

    Raises:
        PlanError: if a plan was made for another module.
        DeadlockError: if an exchange of the step could be waited for for ever.
    """
    plans: list[Plan] = []
    for step in passes:
        if made is not None:
            plans.append(made[len(plans)])
        else:
            graph = module.snapshot()
            verify_no_deadlock(graph, is_local=module.is_local)
            context = Context(
                costs=costs.for_graph(graph),
                fingerprint=module.fingerprint,
                module=module,
                ragged=ragged,
                memory_limit=memory_limit if module.is_local else None,
                checked=checked,
            )
            plans.append(step.plan(graph, context))
        result = step.apply(module, plans[-1])
        assert isinstance(result.module, Module)
        module = result.module
        if result.changed:
            verify_no_deadlock(module.snapshot(), is_local=module.is_local)
    return module, tuple(plans)


def notes_of(plan: Plan) -> Iterator[str]:
    """Say what a splitting pass did, and what it left whole."""
    if plan.race:
        yield describe_race(plan)
    if plan.splits:
        rows = sum(len(split.indexed) for split in plan.splits)
        first = f"; one-hot products beside {rows} all-to-alls became rows first" if rows else ""
        yield f"{', '.join(plan.passes)}: cut into {plan.splits[0].k} parts{first}"
    if not plan.orders and not plan.pins:
        for refusal in plan.refusals:
            yield f"{refusal.op} {refusal.reason} {refusal.source}".strip()
