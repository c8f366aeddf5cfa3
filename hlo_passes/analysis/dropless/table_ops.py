"""What ops make of whole numbers that are known: those that move them, or work on fixed ones."""

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.analysis.counting import direction_of
from hlo_passes.analysis.split_rules.pointwise import splat_of
from hlo_passes.ir.attributes import integer, ints, shape_of

_COMPARE = {
    "EQ": np.equal, "NE": np.not_equal, "LT": np.less, "LE": np.less_equal, "GT": np.greater,
    "GE": np.greater_equal,
}  # fmt: skip


def fits(at: np.ndarray, element: ir.IntegerType) -> bool:
    """Whether fixed numbers are what an integer type holds, so that nothing wraps around."""
    signed = element.width > 1 and not element.is_unsigned
    low = -(2 ** (element.width - 1)) if signed else 0
    high = 2 ** (element.width - signed) - 1
    return not at.size or (low <= int(at.min()) and int(at.max()) <= high)


def constant(op: ir.Operation, value: ir.Value) -> np.ndarray:
    """Return what a constant holds."""
    number, shape = splat_of(op), shape_of(value)
    if number is not None:
        return np.full(shape, int(number.value), np.int64)
    flat = [int(x) for x in ir.DenseIntElementsAttr(op.attributes["value"])]
    return np.asarray(flat, np.int64).reshape(shape)


def counted(op: ir.Operation, value: ir.Value) -> np.ndarray:
    """Return what an iota holds."""
    shape, dim = shape_of(value), integer(op, "iota_dimension")
    along = [-1 if d == dim else 1 for d in range(len(shape))]
    return np.broadcast_to(np.arange(shape[dim], dtype=np.int64).reshape(along), shape)


def repeated(op: ir.Operation, at: np.ndarray, value: ir.Value) -> np.ndarray:
    """Repeat what is broadcast."""
    made, placed = shape_of(value), ints(op, "broadcast_dimensions")
    order = np.argsort(placed)
    lined = at.transpose(order)
    shape = [1] * len(made)
    for axis, dim in zip(order, sorted(placed), strict=True):
        shape[dim] = at.shape[axis]
    return np.broadcast_to(lined.reshape(shape), made)


def sliced(op: ir.Operation, at: np.ndarray, value: ir.Value) -> np.ndarray:
    """Take what a slice takes."""
    bounds = (ints(op, name) for name in ("start_indices", "limit_indices", "strides"))
    return at[tuple(slice(*bound) for bound in zip(*bounds, strict=True))]


def compared(op: ir.Operation, sides: list[np.ndarray]) -> np.ndarray:
    """Compare two tensors."""
    return _COMPARE[direction_of(op)](*sides)


def truncated(op: ir.Operation, sides: list[np.ndarray]) -> np.ndarray:
    """Divide as XLA does, towards zero; by zero is nobody's count."""
    left, right = sides
    quotient = np.abs(left) // np.maximum(np.abs(right), 1)
    return np.sign(left) * np.sign(right) * quotient
