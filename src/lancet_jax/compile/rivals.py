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
from lancet_jax.audit.first_call import Audit
from lancet_jax.compile.contest import Contest
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.untied import Untied
from lancet_jax.seams import compiling


class Rewriter(Protocol):
    """What prepares a step: a `StepRewriter` with the passes that leave it uncut."""

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of every compile, newest last."""
        ...

    def prepare(self, request: compiling.Request) -> compiling.Prepared | None:
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
        audit: what the first call of the cut step is held against; None for nothing.
    """

    request: compiling.Request
    whole: Rewriter
    cut: Untied
    outcomes: list[Outcome]
    contest: Contest
    slack: float | None = None
    audit: Audit | None = None

    def compile(self, compile_it: compiling.Compile) -> Any:
        """Compile both, and return the executable to run.

        The uncut step comes first: the cut one may hold as much memory as that. A step that XLA can
        only compile one way is compiled that way.

        Args:
            compile_it: compiles what was prepared, for the same devices.

        Raises:
            PeerError: if another process can compile others, or keeps the other one.
        """
        ours, whole = self.cut.outcome, self._whole(compile_it)
        self.contest.agree_on_compiling(f"uncut/{ours.salt}", whole)
        if whole is None:
            return self.cut.compile(compile_it)
        in_one = self.contest.enter(whole)
        cut = self._cut(compile_it, in_one.peak_bytes)
        self.contest.agree_on_compiling(f"cut/{ours.salt}", cut)
        if cut is None:
            return self._keep(whole)
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
        if not is_kept:
            ours.notes.append(f"{said}: left whole")
            return self._keep(whole)
        ours.notes.append(f"{said}: the cut step is kept")
        ours.rival = self.whole.outcomes[-1]
        if self.audit is not None:
            self.audit.uncut = whole
        ours.seconds += ours.rival.seconds
        return cut

    def _keep(self, whole: Any) -> Any:
        """Let the uncut step's outcome take the place of the cut one's; return its executable."""
        if self.audit is not None:
            self.audit.is_on = False
        ours, theirs = self.cut.outcome, self.whole.outcomes[-1]
        theirs.notes[:0] = ours.notes
        theirs.seconds += ours.seconds
        self.outcomes[:] = [theirs if o is ours else o for o in self.outcomes]
        return whole

    def _is_large(self, cut_bytes: int, uncut_bytes: int) -> bool:
        return self.slack is not None and cut_bytes > uncut_bytes * (1 + self.slack)

    def _whole(self, compile_it: compiling.Compile) -> Any | None:
        """Compile the uncut step; None if there is none that could be run instead."""
        prepared = self.whole.prepare(self.request)
        if prepared is None:
            return None
        try:
            made = compile_it(prepared)
        except jax.errors.JaxRuntimeError as error:
            self._note("uncut", error)
            return None
        return made if self.whole.outcomes[-1].error is None else None

    def _cut(self, compile_it: compiling.Compile, uncut_bytes: int) -> Any | None:
        """Compile the cut step; None if XLA cannot."""
        try:
            return self.cut.compile(compile_it, uncut_bytes)
        except jax.errors.JaxRuntimeError as error:
            self._note("cut", error)
            return None

    def _note(self, how: str, error: Exception) -> None:
        reason = str(error).splitlines()[0]
        self.cut.outcome.notes.append(f"{how} it does not compile: {reason}")


def uncut(passes: Sequence[Pass]) -> Pipeline | None:
    """Return the passes without those that cut; None if the user settled how to cut."""
    cutting = [p for p in passes if isinstance(p, SplitPass)]
    rest = tuple(p for p in passes if not isinstance(p, SplitPass))
    if not cutting or any(p.is_settled for p in cutting):
        return None
    if not any(isinstance(p, ScheduleDw) for p in rest):
        return None
    return Pipeline(rest)
