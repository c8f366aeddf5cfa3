"""Where the elements of a value are from, through all that only moves them.

chosen -> reshape -> transpose -> convert: the same numbers, in another order
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import ints, maker_of, same_operand, shape_of
from hlo_passes.proofs.arithmetic import element_of
from hlo_passes.proofs.constants import lined_up
from hlo_passes.proofs.engine import Domain, FactRules
from hlo_passes.proofs.ranges import Ranges, in_type


@dataclass(frozen=True, slots=True)
class View:
    """Elements of a value in some order.

    Attributes:
        value: number of the value that the elements are from.
        at: which of its elements, int64, in the shape of the view.
    """

    value: object
    at: np.ndarray

    def is_like(self, other: "View") -> bool:
        """Whether both hold the same elements in the same order."""
        return self.value == other.value and np.array_equal(self.at.ravel(), other.at.ravel())


class Elements(Domain[View]):
    """What values have from where; nothing is left out, and nothing is there twice.

    Attributes:
        numbers: value numbers of the block.
        ranges: between which numbers its values are, by which conversions are known to keep them.
    """

    rules: ClassVar[FactRules]

    def __init__(self, numbers: Mapping[ir.Value, int], ranges: Ranges) -> None:
        super().__init__()
        self.numbers, self.ranges = numbers, ranges

    def unknown(self, value: ir.Value) -> View:
        """Return a value as what its elements are from."""
        shape = shape_of(value)
        return View(self.numbers.get(value, value), np.arange(math.prod(shape)).reshape(shape))

    def is_known(self, value: ir.Value) -> bool:
        """Whether a value has its elements from another."""
        return self.of(value).value != self.unknown(value).value

    def without_last(self, value: ir.Value) -> View | None:
        """Return what a value repeats along its last dim, if that is all that happens there."""
        if shape_of(value)[-1] == 1:
            found = self.of(value)
            return View(found.value, found.at.reshape(shape_of(value)[:-1]))
        op = maker_of(value)
        while op is not None and op.name == "stablehlo.convert" and self.keeps_numbers(op):
            op = maker_of(op.operands[0])
        if op is None or op.name != "stablehlo.broadcast_in_dim":
            return None
        made, source = shape_of(op.results[0]), shape_of(op.operands[0])
        placed = ints(op, "broadcast_dimensions")
        if len(made) - 1 in placed and source[placed.index(len(made) - 1)] != 1:
            return None
        found = self.of(op.operands[0])
        lined = repeated(found.at.reshape(source), placed, made)
        return View(found.value, lined[..., 0])

    def keeps_numbers(self, op: ir.Operation) -> bool:
        """Whether a conversion changes no number that can occur."""
        found = self.ranges.of(op.operands[0])
        return not found.is_any and in_type(found, element_of(op.results[0])) == found


def repeated(at: np.ndarray, placed: tuple[int, ...], made: tuple[int, ...]) -> np.ndarray:
    """Broadcast as `broadcast_in_dim` does, without copies.

    Args:
        at: what is repeated.
        placed: per dim of it, its dim in what is made.
        made: shape of what is made.
    """
    return np.broadcast_to(lined_up(at, placed, len(made)), made)


def made_in_order(value: ir.Value) -> tuple[ir.Operation | None, ir.Value]:
    """Return what makes a value, and the value, behind ops that leave elements in their order."""
    while (op := maker_of(value)) is not None:
        kind = op.name.removeprefix("stablehlo.")
        if kind not in ("reshape", "broadcast_in_dim", "optimization_barrier"):
            break
        source = same_operand(op, value)
        if math.prod(shape_of(source)) != math.prod(shape_of(value)) or not is_ascending(op):
            break
        value = source
    return op, value


def is_ascending(op: ir.Operation) -> bool:
    """Whether a broadcast keeps the order of dims; any other op does."""
    dims = ints(op, "broadcast_dimensions") if op.name.endswith("broadcast_in_dim") else ()
    return list(dims) == sorted(dims)


def _moved(change: Callable[[ir.Operation, np.ndarray], np.ndarray]):
    """Return a rule for ops that put the elements of their first operand in another order."""

    def rule(domain: Elements, op: ir.Operation, value: ir.Value) -> View:
        source = op.operands[0]
        if math.prod(shape_of(source)) != math.prod(shape_of(value)):
            return domain.unknown(value)
        found = domain.of(source)
        return View(found.value, change(op, found.at.reshape(shape_of(source))))

    return rule


def _same(domain: Elements, op: ir.Operation, value: ir.Value) -> View:
    return domain.of(same_operand(op, value))


def _convert(domain: Elements, op: ir.Operation, value: ir.Value) -> View:
    return domain.of(op.operands[0]) if domain.keeps_numbers(op) else domain.unknown(value)


Elements.rules = {
    "optimization_barrier": _same,
    "convert": _convert,
    "reshape": _moved(lambda op, at: at.reshape(shape_of(op.results[0]))),
    "transpose": _moved(lambda op, at: at.transpose(ints(op, "permutation"))),
    "reverse": _moved(lambda op, at: np.flip(at, ints(op, "dimensions"))),
    "broadcast_in_dim": _moved(
        lambda op, at: repeated(at, ints(op, "broadcast_dimensions"), shape_of(op.results[0]))
    ),
}
