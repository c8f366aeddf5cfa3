"""Finds the shortest of several programs of one step, by what XLA makes of each.

A prediction before XLA fuses is off by more than programs differ, so it only chooses who competes.
XLA compiles every entrant until it is scheduled, the schedule is ordered and simulated, and that
figure counts. Where XLA has put things together that need not wait together, the same program is
tried with XLA kept from doing so.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import msgspec
from msgspec.structs import replace

from hlo_passes.errors import LancetError
from lancet_jax.compile.candidate import Candidate
from lancet_jax.compile.enact import Enactment
from lancet_jax.compile.inside_xla import Scheduled
from lancet_jax.peers.decided import Entry
from lancet_jax.seams.compiling import XlaOptions
from lancet_jax.seams.xla_options import ways_apart

ERROR = 0.25
"""By this share a prediction before fusion may be wrong about how much longer one program is than
another (`scripts/bench_race.py`): so much longer than the best, and it does not compete."""

_TIE = 1e-3
"""Programs that differ by less than this share of a step are as long: the smaller one wins."""

_WORTH = 0.01
"""What is put together matters only if this share of a step or more is exposed."""


@dataclass(frozen=True)
class Judged:
    """A candidate, and what XLA and we made of it.

    Attributes:
        candidate: the candidate.
        scheduled: what it became; None if XLA cannot compile it.
        fits: whether that fits into memory.
        error: why it became nothing.
    """

    candidate: Candidate
    scheduled: Scheduled | None = field(default=None, repr=False)
    fits: bool = False
    error: str = ""

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
            stock_us=self.scheduled.before.step_us, peak_bytes=after.peak_bytes,
        )  # fmt: skip


def entrants_of(candidates: Sequence[Candidate], most: int) -> tuple[Candidate, ...]:
    """Return who competes: the step as it is, and the likeliest of those that may be shorter.

    Args:
        candidates: all that there is; the step as it is among them, if that is open.
        most: how many compete at most.
    """
    whole = [one for one in candidates if not one.changes]
    others = sorted((one for one in candidates if one.changes), key=lambda one: one.predicted_us)
    known = [one.predicted_us for one in candidates if one.predicted_us]
    bound = min(known, default=0.0) * (1 + ERROR)
    likely = [one for one in others if one.predicted_us <= bound or not one.predicted_us]
    if not whole:
        likely = likely or others[:1]
    return (*whole, *likely[: max(most - len(whole), 0 if whole else 1)])


@dataclass(frozen=True)
class Tournament:
    """Judges candidates.

    Attributes:
        enactment: how candidates are handed to XLA.
    """

    enactment: Enactment

    def run(self, entrants: Sequence[Candidate]) -> tuple[Judged, ...]:
        """Judge all, and what comes of keeping apart what XLA ties, the winner first.

        As many are compiled at a time as there are cores; XLA itself uses one until it is
        scheduled.
        """
        search = self.enactment.job.options.search
        until = None if isinstance(search, str) else time.monotonic() + search

        def judged(one: Candidate) -> list[Judged]:
            if until is not None and time.monotonic() > until and one.changes:
                return [Judged(one, error="the time to search was over")]
            first = self.judge(one)
            return [first, *self.apart(first)]

        workers = max(1, min(len(entrants), os.cpu_count() or 1))
        with ThreadPoolExecutor(workers, "lancet-jax") as pool:
            found = [each for all_of_one in pool.map(judged, entrants) for each in all_of_one]
        return self.ranked(found)

    def judge(self, one: Candidate) -> Judged:
        """Have XLA compile a candidate until it is scheduled, and order that."""
        enactment, program = self.enactment, self.enactment.program(one)
        try:
            with enactment.clock.phase(f"XLA schedules {one.name!r}", by_xla=True):
                proto = enactment.xla.scheduled(program.module, program.salt, program.options)
        except jax.errors.JaxRuntimeError as error:
            return Judged(one, error=str(error).splitlines()[0])
        try:
            with enactment.clock.phase(f"order {one.name!r}"):
                found = enactment.scheduler.plan(proto)
        except LancetError as error:
            return Judged(one, error=error.what)
        return self.known(one, found)

    def known(self, one: Candidate, found: Scheduled) -> Judged:
        """Return a candidate with what is known to have become of it."""
        return Judged(one, found, found.fits(self.enactment.job.memory_limit))

    def apart(self, one: Judged) -> Iterator[Judged]:
        """Judge a candidate again, with XLA kept from tying what need not wait together."""
        for options, left_out in self.ways(one):
            yield self.judge(one.candidate.apart(options, left_out))

    def ways(self, one: Judged) -> Sequence[tuple[XlaOptions, str]]:
        """Return the XLA options that may make a candidate shorter, and what they leave out."""
        found = one.scheduled
        if found is None or found.after.exposed_us < _WORTH * found.after.step_us:
            return ()
        return ways_apart(tuple(found.tied), self.enactment.program(one.candidate).options)

    def ranked(self, found: Sequence[Judged]) -> tuple[Judged, ...]:
        """Return the winner, and then the others, shortest first.

        What fits wins over what does not; among what is as long as the shortest, the smaller. All
        processes of a job count only what all of them could judge.

        Raises:
            PeerError: if another process does not come.
        """
        peers = self.enactment.job.peers
        if peers is not None:
            mine = [one.candidate.name for one in found if one.scheduled is not None]
            said = peers.gather("judged", msgspec.json.encode(mine))
            by_all = set.intersection(*(set(msgspec.json.decode(names)) for names in said))
            found = [
                one if one.candidate.name in by_all
                else Judged(one.candidate, error=one.error or "another process has not judged it")
                for one in found
            ]  # fmt: skip
        return ranked(found)


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


def told(found: Sequence[Judged], memory_limit: int | None) -> tuple[Entry, ...]:
    """Return the race as data: who ran, and why who does not."""
    entries = [one.entry() for one in found]
    best = entries[0]
    return (best, *(replace(one, why=_why_not(one, best, memory_limit)) for one in entries[1:]))


def _why_not(one: Entry, best: Entry, memory_limit: int | None) -> str:
    if one.why:
        return one.why
    if not one.fits and memory_limit is not None:
        return (
            f"it needs {one.peak_bytes / 1e6:,.0f} MB of temporaries, more than a device has room"
            f" for (memory_limit={memory_limit / 1e9:,.1f}GB)"
        )
    return "it is longer" if one.step_us > best.step_us * (1 + _TIE) else "it needs more memory"
