"""Numbers that a value holds in every run.

They are kept as small as they are: along a dim in which all elements are the same, a constant has
one of them, so that what is broadcast or counted out costs nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import integer, ints, same_operand, shape_of
from hlo_passes.proofs.arithmetic import FOLDED, counts_to, dtype_of, element_of, fold, is_float
from hlo_passes.proofs.engine import Domain, FactRules

type Known = np.ndarray | None
"""Of the value's type and rank, with 1 for dims in which nothing changes; None if not known."""

_MOST = 2**20
"""Elements of a constant that is followed."""


class Constants(Domain[Known]):
    """What values hold whatever the input."""

    rules: ClassVar[FactRules]
    is_absolute = True

    def unknown(self, value: ir.Value) -> Known:
        """Nothing is known of the numbers of most values."""
        return None

    def is_known(self, value: ir.Value) -> bool:
        """Whether the numbers are known."""
        return self.of(value) is not None

    def all_of(self, value: ir.Value) -> Known:
        """Return a value's numbers in its full shape, without copies."""
        found = self.of(value)
        return None if found is None else np.broadcast_to(found, shape_of(value))

    def number(self, value: ir.Value) -> float | None:
        """Return the one number that a value holds everywhere; a flag is 0 or 1."""
        found = self.of(value)
        if found is None or not found.size or not np.all(found == found.flat[0]):
            return None
        item = found.flat[0]
        return float(item) if is_float(found.dtype) else int(item)

    def is_zero(self, value: ir.Value) -> bool:
        """Whether a value is zero everywhere."""
        return self.number(value) == 0

    def is_lowest(self, value: ir.Value) -> bool:
        """Whether a value is the lowest of its type everywhere."""
        found, number = self.of(value), self.number(value)
        if found is None or number is None:
            return False
        if is_float(found.dtype):
            return number == -math.inf
        return number == (0 if found.dtype.kind == "b" else np.iinfo(found.dtype).min)

    def counts_along(self, value: ir.Value) -> int | None:
        """Return the dim along which a value is 0, 1, 2, ..., the same along all others."""
        found, shape = self.of(value), shape_of(value)
        if found is None or not shape or not found.size:
            return None
        longer = [d for d, size in enumerate(found.shape) if size != 1]
        ones = [d for d, size in enumerate(shape) if size == 1]
        candidates = longer or ones[-1:]
        if len(candidates) != 1:
            return None
        (dim,) = candidates
        counted = found.ravel().astype(np.float64)
        return dim if np.array_equal(counted, np.arange(shape[dim])) else None


def _constant(domain: Constants, op: ir.Operation, value: ir.Value) -> Known:
    dtype, shape = dtype_of(element_of(value)), shape_of(value)
    try:
        given = op.attributes["value"]
    except TypeError:  # Complex numbers have no Python form.
        return None
    if dtype is None or not isinstance(given, ir.DenseElementsAttr):
        return None
    if given.is_splat:
        return np.full((1,) * len(shape), given.get_splat_value().value).astype(dtype)
    try:
        return np.array(given) if math.prod(shape) <= _MOST else None
    except TypeError:  # Nor have vectors of some narrow floats.
        return None


def _iota(domain: Constants, op: ir.Operation, value: ir.Value) -> Known:
    dtype, shape = dtype_of(element_of(value)), shape_of(value)
    dim = integer(op, "iota_dimension")
    if dtype is None or dtype.kind == "b" or shape[dim] > _MOST:
        return None
    most = counts_to(dtype) if is_float(dtype) else np.iinfo(dtype).max
    if shape[dim] - 1 > most:
        return None
    return (
        np.arange(shape[dim])
        .astype(dtype)
        .reshape([-1 if d == dim else 1 for d in range(len(shape))])
    )


def _same(domain: Constants, op: ir.Operation, value: ir.Value) -> Known:
    return domain.of(same_operand(op, value))


def _moved(change: Callable[[ir.Operation, np.ndarray], Known]):
    """Return a rule for ops that move the elements of their first operand."""

    def rule(domain: Constants, op: ir.Operation, value: ir.Value) -> Known:
        found = domain.of(op.operands[0])
        return None if found is None else change(op, found)

    return rule


def lined_up(at: np.ndarray, placed: Sequence[int], rank: int) -> np.ndarray:
    """Put dim i where `placed[i]` says, as `broadcast_in_dim` does, and 1 for all others.

    Args:
        at: numbers, or what stands for them.
        placed: per dim of it, its dim in what is made.
        rank: dims of what is made.
    """
    shape = [1] * rank
    for dim, size in zip(placed, at.shape, strict=True):
        shape[dim] = size
    return at.transpose(np.argsort(placed)).reshape(shape)


def _repeated(op: ir.Operation, found: np.ndarray) -> np.ndarray:
    return lined_up(found, ints(op, "broadcast_dimensions"), len(shape_of(op.results[0])))


def _reshaped(op: ir.Operation, found: np.ndarray) -> Known:
    source, made = shape_of(op.operands[0]), shape_of(op.results[0])
    if found.size == 1:
        return found.reshape((1,) * len(made))
    large = [d for d, size in enumerate(source) if size != 1]
    placed = [d for d, size in enumerate(made) if size != 1]
    if [source[d] for d in large] == [made[d] for d in placed]:
        shape = [1] * len(made)
        for old, new in zip(large, placed, strict=True):
            shape[new] = found.shape[old]
        return found.reshape(shape)
    return np.broadcast_to(found, source).reshape(made) if math.prod(made) <= _MOST else None


def _sliced(op: ir.Operation, found: np.ndarray) -> np.ndarray:
    bounds = zip(*(ints(op, n) for n in ("start_indices", "limit_indices", "strides")), strict=True)
    taken = zip(found.shape, bounds, strict=True)
    return found[tuple(slice(None) if size == 1 else slice(*bound) for size, bound in taken)]


def _concatenate(domain: Constants, op: ir.Operation, value: ir.Value) -> Known:
    found = [domain.of(v) for v in op.operands]
    known = [part for part in found if part is not None]
    dim = integer(op, "dimension")
    if len(known) != len(found):
        return None
    shape = [max(sizes) for sizes in zip(*(part.shape for part in known), strict=True)]
    if math.prod(shape) // shape[dim] * shape_of(value)[dim] > _MOST:
        return None
    sizes = [shape_of(v)[dim] for v in op.operands]
    parts = [
        np.broadcast_to(part, [*shape[:dim], size, *shape[dim + 1 :]])
        for part, size in zip(known, sizes, strict=True)
    ]
    return np.concatenate(parts, axis=dim)


def _folded(domain: Constants, op: ir.Operation, value: ir.Value) -> Known:
    known = [part for v in op.operands if (part := domain.of(v)) is not None]
    if len(known) != len(op.operands):
        return None
    if math.prod(np.broadcast_shapes(*(part.shape for part in known))) > _MOST:
        return None
    made = fold(op, known)
    rank = len(shape_of(value))
    return made if made is None or made.ndim == rank else made.reshape((1,) * rank)


Constants.rules = {
    **dict.fromkeys(FOLDED, _folded),
    "constant": _constant,
    "iota": _iota,
    "optimization_barrier": _same,
    "broadcast_in_dim": _moved(_repeated),
    "reshape": _moved(_reshaped),
    "transpose": _moved(lambda op, at: at.transpose(ints(op, "permutation"))),
    "reverse": _moved(lambda op, at: np.flip(at, ints(op, "dimensions"))),
    "slice": _moved(_sliced),
    "concatenate": _concatenate,
}
