"""Lets a cut step compete with itself, compiled so that XLA cannot tie its parts together.

XLA:GPU's multi-output fusion puts kernels that read the same tensor into one. That saves traffic,
several percent of a step, and parts have names of their own for what they share, so that it stays
within a part. Where it found kernels of several parts to put together all the same, the step is
compiled once more without that pass, and the program whose final schedule is shorter is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from hlo_passes.facts.ties import find_ties
from lancet_jax.compile.contest import Contest
from lancet_jax.compile.enactment import Enactment
from lancet_jax.compile.outcome import Outcome
from lancet_jax.seams import compiling
from lancet_jax.seams.xla_options import UNTIED


@dataclass(frozen=True)
class Untied:
    """A cut step, and how to compile it the other way.

    Attributes:
        enactment: prepares it.
        outcome: what becomes of it.
        options: XLA options that it is compiled with first.
        contest: by what the two are compared.
    """

    enactment: Enactment
    outcome: Outcome
    options: Mapping[str, Any]
    contest: Contest

    def compile(self, compile_it: compiling.Compile, uncut_bytes: int = 0) -> Any:
        """Return the executable to go on with.

        Args:
            compile_it: compiles what was prepared, for the same devices.
            uncut_bytes: temporaries of the same step uncut, as compiled; 0 if that is not known.

        Raises:
            PeerError: if another process finds other ties, or keeps the other one.
        """
        ours = self.outcome
        planned = replace(ours, salt=_other(ours.salt), notes=list(ours.notes), seconds=0.0)
        tied = compile_it(self.enactment.prepared(ours, self.options, uncut_bytes))
        if ours.error is not None:
            return tied
        module = self.contest.module_of(tied)
        ties = find_ties(module)
        self.contest.agree(f"ties/{ours.salt}", ", ".join(ties) or "no ties")
        if not ties:
            return tied
        said = f"XLA's multi-output fusion ties parts together ({', '.join(ties[:3])})"
        untied = self._untied(planned, compile_it, uncut_bytes)
        self.contest.agree_on_compiling(f"untied/{ours.salt}", untied)
        if untied is None:
            return tied
        before, after = self.contest.result_of(module), self.contest.enter(untied)
        is_kept = after > before
        self.contest.agree(f"fusion/{ours.salt}", "untied" if is_kept else "tied")
        seconds = ours.seconds + planned.seconds
        if is_kept:
            ours.become(planned)
        ours.seconds = seconds
        ours.notes.append(
            f"{said}: {before.step_us:,.0f} us with it, {after.step_us:,.0f} us without;"
            f" it is {'left out' if is_kept else 'kept'}"
        )
        return untied if is_kept else tied

    def _untied(
        self, planned: Outcome, compile_it: compiling.Compile, uncut_bytes: int
    ) -> Any | None:
        """Compile the step the other way; None if that fails."""
        enactment = replace(self.enactment, complain=lambda _: None)
        options = {**self.options, **UNTIED}
        try:
            made = compile_it(enactment.prepared(planned, options, uncut_bytes))
        except jax.errors.JaxRuntimeError:
            return None
        return made if planned.error is None else None


def _other(salt: str) -> str:
    """Return a salt for the same program under other options, of the same length."""
    return f"{int(salt, 16) ^ 1:0{len(salt)}x}"
