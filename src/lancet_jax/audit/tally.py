"""What is made of outputs that were compared: equal, as far off as rounding goes, or wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from lancet_jax.audit.leaves import Deviation
from lancet_jax.audit.step_facts import StepFacts

ROUNDINGS = 32
"""How many roundings of the narrowest floats in the step an output's elements may be off, as a
share of its largest: 2e-6 in float32. Integers have to be equal. And how many times farther an
output may be off than a change of the arguments' last bits moves it.
"""


@dataclass
class Tally:
    """The outputs of a step, compared.

    Attributes:
        facts: of the step.
        outputs: what they should be.
        found: how far each is off.
        sway: how far each moves if the arguments' last bits do; None if that was not tried.
    """

    facts: StepFacts
    outputs: Sequence[Any]
    found: Sequence[Deviation]
    sway: Sequence[Deviation] | None = None

    @cached_property
    def beyond(self) -> frozenset[int]:
        """Outputs that are off by more than the bound."""
        pairs = zip(self.found, self.outputs, strict=True)
        return frozenset(i for i, (leaf, x) in enumerate(pairs) if not self._is_within(leaf, x))

    @property
    def wrong(self) -> frozenset[int]:
        """Those of them that a change of the arguments' last bits does not move as far."""
        if self.sway is None:
            return self.beyond
        return frozenset(i for i in self.beyond
                         if self.found[i].largest > ROUNDINGS * self.sway[i].largest)  # fmt: skip

    def _is_within(self, leaf: Deviation, output: Any) -> bool:
        if leaf.is_identical:
            return True
        if not jax.dtypes.issubdtype(output.dtype, np.inexact):
            return False
        return leaf.largest <= ROUNDINGS * self.facts.unit_of(output.dtype) * leaf.scale

    def __str__(self) -> str:
        if self.wrong:
            first = max(self.wrong, key=lambda i: self.found[i].relative)
            return (f"{len(self.wrong)} of {len(self.found)} outputs differ, "
                    f"{self.facts.path_of(first)} {_said(self.found[first])}")  # fmt: skip
        equal = [leaf for i, leaf in enumerate(self.found) if i not in self.beyond]
        worst = max((leaf.relative for leaf in equal), default=0.0)
        identical = all(leaf.is_identical for leaf in equal)
        how = "bit-identical" if identical else f"equal within {rounded_up(worst)}"
        said = f"{len(equal)} of {len(self.found)} outputs {how}"
        if self.beyond:
            first = self.facts.path_of(min(self.beyond))
            said += (f"; {len(self.beyond)} more ({first}{', ...' if len(self.beyond) > 1 else ''})"
                     " differ no more than the last bits of the arguments make them")  # fmt: skip
        return said

    def table(self) -> list[str]:
        """Return a line for every output."""
        lines = []
        for i, (leaf, x) in enumerate(zip(self.found, self.outputs, strict=True)):
            mark = "  WRONG" if i in self.wrong else "  rounding" if i in self.beyond else ""
            moved = f" (last bits: {self.sway[i].relative:.2e})" if self.sway is not None else ""
            said = f"{self.facts.path_of(i)}  {x.shape} {x.dtype}  {_said(leaf)}"
            lines.append(said + moved + mark)
        return lines


def rounded_up(share: float) -> str:
    """Return a share with one digit, never less than it is."""
    if share == 0:
        return "0"
    exponent = int(np.floor(np.log10(share)))
    return f"{np.ceil(share / 10.0**exponent - 1e-9) * 10.0**exponent:.0e}".replace("e-0", "e-")


def _said(leaf: Deviation) -> str:
    if leaf.largest == float("inf"):
        return "differs in where it is a number, in its type or in where it lies"
    return "identical" if leaf.is_identical else f"differs by {leaf.relative:.2e} of its largest"
