"""Lets a cut step and the same step uncut compete once XLA has compiled both.

Cuts are chosen on StableHLO, before XLA fuses, and what a cut does to fusion is not known there: a
cut that was predicted to pay may not. So XLA compiles the uncut step as well, ordered as if nothing
else had been asked for, and the program whose final schedule is shorter, by the same prices, is
kept. All processes of a job see the same two programs, and so decide alike; they make sure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from hlo_passes.analysis.footprint import footprint_of
from hlo_passes.base import Pass, Pipeline
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.plan.simulate import simulate
from hlo_passes.plan.timeline import prediction_of
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.split_pass import SplitPass
from lancet_jax import _jax
from lancet_jax.agree import Peers
from lancet_jax.outcome import Outcome


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
        outcome: of the cut step.
        outcomes: where it is listed, and the uncut one's takes its place if that one is kept.
        costs: prices for the target.
        peers: who else compiles it.
        opaque: custom calls that are exchanges.
        memory_limit: bytes of a device for arguments, results and temporaries; None for no limit.
    """

    request: _jax.Request
    whole: Rewriter
    outcome: Outcome
    outcomes: list[Outcome]
    costs: TargetCosts
    peers: Peers | None = None
    opaque: tuple[OpaqueExchange, ...] = ()
    memory_limit: int | None = None

    def keep_shorter(self, cut: Any, compile_it: Callable[[_jax.Prepared], Any]) -> Any:
        """Compile the uncut step, and return the executable to run.

        A step that XLA can only compile when it is cut stays cut.

        Args:
            cut: executable of the cut step.
            compile_it: compiles what was prepared, for the same devices.

        Raises:
            PeerError: if another process keeps the other one.
        """
        if self.outcome.error is not None:
            return cut
        prepared = self.whole.prepare(self.request)
        if prepared is None:
            return cut
        try:
            whole = compile_it(prepared)
        except jax.errors.JaxRuntimeError as error:
            self.outcome.notes.append(f"uncut it does not compile: {str(error).splitlines()[0]}")
            return cut
        ours, theirs = self.outcome, self.whole.outcomes[-1]
        if theirs.error is not None:
            return cut
        (cut_fits, cut_us), (whole_fits, whole_us) = self._predict(cut), self._predict(whole)
        is_kept = (cut_fits, -cut_us) > (whole_fits, -whole_us)
        said = f"on XLA's schedules: cut {cut_us:,.0f} us, uncut {whole_us:,.0f} us"
        if self.peers is not None:
            self.peers.agree(f"kept/{ours.salt}", {"kept": "cut" if is_kept else "uncut"})
        if is_kept:
            ours.notes.append(f"{said}: the cut step is kept")
            ours.rival = theirs
            ours.seconds += theirs.seconds
            return cut
        theirs.notes[:0] = [*ours.notes, f"{said}: left whole"]
        theirs.seconds += ours.seconds
        self.outcomes[:] = [theirs if o is ours else o for o in self.outcomes]
        return whole

    def _predict(self, executable: Any) -> tuple[bool, float]:
        """Return whether a program fits into memory, and the us that its step takes."""
        text, devices = _jax.hlo_of(executable), len(self.request.devices)
        graph = ScheduledModule(text, devices=devices, opaque=self.opaque).snapshot()
        found = prediction_of(simulate(graph, self.costs.for_graph(graph)))
        limit = self.memory_limit
        fits = limit is None or found.peak_bytes <= footprint_of(graph).room(limit)
        return fits, found.step_us


def uncut(passes: Sequence[Pass]) -> Pipeline | None:
    """Return the passes without those that cut; None if the user settled how to cut."""
    cutting = [p for p in passes if isinstance(p, SplitPass)]
    rest = tuple(p for p in passes if not isinstance(p, SplitPass))
    if not cutting or any(p.is_settled for p in cutting):
        return None
    if not any(isinstance(p, ScheduleDw) for p in rest):
        return None
    return Pipeline(rest)
