"""What stands in the rows of a buffer that nobody sent: zeros at first, then what ops make of them.

A product with such a row is zero if either side is: what the other holds then is not asked, as it
is not in the step that is cut, whose result were lost if that was no number.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import kind_of, reducer, same_operand
from hlo_passes.ir.traits import KEEPS_ZERO
from hlo_passes.proofs.arithmetic import FOLDED, dtype_of, element_of, fold
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.engine import Domain, FactRules


class Beyond:
    """The number of a row behind all that were sent, whatever it is, and whatever its type."""


BEYOND: Final = Beyond()

type Fill = np.ndarray | Beyond | None
"""The number that fills a row, of its type and without dims; None if none is known."""


class Fills(Domain[Fill]):
    """What fills rows that nobody sent; of what is the same for all rows, what fills it.

    Rows are followed as far as somebody asks who knows that every op on the way treats each alone.

    Attributes:
        constants: what values hold in every run.
    """

    rules: ClassVar[FactRules]

    def __init__(self, constants: Constants) -> None:
        super().__init__()
        self.constants = constants

    def unknown(self, value: ir.Value) -> Fill:
        """Rows are filled with anything."""
        return None

    def is_zero(self, value: ir.Value) -> bool:
        """Whether zeros fill a value."""
        return _is(self.of(value), 0)

    def say_zero(self, value: ir.Value) -> None:
        """Note that zeros fill a value."""
        self.say(value, number_like(value, 0))

    def say_whole(self, value: ir.Value) -> None:
        """Note that a value is no rows: it is known where it holds one number in every run."""
        number = self.constants.number(value)
        self.say(value, None if number is None else number_like(value, number))

    def follow(self, op: ir.Operation, value: ir.Value, is_rows: Sequence[bool]) -> None:
        """Work out what an op makes of rows, unless it is known; what else it reads is whole.

        Args:
            op: the op.
            value: one of its results.
            is_rows: per operand, whether it is read as rows.
        """
        for read, rows in zip(op.operands, is_rows, strict=True):
            if self.has(value):
                return
            if not self.has(read):
                self.say_whole(read)
            elif not rows and self.constants.number(read) is None:
                self.say(value, None)  # Rows elsewhere, and here a whole.
        self.of(value)


def number_like(value: ir.Value, number: float) -> Fill:
    """Return a number as one of a value's type."""
    dtype = dtype_of(element_of(value))
    return None if dtype is None else np.asarray(number).astype(dtype)


def _is(fill: Fill, number: float) -> bool:
    return isinstance(fill, np.ndarray) and bool(fill == number)


def _equal(fills: list[Fill]) -> Fill:
    """Return what all sides are filled with, if that is the same."""
    first = fills[0]
    same = all(f is first or (isinstance(first, np.ndarray) and _is(f, first.item()))
               for f in fills)  # fmt: skip
    return first if same else None


def _moved(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    return domain.of(same_operand(op, value))


def _put_together(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    return _equal([domain.of(v) for v in op.operands])


def _folded(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    sides = [domain.of(v) for v in op.operands]
    numbers = [side for side in sides if isinstance(side, np.ndarray)]
    if len(numbers) == len(sides) and (made := fold(op, numbers)) is not None:
        return made
    return BEYOND if kind_of(op) == "convert" and sides[0] is BEYOND else None


def _product(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    is_zero = any(_is(domain.of(v), 0) for v in op.operands)
    return number_like(value, 0) if is_zero else _folded(domain, op, value)


def _contracted(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    is_zero = any(_is(domain.of(v), 0) for v in list(op.operands)[:2])
    return number_like(value, 0) if is_zero else None


def _selected(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    mask, yes, no = (domain.of(v) for v in op.operands)
    if isinstance(mask, np.ndarray):
        return yes if mask else no
    return _equal([yes, no])


def _reduced(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    if len(op.results) != 1:
        return None
    own, start = (domain.of(v) for v in op.operands)
    if reducer(op) in ("and", "or", "maximum", "minimum"):
        return _equal([own, start])
    return own if reducer(op) == "add" and _is(own, 0) and _is(start, 0) else None


def _kept_zero(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    return number_like(value, 0) if _is(domain.of(op.operands[0]), 0) else None


def _constant(domain: Fills, op: ir.Operation, value: ir.Value) -> Fill:
    number = domain.constants.number(value)
    return None if number is None else number_like(value, number)


_MOVES = (
    "broadcast_in_dim", "dynamic_slice", "optimization_barrier", "reshape", "reverse", "slice",
    "transpose",
)  # fmt: skip

Fills.rules = {
    **dict.fromkeys(KEEPS_ZERO - FOLDED, _kept_zero),
    **dict.fromkeys(FOLDED, _folded),
    **dict.fromkeys(_MOVES, _moved),
    "concatenate": _put_together,
    "multiply": _product, "and": _product,
    "dot_general": _contracted, "ragged_dot": _contracted,
    "select": _selected,
    "reduce": _reduced,
    "constant": _constant,
}  # fmt: skip
