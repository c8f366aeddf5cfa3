"""Tries rewritten modules against each other by simulating the whole step."""

from collections.abc import Sequence
from dataclasses import dataclass

from hlo_passes.base import Context
from hlo_passes.errors import PlanError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module
from hlo_passes.plan.list_schedule import list_order
from hlo_passes.plan.plan import Plan, Refusal, Split
from hlo_passes.plan.simulate import Simulator
from hlo_passes.plan.timeline import Timeline, prediction_of

_WORTH = 1e-3
"""A gain below this share of the step does not pay for another program."""


@dataclass(frozen=True)
class Trial:
    """A module that is cut, and how."""

    splits: tuple[Split, ...]
    module: Module

    @property
    def name(self) -> str:
        """How many parts, and of how many stretches if they differ: `k=4`, `k=2,4`."""
        return f"k={','.join(map(str, sorted({split.k for split in self.splits})))}"


def module_of(context: Context, spec: str) -> Module:
    """Return the module to try edits on.

    Raises:
        PlanError: if the context has none, as for scheduled HLO.
    """
    if context.module is None:
        raise PlanError(spec, "only StableHLO can be cut, not a schedule",
                        "pass the module before XLA: lower(...).as_text()")  # fmt: skip
    return context.module


def ordered_timeline(graph: Graph, context: Context) -> Timeline:
    """Simulate a step in the best order that a list scheduler finds for it."""
    costs = context.costs.for_graph(graph)
    simulator = Simulator(graph, costs)
    if not simulator.problem.exchanges:
        return simulator.timeline()
    order = list_order(simulator.problem, contention=costs.contention)
    listed, stock = simulator.timeline(order), simulator.timeline()
    return min(stock, listed, key=lambda timeline: timeline.makespan_us)


def best_trial(
    graph: Graph,
    context: Context,
    trials: Sequence[Trial],
    *,
    forced: bool,
    memory_limit: int | None,
) -> Plan:
    """Return the plan for the module that makes the shortest step.

    Args:
        graph: of the module as it is.
        context: prices.
        trials: the cut modules.
        forced: whether one of them has to win, even over the module as it is.
        memory_limit: bytes that the winner may need.
    """
    before = ordered_timeline(graph, context)
    best, after = None, before
    refusals, race = [], {}
    for trial in trials:
        timeline = ordered_timeline(trial.module.snapshot(), context)
        race[trial.name] = prediction_of(timeline)
        if memory_limit is not None and timeline.peak_bytes > memory_limit:
            reason = f"{trial.name} needs {timeline.peak_bytes} bytes of {memory_limit}"
            refusals.append(Refusal(op=graph.name, reason=reason))
        elif (forced and best is None) or timeline.makespan_us < after.makespan_us * (1 - _WORTH):
            best, after = trial, timeline
    if trials and best is None:
        refusals.append(Refusal(op=graph.name, reason="no cut makes the step shorter"))
    return Plan(
        module=context.fingerprint,
        target=context.costs.name,
        strategy=best.name if best else "stock",
        splits=best.splits if best else (),
        race=race,
        refusals=tuple(refusals),
        before=prediction_of(before),
        after=prediction_of(after),
    )
