"""The one runner of passes: plan, check, edit, check.

jit, its stages, the command line and the tests of files run passes here and nowhere else, so that
none of them checks less than another.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hlo_passes.base import AnyModule, Job, Pass, Stage
from hlo_passes.errors import OptionError, PlanError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan
from hlo_passes.reorder_scheduled import at_post_scheduler
from hlo_passes.verify import verify_reordering


@dataclass(frozen=True)
class Applied:
    """A pass that has run.

    Attributes:
        step: the pass.
        plan: what it decided.
        module: what it left.
        seconds: how long it took to plan, check and edit.
    """

    step: Pass
    plan: Plan
    module: AnyModule
    seconds: float


type After = Callable[[Applied], None]
"""Called after every pass: to print, to time, to collect plans."""


@dataclass(frozen=True)
class Pipeline:
    """Passes that run one after the other, each on what the one before left.

    Raises:
        OptionError: if two passes settle the same question.
    """

    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        asked = Counter(question for step in self.passes for question in step.answers)
        for question, count in asked.items():
            if count > 1:
                names = [p.pass_name() for p in self.passes if question in p.answers]
                raise OptionError(f"pipeline {self.spec!r}",
                                  f"{' and '.join(names)} both settle the {question}",
                                  "leave one of them out")  # fmt: skip

    @property
    def spec(self) -> str:
        """Return the text form of all passes."""
        return ",".join(p.spec for p in self.passes)

    def at(self, stage: Stage) -> "Pipeline":
        """Return the passes that work at one stage."""
        return Pipeline(tuple(p for p in self.passes if p.stage is stage))

    def run(
        self,
        module: AnyModule,
        job: Job,
        *,
        plans: Sequence[Plan] | None = None,
        after: After | None = None,
    ) -> tuple[AnyModule, tuple[Plan, ...]]:
        """Run all passes.

        Args:
            module: what they work on; it stays as it is.
            job: what they may know besides.
            plans: of all passes, one each, where they were made before.
            after: called after every pass.

        Returns:
            The module that the last pass left, and the plan of every pass.

        Raises:
            PlanError: if a plan was made for another module, or there is not one of every pass.
            DeadlockError: if an exchange could be waited for for ever.
            VerifyError: if a pass leaves something illegal.
        """
        if plans is not None and len(plans) != len(self.passes):
            raise PlanError(f"pipeline {self.spec!r}",
                            f"{len(plans)} plans are of other passes than these",
                            "plan the module again")  # fmt: skip
        made: list[Plan] = []
        for step in self.passes:
            known = plans[len(made)] if plans is not None else None
            applied = run_pass(step, module, job, known)
            module = applied.module
            made.append(applied.plan)
            if after is not None:
                after(applied)
        return module, tuple(made)


def run_pass(step: Pass, module: AnyModule, job: Job, plan: Plan | None = None) -> Applied:
    """Run one pass.

    Args:
        step: the pass.
        module: what it works on.
        job: what it may know besides.
        plan: what it decides, where that was decided before.

    Raises:
        PlanError: if the plan was made for another module.
        DeadlockError: if an exchange could be waited for for ever, before or after.
        VerifyError: if it leaves something illegal.
    """
    started = time.perf_counter()
    graph = module.snapshot()
    step = fitted(step, module)
    if plan is not None:
        return apply_plan(step, module, graph, plan, started)
    check(step, module, graph)
    context = job.context(module, graph)
    plan = step.plan(graph, context)
    bound = step.memory_bound(graph, context, plan) if plan.orders else None
    return apply_plan(step, module, graph, plan, started, bound)


def rivals_of(step: Pass, module: AnyModule, job: Job) -> Iterator[Applied]:
    """Yield one pass run in every way that is worth compiling; see `Pass.rivals`.

    Args:
        step: the pass.
        module: what it works on.
        job: what it may know besides.

    Raises:
        DeadlockError: if an exchange could be waited for for ever, before or after.
        VerifyError: if it leaves something illegal.
    """
    graph = module.snapshot()
    check(step, module, graph)
    for plan in step.rivals(graph, job.context(module, graph)):
        yield apply_plan(step, module, graph, plan, time.perf_counter())


def fitted(step: Pass, module: AnyModule) -> Pass:
    """Return the pass that does to a module of this kind what `step` does."""
    return at_post_scheduler(step) if isinstance(module, ScheduledModule) else step


def check(
    step: Pass,
    module: AnyModule,
    graph: Graph,
    orders: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Make sure that a module is as a pass needs and leaves it.

    Args:
        step: the pass.
        module: what it is given, or has left.
        graph: read from it.
        orders: orders of its computations, where they are other than those of the graph.
    """
    is_local = not isinstance(module, Module) or module.is_local
    for holds in step.checks:
        holds(graph, orders or {}, is_local)


def apply_plan(
    step: Pass,
    module: AnyModule,
    graph: Graph,
    plan: Plan,
    started: float,
    memory_bound: int | None = None,
) -> Applied:
    """Edit a module as planned, and check the plan before and the module after.

    Args:
        step: the pass.
        module: what it works on.
        graph: read from it.
        plan: what it decided.
        started: when it began, by `time.perf_counter`.
        memory_bound: bytes of temporaries that a new order may need; None for any.

    Raises:
        PlanError: if the plan was made for another module.
        DeadlockError: if an exchange could be waited for for ever.
        VerifyError: if the order, or what is left, is illegal.
    """
    plan.check(module.fingerprint)
    if plan.orders:
        verify_reordering(graph, plan.orders, memory_bound)
        check(step, module, graph, plan.orders)
    result = step.apply(module, plan)
    if result.changed and not plan.orders:
        check(step, result.module, result.module.snapshot())
    return Applied(step, plan, result.module, time.perf_counter() - started)
