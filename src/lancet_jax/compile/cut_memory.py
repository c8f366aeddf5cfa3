"""Holds what XLA made of a cut step against the memory that cuts may cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hlo_passes.base import Pass
from hlo_passes.facts.liveness import buffers_of
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Plan
from hlo_passes.split_pass import SplitPass
from lancet_jax.audit.room import Memory


@dataclass(frozen=True)
class CutMemory:
    """Temporary memory of a step before it is cut.

    Attributes:
        uncut_bytes: what it needs in its own order, estimated before XLA fuses.
        slack: share by which a cut may need more; None for any.
    """

    uncut_bytes: int
    slack: float | None

    @staticmethod
    def of(graph: Graph, passes: Sequence[Pass], plans: Sequence[Plan]) -> "CutMemory":
        """Measure a step that `passes` have cut as planned, one plan each.

        Of several passes that cut it, the one that allows most counts.
        """
        margins = [
            step.margin for step, plan in zip(passes, plans, strict=True)
            if isinstance(step, SplitPass) and plan.splits
        ]  # fmt: skip
        given = [margin for margin in margins if margin is not None]
        slack = max(given, default=None) if len(given) == len(margins) else None
        return CutMemory(buffers_of(graph).peak(range(len(graph.ops))), slack)

    def notes(self, executable: Any, limit: int | None, compiled_bytes: int = 0) -> list[str]:
        """Say what the compiled step needs, and whether that breaks a limit or the margin.

        Args:
            executable: the step.
            limit: bytes of a device for all that it holds; None for no limit.
            compiled_bytes: temporaries of the uncut step's final schedule, which the cut one's is
                held against elsewhere; 0 if that is not known.
        """
        needed, uncut = Memory.of(executable), compiled_bytes or self.uncut_bytes
        if needed is None or not uncut:
            return []
        temporary, whole = needed.temporary, needed.total
        grown = temporary / uncut - 1
        how = "its schedule holds" if compiled_bytes else "it was estimated, before fusion, at"
        said = (
            f"memory of the cut step: {temporary / 1e6:,.1f} MB of temporaries as compiled;"
            f" uncut {how} {uncut / 1e6:,.1f} MB"
        )
        if self.slack is not None and grown > self.slack and not compiled_bytes:
            said += (f": {grown:+.0%}, more than the margin of {self.slack:+.0%}; pipeline='dw'"
                     " does not cut it")  # fmt: skip
        notes = [said]
        if limit is not None and whole > limit:
            notes.append(
                f"memory of the cut step: {whole / 1e6:,.1f} MB in all as compiled, more than the"
                f" limit of {limit / 1e6:,.1f} MB; pipeline='dw' does not cut it"
            )
        return notes
