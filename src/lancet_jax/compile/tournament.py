"""Finds the shortest of several programs of one step, by what XLA makes of each.

A prediction before XLA fuses is off by more than programs differ, so it only chooses who competes.
XLA compiles every entrant until it is scheduled, the schedule is ordered and simulated, and that
figure counts. Where XLA has put things together that need not wait together, the same program is
tried with XLA kept from doing so.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields

import jax
import msgspec
from msgspec.structs import replace

from hlo_passes.errors import LancetError
from lancet_jax.compile.candidate import WHOLE, Candidate
from lancet_jax.compile.enact import Enactment
from lancet_jax.compile.inside_xla import Scheduled
from lancet_jax.compile.xla_program import XlaProgram
from lancet_jax.peers.decided import Entry
from lancet_jax.seams.compiling import XlaOptions
from lancet_jax.seams.xla_options import ways_apart

ERROR = 0.25
"""By this share a prediction before fusion may be wrong about how much longer one program is than
another (`scripts/bench_race.py`): so much longer than the best, and it does not compete."""

_TIE = 1e-3
"""Programs that differ by less than this share of a step are as long: the smaller one wins."""


@dataclass(frozen=True)
class Judged:
    """A candidate, and what XLA and we made of it.

    Attributes:
        candidate: the candidate.
        scheduled: what it became; None if XLA cannot compile it.
        fits: whether that fits into memory.
        error: why it became nothing.
        excess: by how much it needs more than is allowed, in words; "" if it does not.
    """

    candidate: Candidate
    scheduled: Scheduled | None = field(default=None, repr=False)
    fits: bool = False
    error: str = ""
    excess: str = ""

    @staticmethod
    def of(one: Candidate, found: Scheduled, enactment: Enactment) -> "Judged":
        """Return a candidate with what has become of it."""
        limit = enactment.job.memory_limit
        if limit is None or found.fits(limit):
            return Judged(one, found, fits=True)
        needs, there = math.ceil(found.device_bytes / 1e7) / 100, limit / 1e9
        return Judged(one, found, excess=(
            f"it needs {needs:,.2f} GB of a device, and {there:,.2f} are allowed"
            f" (memory_limit={needs:,.2f}GB allows it)"
        ))  # fmt: skip

    def within(self, margin: float | None, whole: "Judged | None") -> "Judged":
        """Return it as it is if it may need a share more of temporaries than the whole step.

        Args:
            margin: the share; None for any.
            whole: the step as it is, where that was judged.
        """
        if margin is None or whole is None or not self.fits or not whole.fits:
            return self
        growth = self.peak_bytes / whole.peak_bytes - 1 if whole.peak_bytes else 0.0
        if growth <= margin:
            return self
        return replace_fields(self, fits=False, excess=(
            f"it needs {growth:+.0%} of temporaries, and {margin:+.0%} is allowed (memory-slack)"
        ))  # fmt: skip

    @property
    def step_us(self) -> float:
        """How long a step takes, in us."""
        return self.scheduled.after.step_us if self.scheduled is not None else float("inf")

    @property
    def peak_bytes(self) -> int:
        """Temporaries of a device, in bytes, estimated."""
        return self.scheduled.after.peak_bytes if self.scheduled is not None else 0

    def entry(self) -> Entry:
        """Return it as data."""
        one = Entry(name=self.candidate.name, predicted_us=self.candidate.predicted_us)
        if self.scheduled is None:
            return replace(one, fits=False, why=f"it does not compile: {self.error}")
        after = self.scheduled.after
        return replace(
            one, step_us=after.step_us, exposed_us=after.exposed_us, fits=self.fits,
            stock_us=self.scheduled.before.step_us, peak_bytes=after.peak_bytes, why=self.excess,
        )  # fmt: skip


def entrants_of(candidates: Sequence[Candidate], most: int) -> tuple[Candidate, ...]:
    """Return who competes: the step as it is, and the likeliest of those that may be shorter.

    Args:
        candidates: all that there is; the step as it is among them, if that is open.
        most: how many compete at most.
    """
    whole = [one for one in candidates if not one.changes]
    others = sorted((one for one in candidates if one.changes), key=lambda one: one.predicted_us)
    best_us = min((one.predicted_us for one in candidates if one.predicted_us), default=0.0)
    likely = [one for one in others if one.predicted_us <= best_us * (1 + ERROR)]
    if whole:
        return (*whole, *likely[: max(most - len(whole), 0)])
    return tuple((likely or others)[: max(most, 1)])


@dataclass(frozen=True)
class Tournament:
    """Judges candidates, as many at a time as there are cores.

    XLA works on one core until a module is scheduled. So the step as it is may be judged while
    passes are planned.

    Attributes:
        enactment: how candidates are handed to XLA.
        pool: threads to judge in.
    """

    enactment: Enactment
    pool: ThreadPoolExecutor = field(repr=False)
    _candidates: list[Candidate] = field(default_factory=list, repr=False)
    _begun: dict[str, "Future[Sequence[Judged]]"] = field(default_factory=dict, repr=False)

    @staticmethod
    @contextmanager
    def held_for(enactment: Enactment) -> "Iterator[Tournament]":
        """Hold one, with threads for as long as it takes."""
        with ThreadPoolExecutor(os.cpu_count() or 1, "lancet-jax") as pool:
            yield Tournament(enactment, pool)

    def begin(self, one: Candidate) -> None:
        """Begin to judge a candidate, if nobody has."""
        if one.name not in self._begun:
            program = self.enactment.program(one)
            self._begun[one.name] = self.pool.submit(self._all_of, one, program)

    def begin_if_likely(self, one: Candidate) -> None:
        """Begin to judge a candidate that is likely to compete, whatever others come."""
        if self.enactment.job.options.search == "quick":
            return
        begun = [known for known in self._candidates if known.predicted_us]
        self._candidates.append(one)
        likely = entrants_of([*begun, one], self.enactment.job.entrants)
        if one in likely and len(self._begun) < self.enactment.job.entrants:
            self.begin(one)

    def run(
        self, entrants: Sequence[Candidate], judged: Sequence[Judged] = ()
    ) -> tuple[Judged, ...]:
        """Judge all, and what comes of keeping apart what XLA ties, the winner first.

        Args:
            entrants: who competes.
            judged: those that compete, too, and were judged before.

        Raises:
            PeerError: if another process does not come.
        """
        for one in entrants:
            self.begin(one)
        found = [each for one in entrants for each in self._begun[one.name].result()]
        whole = {one.name: one for one in entrants}
        named = [replace_fields(each, candidate=each.candidate.told_by(whole)) for each in found]
        return self.ranked([*judged, *named])

    def _all_of(self, one: Candidate, program: XlaProgram) -> Sequence[Judged]:
        """Judge a candidate, and the same with XLA kept from tying what need not wait together."""
        if one.changes and self.enactment.clock.age_s > self._search_s:
            return [Judged(one, error="the time to search was over")]
        first = self.judge(one, program)
        return [first] if one.left_out else [first, *self.apart(first)]

    @property
    def _search_s(self) -> float:
        search = self.enactment.job.options.search
        return math.inf if isinstance(search, str) else search

    def judge(self, one: Candidate, program: XlaProgram) -> Judged:
        """Have XLA compile a candidate until it is scheduled, and order that."""
        clock, xla = self.enactment.clock, self.enactment.xla
        try:
            with clock.phase(f"XLA schedules {one.name!r}", by_xla=True):
                proto = xla.scheduled(program.module, program.salt, program.options)
            with clock.phase(f"order {one.name!r}"):
                found = self.enactment.scheduler.plan(proto)
        except (jax.errors.JaxRuntimeError, LancetError) as error:
            return Judged(one, error=str(error).splitlines()[0])
        return Judged.of(one, found, self.enactment)

    def apart(self, one: Judged) -> Iterator[Judged]:
        """Judge a candidate again, with XLA kept from tying what need not wait together."""
        for options, left_out in ways_apart_of(one, self.enactment):
            other = one.candidate.apart(options, left_out)
            yield self.judge(other, self.enactment.program(other))

    def ranked(self, found: Sequence[Judged]) -> tuple[Judged, ...]:
        """Return the winner, and then the others, shortest first.

        What fits wins over what does not; among what is as long as the shortest, the smaller. All
        processes of a job count only what all of them could judge.

        Raises:
            PeerError: if another process does not come.
        """
        peers = self.enactment.fellows
        if peers is not None:
            mine = [one.candidate.name for one in found if one.scheduled is not None]
            topic = f"judged/{self.enactment.job.salt(self.enactment.prices)}/{len(found)}"
            said = peers.gather_once(topic, msgspec.json.encode(mine))
            by_all = set.intersection(*(set(msgspec.json.decode(names)) for names in said))
            found = [
                one if one.candidate.name in by_all
                else Judged(one.candidate, error=one.error or "another process has not judged it")
                for one in found
            ]  # fmt: skip
        passes = self.enactment.job.before_xla.passes
        whole = next((one for one in found if one.candidate.name == WHOLE), None)
        return ranked([one.within(one.candidate.margin(passes), whole) for one in found])


def ways_apart_of(one: Judged, enactment: Enactment) -> Sequence[tuple[XlaOptions, str]]:
    """Return the XLA options that may make a candidate shorter, and what they leave out.

    Args:
        one: the candidate.
        enactment: how it is handed to XLA.
    """
    if one.scheduled is None or not one.scheduled.tied:
        return ()
    return ways_apart(tuple(one.scheduled.tied), enactment.options(one.candidate))


def ranked(found: Sequence[Judged]) -> tuple[Judged, ...]:
    """Return the winner, and then the others, shortest first; see `Tournament.ranked`."""
    order = sorted(found, key=lambda one: (not one.fits, one.step_us))
    best = order[0]
    as_long = [
        one for one in order
        if one.fits == best.fits and one.step_us <= best.step_us * (1 + _TIE)
    ]  # fmt: skip
    first = min(as_long, key=lambda one: (one.peak_bytes, one.step_us))
    return (first, *(one for one in order if one is not first))


def told(found: Sequence[Judged]) -> tuple[Entry, ...]:
    """Return the race as data: who ran, the winner first, and why who does not."""
    entries = [one.entry() for one in found]
    best = replace(entries[0], why="")
    return (best, *(replace(one, why=_why_not(one, best)) for one in entries[1:]))


def _why_not(one: Entry, best: Entry) -> str:
    if one.why:
        return one.why
    return "it is longer" if one.step_us > best.step_us * (1 + _TIE) else "it needs more memory"
