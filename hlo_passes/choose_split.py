"""Lets all ways to cut a step compete, and takes the one whose whole step is shortest.

Contract
    Plans every splitting pass, simulates the step that each gives in the best order that a list
    scheduler finds, and follows the shortest. A step that none makes shorter stays whole.

Before and after
    As the winner's: `split-exchange`, or `split-region` forward only (the paper's) or both ways.

Steps
    1. Simulate the step as it is, in program order (`off`) and ordered (`dw`).
    2. Plan `unroll-loops`, `split-exchange`, `split-region{direction=forward}` and `split-region`.
    3. Take the shortest; on a tie the one that changes less.

Numerics
    REASSOCIATES, as the winner.

Limits
    The race is run on StableHLO, before XLA fuses: what it predicts is not what XLA will make.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import ClassVar, Literal

from msgspec.structs import replace

from hlo_passes.base import Context
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Plan, Prediction, Refusal
from hlo_passes.schedule.simulate import simulate
from hlo_passes.schedule.timeline import Timeline, prediction_of
from hlo_passes.split_exchange import SplitExchange
from hlo_passes.split_pass import CLOSE, NO_GAIN, NO_ROOM, SplitPass, ordered_timeline, worth_of
from hlo_passes.split_region import SplitRegion
from hlo_passes.unroll_loops import UnrollLoops

_SHORTER = "is taken: what is shorter gains too little, or does not fit"


@dataclass(frozen=True)
class ChooseSplit(SplitPass):
    """Cut a step in the way that makes it shortest, or not at all.

    Attributes:
        rho: most parts.
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
        memory_slack: share by which that may grow over the uncut step's; none for any. The default
            counts where predictions decide and no number of parts is given: where XLA's own
            modules decide, the device's memory does.
        way: the one way to cut that runs, or `all`.
    """

    way: Literal["all", "loops", "exchange", "lancet", "full"] = "all"

    answers: ClassVar[frozenset[str]] = frozenset({"cut", "number of trips at once"})

    @property
    def ways(self) -> dict[str, SplitPass]:
        """The ways to cut, by name."""
        rho, limit = self.rho, self.memory_limit
        ways: dict[str, SplitPass] = {
            "loops": UnrollLoops(rho=rho, memory_limit=limit),
            "exchange": SplitExchange(rho=rho, memory_limit=limit),
            "lancet": SplitRegion(direction="forward", rho=rho, memory_limit=limit),
            "full": SplitRegion(rho=rho, memory_limit=limit),
        }
        return ways if self.way == "all" else {self.way: ways[self.way]}

    def smaller(self, plan: Plan) -> "ChooseSplit | None":
        """Return the race of fewer parts, of the way that a plan cuts; None if there is none."""
        fewer = super().smaller(plan)
        way = plan.strategy.partition(" ")[0]
        return None if fewer is None else replace_fields(self, rho=fewer.rho, way=way)

    def rivals(self, graph: Graph, context: Context) -> Iterator[Plan]:
        """Yield the best cut of every way to cut, as predicted.

        Args:
            graph: what is planned on.
            context: what it may know besides.
        """
        before = ordered_timeline(graph, context)
        # What XLA takes longest to compile comes before what takes longest to plan.
        for name in sorted(self.ways, key=("loops", "exchange", "full", "lancet").index):
            for plan in self.ways[name].rivals_of(graph, context, before):
                yield replace(plan, passes=(self.spec,), strategy=f"{name} {plan.strategy}")

    def decide(self, graph: Graph, context: Context, before: Timeline) -> Plan:
        """Run the race; those that cannot cut are left out."""
        plans = {name: p.decide(graph, context, before) for name, p in self.ways.items()}
        stock = prediction_of(simulate(graph, context.costs.for_graph(graph)))
        race = {"off": stock, "dw": prediction_of(before)} | _results(plans)
        cut = [name for name, plan in plans.items() if plan.splits]
        room = self.limit(graph, context)
        fits = room is None or before.peak_bytes <= room
        runners = cut if cut and not fits else ["off", "dw", *cut]
        worth = worth_of(context)
        winner = min(runners, key=lambda n: race[n].step_us * (1 + worth * (n in cut)))
        chosen = plans.get(winner)
        shortest_us = min(race[name].step_us for name in runners)
        return Plan(
            module=context.fingerprint,
            target=context.costs.name,
            passes=(self.spec,),
            strategy=winner if chosen is None else f"{winner} {chosen.strategy}",
            edits=chosen.edits if chosen else (),
            race=race,
            because="" if chosen is None else _because(fits, race[winner].step_us, shortest_us),
            refusals=_refusals(plans, chosen),
            before=stock,
            after=race[winner],
        )


def _results(plans: Mapping[str, Plan]) -> dict[str, Prediction]:
    """Return what every way to cut gives, also one that is not worth it; nothing where none is."""
    found = {}
    for name, plan in plans.items():
        if plan.splits and plan.after is not None:
            found[name] = plan.after
        elif plan.race:
            found[name] = min(plan.race.values(), key=lambda result: result.step_us)
    return found


def _refusals(plans: Mapping[str, Plan], chosen: Plan | None) -> tuple[Refusal, ...]:
    """Return what is left alone, each once; that a way gains nothing counts only if none does."""
    told = {r: None for plan in plans.values() for r in plan.refusals}
    return tuple(r for r in told if chosen is None or not r.reason.startswith(NO_GAIN))


def _because(fits: bool, winner_us: float, shortest_us: float) -> str:
    """Return why a cut was chosen, where that is not that it is shortest."""
    if not fits:
        return NO_ROOM
    return CLOSE if winner_us > shortest_us else ""


def describe_race(plan: Plan) -> str:
    """Say in one line who ran, and which was taken: a winner is one that is predicted shortest."""
    race = dict(plan.race)
    if plan.before is not None and "off" not in race and plan.before not in race.values():
        race = {"uncut": plan.before} | race
    steps = ", ".join(f"{name} {result.step_us:,.0f} us" for name, result in race.items())
    taken = "uncut" if plan.strategy == "stock" else plan.strategy
    best = min((result.step_us for result in race.values()), default=0.0)
    is_best = plan.after is not None and plan.after.step_us <= best
    why = plan.because or ("wins" if is_best else _SHORTER)
    return f"predicted steps: {steps}; {taken} {why}"
