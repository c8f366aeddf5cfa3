"""What passes make of a step before XLA gets it, and what is said about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hlo_passes.choose_split import describe_race
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan
from hlo_passes.run import Pipeline
from lancet_jax.compile.candidate import Candidate, candidates_of, replayed
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.collector import no_collection
from lancet_jax.compile.job import StepJob
from lancet_jax.compile.partition import StepToCut, source_of
from lancet_jax.compile.tournament import entrants_of
from lancet_jax.peers.decided import Decided

_CONTROL = ("stablehlo.case", "stablehlo.if", "stablehlo.while")
"""Ops that devices can decide differently; XLA's schedule does not say what they were given."""


@dataclass(frozen=True)
class Prepared:
    """A step as passes left it.

    Attributes:
        source: the step that the passes worked on.
        candidates: what they made of it, those that may compete.
    """

    source: StepToCut
    candidates: tuple[Candidate, ...] = field(repr=False)

    def smaller(self, one: Candidate, job: StepJob) -> tuple[Candidate, ...]:
        """Return candidates like one that does not fit into memory, which want less of it.

        Args:
            one: the candidate.
            job: for whom.
        """
        pairs = [
            (step.smaller(plan) if plan.changes else None, step)
            for step, plan in zip(job.before_xla.passes, one.plans, strict=True)
        ]
        if not any(smaller for smaller, _ in pairs):
            return ()
        passes = Pipeline(tuple(smaller or step for smaller, step in pairs))
        with no_collection():
            found = candidates_of(self.source.module, passes, job.for_passes(checked=True))
            return tuple(other for other in found if other.changes)

    @property
    def likeliest(self) -> Candidate:
        """The candidate that is predicted to be the shortest."""
        return min(self.candidates, key=lambda one: one.predicted_us or float("inf"))


type OnCandidate = Callable[[Candidate], None]
"""Is told of every candidate as soon as it is there."""


def prepare(
    job: StepJob,
    partition: Callable[[], bytes],
    clock: Clock,
    decided: Decided | None = None,
    on_candidate: OnCandidate | None = None,
) -> Prepared:
    """Run the passes that work before XLA.

    Args:
        job: for whom.
        partition: has XLA partition the step, and returns the HloModuleProto.
        clock: where the time goes.
        decided: which program it is to be, where that is known.
        on_candidate: see `OnCandidate`.

    Raises:
        DeadlockError: if an exchange of the step could be waited for for ever.
        PlanError: if what was decided is for another module.
        VerifyError: if a pass leaves something illegal.
    """
    module = Module.copy_of(job.module, opaque=job.options.exchanges)
    passes = job.before_xla
    if not passes.passes:
        _check_control(module)
        return Prepared(StepToCut(module), (Candidate(module),))
    source = source_of(module, passes.passes, len(job.devices), partition)
    by_xla, by_us = source.seconds
    clock.add("partition", by_xla + by_us)
    with clock.phase("plan before XLA"), no_collection():
        if decided is not None:
            known = job.for_passes()
            return Prepared(source, (replayed(source.module, passes, known, decided.plans),))
        found = []
        for one in candidates_of(source.module, passes, job.for_passes(checked=job.is_judged)):
            found.append(one)
            if on_candidate is not None:
                on_candidate(one)
    return Prepared(source, entrants_of(found, job.entrants) if job.is_judged else tuple(found))


def untouched(job: StepJob) -> Prepared:
    """Return a step that no pass may look at."""
    module = Module.copy_of(job.module, opaque=job.options.exchanges)
    return Prepared(StepToCut(module), (Candidate(module),))


def _check_control(module: Module) -> None:
    """Make sure that no exchange of a step that is only to be ordered is waited for for ever.

    Raises:
        DeadlockError: if one could be.
    """
    text = module.ir.operation.get_asm(enable_debug_info=False)
    if any(kind in text for kind in _CONTROL):
        verify_no_deadlock(module.snapshot(), is_local=module.is_local)


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
