"""The states that a value can be in once a program is cut into parts.

A value is *whole* (None) if every part uses the same one, *cut* if part i holds slice i of one of
its dims, and a *sum* if the parts have to be added up to it. A prefix op over the cut dim
*carries*: part i starts from where part i-1 ended. What an exchange makes of tokens that are sent
part by part is in `moe_sites`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

type Count = int | Fraction
"""How many parts make the whole. A fraction stands for pieces of any length: with 4/5, a piece is
a quarter longer than the whole."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Part i holds slice i of a dim.

    The dim is seen as `[outer, k, rest]`, and part i takes index i of the middle: with `outer` 1 a
    contiguous k-th, else the i-th k-th of each of `outer` blocks. So a cut survives reshapes that
    merge and split dims, and exchanges that concatenate.

    Attributes:
        dim: the tensor dim.
        outer: number of blocks that are each cut.
    """

    dim: int
    outer: int = 1

    def fits(self, shape: tuple[int, ...], k: int) -> bool:
        """Whether a tensor of this shape has k equal parts."""
        return self.dim < len(shape) and shape[self.dim] % (self.outer * k) == 0

    def part_of(self, shape: tuple[int, ...], k: Count) -> tuple[int, ...]:
        """Return the shape of one part."""
        return (*shape[: self.dim], shape[self.dim] // k, *shape[self.dim + 1 :])


@dataclass(frozen=True, slots=True)
class Sum:
    """The parts have to be put together with a binary op.

    Attributes:
        merge: kind of that op: `add`, `maximum`, `minimum`, `multiply`, `and`, `or`.
    """

    merge: str = "add"


@dataclass(frozen=True, slots=True)
class Spot:
    """One operand or result of an op.

    Attributes:
        side: which list it is in.
        index: its place there.
    """

    side: Literal["operand", "result"]
    index: int


@dataclass(frozen=True, slots=True)
class OpSplit:
    """The states of everything that an op reads and makes, once it is cut.

    Attributes:
        operands: per operand; None where every part reads the whole value.
        results: per result; None where every part makes the same value.
        carries: whether part i needs the total of the parts before it.
    """

    operands: tuple[Cut | None, ...]
    results: tuple[Cut | Sum | None, ...]
    carries: bool = False

    def at(self, spot: Spot) -> Cut | Sum | None:
        """Return the state of one operand or result."""
        return (self.operands if spot.side == "operand" else self.results)[spot.index]
