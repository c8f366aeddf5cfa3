"""Which program a step is compiled to, and what it is compiled to if that does not work out."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
from msgspec.structs import replace

from hlo_passes.ir.stablehlo.module import Module
from lancet_jax.compile.before_xla import OnCandidate, Prepared
from lancet_jax.compile.candidate import Candidate
from lancet_jax.compile.enact import Enacted, Enactment
from lancet_jax.compile.inside_xla import Scheduled, Stopped
from lancet_jax.compile.tournament import Judged, Tournament, told, ways_apart_of
from lancet_jax.peers.decided import Decided, Entry


@dataclass(frozen=True)
class Choice:
    """Programs of a step, the one that it is to be first.

    Attributes:
        ranked: the programs.
        decided: the first of them, as data.
        is_open: whether the only program is yet to be judged: it may be shorter with XLA kept from
            tying things together.
        notes: what did not work out.
    """

    ranked: tuple[Judged, ...] = field(repr=False)
    decided: Decided
    is_open: bool = False
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(ranked: tuple[Judged, ...], enactment: Enactment, *, is_open: bool = False) -> "Choice":
        """Return the choice of the first program.

        Args:
            ranked: all programs, the first one to be chosen.
            enactment: for whom, at what prices.
            is_open: see `Choice`.
        """
        race = told(ranked) if len(ranked) > 1 else ()
        return Choice(ranked, _decided(ranked[0], enactment.prices, race), is_open)


def choose(
    prepare: Callable[[OnCandidate | None], Prepared], enactment: Enactment, known: Decided | None
) -> tuple[Prepared, Choice]:
    """Return which program a step is to be compiled to.

    Args:
        prepare: returns the step as passes leave it; that takes a while, in which candidates can
            be judged that it tells of.
        enactment: how candidates are handed to XLA.
        known: what was decided before.

    Raises:
        PeerError: if another process does not come.
    """
    job = enactment.job
    if known is not None:
        prepared = prepare(None)
        first = prepared.candidates[0]
        one = first.apart(known.options, known.left_out) if known.options else first
        return prepared, Choice((Judged(one),), known)
    decides_for_all = enactment.shared.is_used and job.peers is not None
    if not job.is_open and not (job.is_judged and decides_for_all):
        prepared = prepare(None)
        (first,) = prepared.candidates
        return prepared, Choice.of((Judged(first),), enactment, is_open=job.is_judged)
    with Tournament.held_for(enactment) as tournament:
        if job.is_open:
            tournament.begin(Candidate(Module.copy_of(job.module)))
        prepared = prepare(tournament.begin_if_likely)
        found = tournament.run(prepared.candidates)
        return prepared, Choice.of(_with_smaller(found, prepared, tournament), enactment)


def _with_smaller(
    found: tuple[Judged, ...], prepared: Prepared, tournament: Tournament
) -> tuple[Judged, ...]:
    """Return the ranking once programs have run, too, that want less memory than what is shortest.

    Args:
        found: the ranking so far.
        prepared: the step as passes left it.
        tournament: judges.
    """
    one = min(found, key=lambda each: each.step_us)
    while not one.fits and one.step_us < found[0].step_us:
        known = {each.candidate.name for each in found}
        smaller = prepared.smaller(one.candidate, tournament.enactment.job)
        new = [candidate for candidate in smaller if candidate.name not in known]
        if not new:
            break
        found = tournament.run(new, found)
        names = {candidate.name for candidate in new}
        one = min((each for each in found if each.candidate.name in names),
                  key=lambda each: each.step_us)  # fmt: skip
    return found


def compiled(choice: Choice, enactment: Enactment) -> tuple[Enacted, Choice]:
    """Compile what was chosen, or the next best if that does not compile, or does not fit.

    Returns:
        The compiled program, and the choice that it is the first of.

    Raises:
        JaxRuntimeError: if nothing compiles.
        PeerError: if another process has another order, or does not come.
    """
    ranked, limit, notes = list(choice.ranked), enactment.job.memory_limit, list(choice.notes)
    while True:
        one = ranked[0]
        orders = one.scheduled.plans if one.scheduled is not None else choice.decided.orders
        try:
            made = enactment.compile(one.candidate, orders, _accept(one, choice, enactment))
        except jax.errors.JaxRuntimeError as error:
            if len(ranked) == 1:
                raise
            reason = str(error).splitlines()[0]
            notes.append(f"{one.candidate.name} does not compile: {reason}")
            ranked.pop(0)
            continue
        if made.executable is None:
            return compiled(_untied(made, enactment), enactment)
        if len(ranked) > 1 and ranked[1].fits and not made.fits(limit):
            notes.append(made.too_large(limit))
            ranked.pop(0)
            continue
        return made, _settled(choice, made, tuple(ranked), tuple(notes))


def _accept(one: Judged, choice: Choice, enactment: Enactment) -> Callable[[Scheduled], None]:
    """Return what stops XLA where the only program may be shorter with other options."""

    def accept(found: Scheduled) -> None:
        if choice.is_open and ways_apart_of(Judged.of(one.candidate, found, enactment), enactment):
            raise Stopped

    return accept


def _untied(made: Enacted, enactment: Enactment) -> Choice:
    """Let the only program compete with itself, with XLA kept from tying things together."""
    assert made.scheduled is not None
    tied = Judged.of(made.candidate, made.scheduled, enactment)
    others = [tied.candidate.apart(*way) for way in ways_apart_of(tied, enactment)]
    with Tournament.held_for(enactment) as tournament:
        return Choice.of(tournament.run(others, [tied]), enactment)


def _decided(one: Judged, prices: str, race: tuple[Entry, ...]) -> Decided:
    candidate = one.candidate
    return Decided(
        name=candidate.name, plans=candidate.plans, options=dict(candidate.options),
        left_out=candidate.left_out, race=race, prices=prices,
        orders=one.scheduled.plans if one.scheduled is not None else (),
    )  # fmt: skip


def _settled(
    choice: Choice, made: Enacted, ranked: tuple[Judged, ...], notes: tuple[str, ...]
) -> Choice:
    """Return the choice of what was compiled in the end."""
    first, race = ranked[0], choice.decided.race
    if first is not choice.ranked[0]:
        by_name = {entry.name: entry for entry in race}
        names = [first.candidate.name, *(n for n in by_name if n != first.candidate.name)]
        race = tuple(by_name[name] for name in names)
    orders = made.scheduled.plans if made.scheduled is not None else choice.decided.orders
    decided = replace(_decided(first, choice.decided.prices, race), orders=orders)
    return Choice(choice.ranked, decided, notes=notes)
