"""Lets a cut step and the same step uncut compete once XLA has compiled both.

Cuts are chosen on StableHLO, before XLA fuses, and what a cut does to fusion is not known there: a
cut that was predicted to pay may not. So XLA compiles the uncut step as well, ordered as if nothing
else had been asked for, and the program whose final schedule is shorter, by the same prices, is
kept. All processes of a job see the same two programs, and so decide alike; they make sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from hlo_passes.base import Pass, Pipeline
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.split_pass import SplitPass
from lancet_jax import _jax
from lancet_jax.contest import Contest
from lancet_jax.outcome import Outcome
from lancet_jax.untied import Untied


class Rewriter(Protocol):
    """What prepares a step: a `StepRewriter` with the passes that leave it uncut."""

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of every compile, newest last."""
        ...

    def prepare(self, request: _jax.Request) -> _jax.Prepared | None:
        """Return what to compile."""
        ...


@dataclass(frozen=True)
class Rivals:
    """A cut step, and how to get the uncut one to compare it with.

    Attributes:
        request: what jit asked to compile.
        whole: prepares the step uncut.
        cut: the cut step.
        outcomes: where its outcome is listed; the uncut one's takes the place if that is kept.
        contest: by what the two are compared.
        slack: share by which the cut step may need more memory; None for any.
    """

    request: _jax.Request
    whole: Rewriter
    cut: Untied
    outcomes: list[Outcome]
    contest: Contest
    slack: float | None = None

    def compile(self, compile_it: _jax.Compile) -> Any:
        """Compile both, and return the executable to run.

        The uncut step comes first: the cut one may hold as much memory as that. A step that XLA can
        only compile one way stays that way.

        Args:
            compile_it: compiles what was prepared, for the same devices.

        Raises:
            PeerError: if another process keeps the other one.
        """
        ours, whole = self.cut.outcome, self._whole(compile_it)
        if whole is None:
            return self.cut.compile(compile_it)
        in_one, theirs = self.contest.enter(whole), self.whole.outcomes[-1]
        cut = self.cut.compile(compile_it, in_one.peak_bytes)
        if ours.error is not None:
            return cut
        in_parts = self.contest.enter(cut)
        said = f"on XLA's schedules: cut {in_parts.step_us:,.0f} us, uncut {in_one.step_us:,.0f} us"
        is_kept = in_parts > in_one
        if is_kept and in_one.fits and self._is_large(in_parts.peak_bytes, in_one.peak_bytes):
            is_kept = False
            said += (
                f"; cut it holds {in_parts.peak_bytes / 1e6:,.1f} MB, uncut"
                f" {in_one.peak_bytes / 1e6:,.1f}, and {self.slack:+.0%} is allowed (memory-slack)"
            )
        self.contest.agree(f"kept/{ours.salt}", "cut" if is_kept else "uncut")
        if is_kept:
            ours.notes.append(f"{said}: the cut step is kept")
            ours.rival = theirs
            ours.seconds += theirs.seconds
            return cut
        theirs.notes[:0] = [*ours.notes, f"{said}: left whole"]
        theirs.seconds += ours.seconds
        self.outcomes[:] = [theirs if o is ours else o for o in self.outcomes]
        return whole

    def _is_large(self, cut_bytes: int, uncut_bytes: int) -> bool:
        return self.slack is not None and cut_bytes > uncut_bytes * (1 + self.slack)

    def _whole(self, compile_it: _jax.Compile) -> Any | None:
        """Compile the uncut step; None if there is none that could be run instead."""
        prepared = self.whole.prepare(self.request)
        if prepared is None:
            return None
        try:
            made = compile_it(prepared)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0]
            self.cut.outcome.notes.append(f"uncut it does not compile: {reason}")
            return None
        return made if self.whole.outcomes[-1].error is None else None


def uncut(passes: Sequence[Pass]) -> Pipeline | None:
    """Return the passes without those that cut; None if the user settled how to cut."""
    cutting = [p for p in passes if isinstance(p, SplitPass)]
    rest = tuple(p for p in passes if not isinstance(p, SplitPass))
    if not cutting or any(p.is_settled for p in cutting):
        return None
    if not any(isinstance(p, ScheduleDw) for p in rest):
        return None
    return Pipeline(rest)
