"""A program that a step may be compiled to, as passes leave it for XLA."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hlo_passes.base import Job, Pass
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan
from hlo_passes.run import Applied, Pipeline, rivals_of, run_pass
from hlo_passes.split_pass import MARGIN, SplitPass
from lancet_jax.seams.compiling import XlaOptions

WHOLE = "as it is"
"""Name of the step that no pass has changed."""


@dataclass(frozen=True)
class Candidate:
    """What passes made of a step.

    Attributes:
        module: its StableHLO.
        plans: of all passes before XLA, in order; what a pass was not let do is an empty plan.
        options: XLA options that it is compiled with besides the usual.
        left_out: what XLA is kept from doing to it, for readers.
    """

    module: Module = field(repr=False)
    plans: tuple[Plan, ...] = ()
    options: XlaOptions = field(default_factory=dict)
    left_out: str = ""

    @property
    def changes(self) -> tuple[Plan, ...]:
        """The plans that change something."""
        return tuple(plan for plan in self.plans if plan.changes)

    @property
    def is_cut(self) -> bool:
        """Whether it is not the step that the user wrote, op by op."""
        return any(plan.splits for plan in self.plans)

    @property
    def name(self) -> str:
        """What was made of the step, in a word or two."""
        said = " + ".join(_named(plan) for plan in self.changes) or WHOLE
        return f"{said} ({self.left_out})" if self.left_out else said

    @cached_property
    def predicted_us(self) -> float:
        """How long a step is predicted to take, in us, before XLA fuses it; 0 if nobody asked."""
        made = [plan.after for plan in self.changes if plan.after is not None]
        if made:
            return made[-1].step_us
        return next((plan.before.step_us for plan in self.plans if plan.before is not None), 0.0)

    def margin(self, passes: Sequence[Pass]) -> float | None:
        """Return the share by which it may need more temporaries than the step as it is.

        None for any: then what the device has decides. Of several passes that cut, the one that
        allows most counts.

        Args:
            passes: what made it, one plan each.
        """
        given = [
            step.memory_slack for step, plan in zip(passes, self.plans, strict=False)
            if isinstance(step, SplitPass) and plan.splits and step.memory_slack != MARGIN
        ]  # fmt: skip
        known = [share for share in given if share is not None]
        return max(known) if known and len(known) == len(given) else None

    def after(self, applied: Applied) -> "Candidate":
        """Return what one more pass made of it."""
        assert isinstance(applied.module, Module)
        return replace(self, module=applied.module, plans=(*self.plans, applied.plan))

    def without(self, step: Pass, target: str, instead: Sequence[Plan]) -> "Candidate":
        """Return the same program, with a pass passed over.

        Args:
            step: the pass.
            target: name of what is planned for.
            instead: what the pass offered, for its figures of this program, and its reasons.
        """
        before = instead[0] if instead else None
        told = {refusal: None for plan in instead for refusal in plan.refusals}
        plan = Plan(
            module=self.module.fingerprint, target=target, passes=(step.spec,),
            before=before.before if before is not None else None,
            race=before.race if before is not None else {},
            refusals=tuple(told),
        )  # fmt: skip
        return replace(self, plans=(*self.plans, plan))

    def told_by(self, others: Mapping[str, "Candidate"]) -> "Candidate":
        """Return it with the plans of another candidate that is the same program.

        The step as it is can be judged before passes say why they leave it.

        Args:
            others: by name, with XLA kept from nothing.
        """
        other = others.get(replace(self, left_out="").name)
        if other is None or self.plans:
            return self
        return replace(other, options=self.options, left_out=self.left_out)

    def apart(self, options: XlaOptions, left_out: str) -> "Candidate":
        """Return the same program, compiled with more XLA options.

        Args:
            options: the options.
            left_out: what XLA does not do then.
        """
        said = f"{self.left_out}, {left_out}" if self.left_out else left_out
        return replace(self, options={**self.options, **options}, left_out=said)


def candidates_of(module: Module, passes: Pipeline, job: Job) -> Iterator[Candidate]:
    """Yield what passes make of a step: one program, or several where XLA's modules decide.

    Every pass that leaves it open whether it does anything adds to what there is. The step that no
    pass has changed comes last.

    Args:
        module: the step.
        passes: what to run.
        job: what they may know.

    Raises:
        DeadlockError: if an exchange of the step could be waited for for ever.
        VerifyError: if a pass leaves something illegal.
    """
    yield from _grown(Candidate(module), passes.passes, job)


def _grown(one: Candidate, steps: Sequence[Pass], job: Job) -> Iterator[Candidate]:
    """Yield what more passes make of a candidate."""
    if not steps:
        yield one
        return
    for more in _after(one, steps[0], job):
        yield from _grown(more, steps[1:], job)


def _after(one: Candidate, step: Pass, job: Job) -> Iterator[Candidate]:
    """Yield what one more pass makes of a candidate."""
    if not job.checked or step.is_settled:
        yield one.after(run_pass(step, one.module, job))
        return
    offered = []
    for applied in rivals_of(step, one.module, job):
        offered.append(applied.plan)
        if applied.plan.changes:
            yield one.after(applied)
    yield one.without(step, job.costs.name, offered)


def replayed(module: Module, passes: Pipeline, job: Job, plans: Sequence[Plan]) -> Candidate:
    """Return the candidate that plans made before give.

    Args:
        module: the step.
        passes: what made the plans.
        job: what they may know.
        plans: of all passes.

    Raises:
        PlanError: if a plan was made for another module.
    """
    made, done = passes.run(module, job, plans=plans)
    assert isinstance(made, Module)
    return Candidate(made, done)


def _named(plan: Plan) -> str:
    """Name what a plan does: its passes without options, and how."""
    step = plan.passes[0].partition("{")[0] if plan.passes else "plan"
    return plan.strategy if step == "choose-split" else f"{step} {plan.strategy}"
