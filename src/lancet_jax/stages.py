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
from lancet_jax.compile.before_xla import run_on_stablehlo
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.partition import Source, partition_of, source_of
from lancet_jax.compile.rewriter import StepRewriter, is_disabled
from lancet_jax.report.recomputation import with_recomputation
from lancet_jax.report.report import Report, pieces_of
from lancet_jax.seams import compiling, programs


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
        return self._source.module

    @cached_property
    def _source(self) -> Source:
        module = Module.copy_of(programs.module_of(self._lowered), opaque=self._rewriter.opaque)
        if is_disabled():
            return Source(module)
        passes, devices = self._rewriter.passes.passes, programs.devices_of(self._lowered)
        return source_of(module, passes, len(devices), lambda: partition_of(self._lowered))

    @cached_property
    def costs(self) -> TargetCosts:
        """Prices for the target, or for the devices of the step's arguments."""
        costs = self._rewriter.costs(programs.devices_of(self._lowered))
        return costs.for_graph(self._graph)

    @cached_property
    def _planned(self) -> tuple[Module, tuple[Plan, ...]]:
        """The step's StableHLO as the passes leave it, and the plan of each."""
        devices = programs.devices_of(self._lowered)
        ragged = devices[0].platform == "gpu"
        passes = self._rewriter.passes.passes
        return run_on_stablehlo(
            self.module, passes, self.costs, ragged=ragged,
            memory_limit=self._rewriter.memory_limit, checked=self._rewriter.checks(devices),
        )  # fmt: skip

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
        notes = self._source.notes
        if not self.plan.splits:
            report = Report.of_plan(self.module.name, self._graph, self.costs, self.plan)
            report = with_recomputation(report, self.module)
            return replace(report, notes=(*report.notes, *notes))
        cut = self._planned[0].snapshot()
        stock = Simulator(self._graph, self.costs)
        final = Simulator(cut, self.costs.for_graph(cut))
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
            return Compiled(fresh.compile(compiler_options, **kwargs), self, Outcome())
        rewriter = replace(self._rewriter, outcomes=[])
        with compiling.rewriting(rewriter):
            compiled = fresh.compile(compiler_options, **kwargs)
        outcome = rewriter.outcomes[-1] if rewriter.outcomes else Outcome()
        return Compiled(compiled, self, outcome)

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
        outcome: what was planned and done while XLA compiled it.
    """

    def __init__(self, compiled: jax.stages.Compiled, lowered: Lowered, outcome: Outcome) -> None:
        self._compiled = compiled
        self._lowered = lowered
        self._executable = compiled.runtime_executable()
        self.outcome = outcome

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step. The first call of a cut one may put the uncut program in its place."""
        results = self._compiled(*args, **kwargs)
        if self._compiled.runtime_executable() is not self._executable:
            self._executable = self._compiled.runtime_executable()
            vars(self).pop("scheduled", None)
            vars(self).pop("costs", None)
        return results

    @property
    def plan(self) -> Plan | None:
        """What was decided on the schedule that XLA made; None if nothing was planned."""
        return self.outcome.plan

    @cached_property
    def scheduled(self) -> ScheduledModule:
        """The program that will run, as XLA left it."""
        devices = len(programs.devices_of(self._lowered._lowered))
        text, opaque = programs.final_hlo(self._compiled), self._lowered._rewriter.opaque
        return ScheduledModule(text, devices=devices, opaque=opaque)

    def as_text(self) -> str:
        """Return the final HLO, in the order in which it runs."""
        return self.scheduled.text

    @cached_property
    def costs(self) -> TargetCosts:
        """Prices of the program that will run: XLA's own where it has them."""
        return self._lowered.costs.for_graph(self.scheduled.snapshot())

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
