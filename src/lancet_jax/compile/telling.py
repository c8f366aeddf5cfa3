"""Puts into words and figures what became of a compile."""

from collections.abc import Iterator

from hlo_passes.plans import Plan
from lancet_jax.compile.before_xla import Prepared, notes_of
from lancet_jax.compile.choice import Choice
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.cut_memory import CutMemory
from lancet_jax.compile.enact import Enacted
from lancet_jax.compile.job import StepJob
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.tournament import Judged
from lancet_jax.peers.decided import Entry


def outcome_of(
    job: StepJob, prepared: Prepared, choice: Choice, made: Enacted, clock: Clock
) -> Outcome:
    """Return what became of a compile.

    Args:
        job: for whom.
        prepared: the step as passes left it.
        choice: what was decided.
        made: what was compiled.
        clock: where the time went.
    """
    unchanged = (one for one in choice.ranked if not one.candidate.changes)
    whole = next((one for one in unchanged if not one.candidate.options), None)
    scheduled = made.scheduled
    notes = tuple(_notes(job, prepared, choice, made, whole))
    if made.error is not None:
        notes = (*notes, f"left as it was: {made.error}")
    is_whole = not made.candidate.changes and not made.candidate.options
    stock = whole.scheduled if whole is not None and not is_whole else None
    return Outcome(
        devices=len(job.devices),
        plan=_plan(job, choice, made),
        made=made.candidate.plans,
        salt=made.program.salt,
        graph=scheduled.graph if scheduled is not None else None,
        costs=job.costs if scheduled is not None else None,
        stock=stock.graph if stock is not None else None,
        race=choice.decided.race,
        phases=dict(clock.seconds),
        seconds=clock.ours,
        partition_seconds=prepared.source.seconds,
        notes=notes,
        error=made.error,
    )


def _plan(job: StepJob, choice: Choice, made: Enacted) -> Plan | None:
    """Return how the step was ordered; None if it was not."""
    if made.error is not None:
        return None
    if job.is_pinned:
        return made.candidate.plans[0]
    if made.scheduled is not None:
        return made.scheduled.order
    orders = choice.decided.orders if made.is_cached else ()
    return next((plan for plan in reversed(orders) if plan.after is not None), None)


def _notes(
    job: StepJob, prepared: Prepared, choice: Choice, made: Enacted, whole: Judged | None
) -> Iterator[str]:
    yield from prepared.source.notes
    for plan in made.candidate.plans:
        yield from notes_of(plan)
    if job.options.check_cuts and not job.is_judged and job.has_choice:
        yield f"predictions before XLA decided which program runs: {job.why_not_judged}"
    yield from choice.notes
    yield from made.notes
    if choice.decided.race:
        yield describe(choice.decided.race)
    if made.candidate.is_cut:
        held = whole.scheduled.before.peak_bytes if whole is not None and whole.scheduled else 0
        uncut, passes = prepared.source.module.snapshot(), job.before_xla.passes
        memory = CutMemory.of(uncut, passes, made.candidate.plans)
        yield from memory.notes(made.executable, job.memory_limit, held)
    if job.is_pinned:
        yield "the order is pinned by barriers in StableHLO"


def describe(race: tuple[Entry, ...]) -> str:
    """Say in one line which programs competed, and which one runs."""
    runs = race[0]
    others = ", ".join(
        f"{one.name} {one.step_us:,.0f} us" if one.step_us else f"{one.name} ({one.why})"
        for one in race[1:]
    )
    return f"on XLA's own modules: {runs.name} {runs.step_us:,.0f} us runs, of {others}"
