"""Lets all ways to cut a step compete, and takes the one whose whole step is shortest.

Contract
    Plans every splitting pass, simulates the step that each gives in the best order that a list
    scheduler finds, and follows the shortest. A step that none makes shorter stays whole.

Before and after
    As the winner's: `split-exchange`, or `split-region` forward only (the paper's) or both ways.

Steps
    1. Simulate the step as it is, in program order (`off`) and ordered (`dw`).
    2. Plan `split-exchange`, `split-region{direction=forward}` and `split-region`.
    3. Take the shortest; on a tie the one that changes less.

Numerics
    REASSOCIATES, as the winner.

Limits
    The race is run on StableHLO, before XLA fuses: what it predicts is not what XLA will make.
"""

from dataclasses import dataclass
from typing import ClassVar

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module
from hlo_passes.plan.plan import Plan, Prediction
from hlo_passes.plan.simulate import simulate
from hlo_passes.plan.timeline import prediction_of
from hlo_passes.rewrite.region import cut_module
from hlo_passes.split_exchange import SplitExchange
from hlo_passes.split_region import SplitRegion


@dataclass(frozen=True)
class ChooseSplit(Pass):
    """Cut a step in the way that makes it shortest, or not at all.

    Attributes:
        rho: most parts.
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
    """

    tier: ClassVar[Tier] = Tier.REASSOCIATES

    rho: int = 8
    memory_limit: int | None = None

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Run the race.

        Raises:
            OptionError: if rho is below 2.
        """
        limits = {"rho": self.rho, "memory_limit": self.memory_limit}
        plans = {
            "exchange": SplitExchange(**limits).plan(graph, context),
            "lancet": SplitRegion(direction="forward", **limits).plan(graph, context),
            "full": SplitRegion(**limits).plan(graph, context),
        }
        race = _race(graph, context, plans)
        runners = [name for name in race if name not in plans or plans[name].splits]
        winner = min(runners, key=lambda name: race[name].step_us)
        chosen = plans.get(winner)
        refusals = {r: None for plan in plans.values() for r in plan.refusals}
        return Plan(
            module=context.fingerprint,
            target=context.costs.name,
            passes=(self.spec,),
            strategy=winner if chosen is None else f"{winner} {chosen.strategy}",
            splits=chosen.splits if chosen else (),
            race=race,
            refusals=tuple(refusals),
            before=race["off"],
            after=race[winner],
        )

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Cut the module as planned.

        Raises:
            PlanError: if the plan is another module's.
        """
        plan.check(module.fingerprint)
        if not plan.splits:
            return PassResult(module, False)
        assert isinstance(module, Module)
        return PassResult(cut_module(module, plan.splits), True)


def _race(graph: Graph, context: Context, plans: dict[str, Plan]) -> dict[str, Prediction]:
    """Return what every pipeline is predicted to give; those that cannot cut are left out."""
    costs = context.costs.for_graph(graph)
    race = {"off": prediction_of(simulate(graph, costs))}
    ordered = plans["full"].before
    assert ordered is not None
    race["dw"] = ordered
    for name, plan in plans.items():
        if plan.race:
            race[name] = min(plan.race.values(), key=lambda result: result.step_us)
    return race


def describe_race(plan: Plan) -> str:
    """Say in one line who ran, and who won."""
    steps = ", ".join(f"{name} {result.step_us:,.0f} us" for name, result in plan.race.items())
    return f"predicted steps: {steps}; {plan.strategy} wins"
