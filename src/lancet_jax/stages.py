"""JAX's stages with two more questions: what was planned, and what came of it.

`Lowered` and `Compiled` have the silhouette of `jax.stages`; what they do not define themselves
they pass on to JAX's own.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

import jax

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan
from hlo_passes.schedule.drift import Drift, drift_of
from hlo_passes.schedule.simulate import Simulator, simulate
from hlo_passes.schedule.timeline import Timeline
from hlo_passes.split_pass import ordered
from lancet_jax.compile.before_xla import Prepared, untouched
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.job import StepJob
from lancet_jax.compile.outcome import Outcome, Outcomes
from lancet_jax.compile.partition import partition_of
from lancet_jax.compile.rewriter import StepRewriter, is_disabled
from lancet_jax.report.recomputation import with_recomputation
from lancet_jax.report.report import Report, pieces_of
from lancet_jax.seams import compiling, programs
from lancet_jax.seams.step_module import name_of


class Lowered:
    """A step lowered for its arguments, and the plan for it.

    Args:
        lowered: what `jax.jit(...).lower(...)` returned.
        rewriter: the passes and target that it was lowered for.
    """

    def __init__(self, lowered: Any, rewriter: StepRewriter) -> None:
        self._wrapped = lowered
        self._lowered = programs.jax_lowered(lowered)
        self._rewriter = rewriter

    @cached_property
    def module(self) -> Module:
        """The step's StableHLO as it is planned on: a copy, with calls inlined, and partitioned
        first if it is to be cut and XLA would partition it.
        """
        return self._prepared.source.module

    @cached_property
    def _job(self) -> StepJob:
        devices, module = programs.devices_of(self._lowered), programs.module_of(self._lowered)
        return StepJob.of(self._rewriter.options, module, devices)

    @cached_property
    def _prepared(self) -> Prepared:
        """The step as the passes before XLA leave it: what `compile` goes on with."""
        if is_disabled():
            return untouched(self._job)
        clock = Clock(name_of(self._job.module))
        return self._rewriter.prepared(self._job, lambda: partition_of(self._lowered), clock)

    @cached_property
    def costs(self) -> TargetCosts:
        """Prices for the target, or for the devices of the step's arguments."""
        return self._job.costs.for_graph(self._graph)

    @cached_property
    def _planned(self) -> tuple[Module, tuple[Plan, ...]]:
        """The step's StableHLO as the passes are predicted to leave it, and the plan of each."""
        likeliest = self._prepared.likeliest
        if is_disabled():
            return likeliest.module, ()
        behind, job = self._job.behind_scheduler, self._job.for_passes()
        made, orders = behind.run(likeliest.module, job)
        assert isinstance(made, Module)
        return made, (*likeliest.plans, *orders)

    @property
    def plan(self) -> Plan:
        """What the passes decide on the step's StableHLO: how it is cut, or else ordered.

        XLA fuses and partitions before it schedules; `Compiled.plan` is what was decided then.
        """
        _, plans = self._planned
        nothing = Plan(module=self.module.fingerprint, target=self.costs.name)
        return next((plan for plan in reversed(plans) if plan.splits), (nothing, *plans)[-1])

    def report(self) -> Report:
        """Return what the plan is predicted to hide, and what not, and why."""
        notes = self._prepared.source.notes
        if not self.plan.splits:
            report = Report.of_plan(self.module.name, self._graph, self.costs, self.plan)
            report = with_recomputation(report, self.module)
            return replace(report, notes=(*report.notes, *notes))
        made = self._planned[0]
        cut = made.snapshot()
        stock = Simulator(self._graph, self.costs)
        final, _ = ordered(cut, self._job.for_passes().context(made, cut))
        pieces = pieces_of(self._graph, self.plan.splits)
        report = Report.of_steps(self.module.name, stock, final, (self.plan,), pieces)
        return replace(report, notes=(*report.notes, *notes))

    def as_text(self, dialect: str | None = None, **kwargs: Any) -> str:
        """Return the step's program, as `jax.stages.Lowered.as_text` does."""
        return self._lowered.as_text(dialect, **kwargs)

    def compile(self, compiler_options: dict[str, Any] | None = None, **kwargs: Any) -> "Compiled":
        """Compile for the devices of the step's arguments.

        Args:
            compiler_options: XLA options; they win over those that lancet-jax adds.
            **kwargs: passed on to JAX.
        """
        fresh = programs.uncached(self._lowered)
        if is_disabled():
            return Compiled(fresh.compile(compiler_options, **kwargs), self, Outcomes())
        rewriter = replace(self._rewriter, outcomes=Outcomes())
        with compiling.rewriting(rewriter):
            compiled = fresh.compile(compiler_options, **kwargs)
        return Compiled(compiled, self, rewriter.outcomes)

    @cached_property
    def _graph(self) -> Any:
        return self.module.snapshot()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._lowered, name)


class Compiled:
    """A step that is ready to run, and what became of its plan.

    Args:
        compiled: JAX's own Compiled.
        lowered: where it came from.
        outcomes: what was planned and done while XLA compiled it.
    """

    def __init__(self, compiled: jax.stages.Compiled, lowered: Lowered, outcomes: Outcomes) -> None:
        self._compiled = compiled
        self._lowered = lowered
        self._executable = compiled.runtime_executable()
        self._outcomes = outcomes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step. The first call of a cut one may put the uncut program in its place."""
        results = self._compiled(*args, **kwargs)
        if self._compiled.runtime_executable() is not self._executable:
            self._executable = self._compiled.runtime_executable()
            vars(self).pop("scheduled", None)
            vars(self).pop("costs", None)
        return results

    @property
    def outcome(self) -> Outcome:
        """What was planned and done while XLA compiled it, and at its first call."""
        return self._outcomes[-1] if len(self._outcomes) else Outcome()

    @property
    def plan(self) -> Plan | None:
        """What was decided on the schedule that XLA made; None if nothing was planned."""
        return self.outcome.plan

    @cached_property
    def scheduled(self) -> ScheduledModule:
        """The program that will run, as XLA left it."""
        devices = len(programs.devices_of(self._lowered._lowered))
        text, opaque = programs.final_hlo(self._compiled), self._lowered._rewriter.options.exchanges
        return ScheduledModule(text, devices=devices, opaque=opaque)

    def as_text(self) -> str:
        """Return the final HLO, in the order in which it runs."""
        return self.scheduled.text

    @cached_property
    def costs(self) -> TargetCosts:
        """Prices of the program that will run: XLA's own where it has them."""
        return self._lowered._job.costs.for_graph(self.scheduled.snapshot())

    def schedule(self) -> Timeline:
        """Return the timeline of the final schedule: XLA's order, priced by XLA where it can."""
        return simulate(self.scheduled.snapshot(), self.costs, source="compiled")

    def drift(self) -> Drift:
        """Return how far the final schedule is from the planned one."""
        final = {
            name: tuple(ins.name for ins in computation.instructions)
            for name, computation in self.scheduled.parsed.computations.items()
        }
        return drift_of(self.outcome.planned, final)

    def report(self) -> Report:
        """Return what was hidden, what stayed exposed, and why."""
        return with_recomputation(Report.of_compiled(self), self.scheduled)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._compiled, name)
