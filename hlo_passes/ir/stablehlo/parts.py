"""Takes parts out of whole tensors, and puts parts together again."""

import math
from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.build import binary, concatenate, convert, reshape, slice_of, tensor
from hlo_passes.ir.stablehlo.read import shape_of

_WIDE = 32
_PRODUCTS = ("stablehlo.dot_general", "chlo.ragged_dot")


def take_part(value: ir.Value, dim: int, outer: int, index: int, k: int) -> ir.Value:
    """Take part `index` of `k` of a dim that is seen as `[outer, k, rest]`.

    Args:
        value: the tensor.
        dim: which is cut.
        outer: into how many blocks the dim falls, each cut by itself.
        index: which part.
        k: how many parts.
    """
    dims = shape_of(value)
    size = dims[dim] // (outer * k)
    if outer == 1:
        return slice_of(value, dim, index * size, (index + 1) * size)
    blocks = reshape(value, (*dims[:dim], outer, k * size, *dims[dim + 1 :]))
    taken = slice_of(blocks, dim + 1, index * size, (index + 1) * size)
    return reshape(taken, (*dims[:dim], outer * size, *dims[dim + 1 :]))


def join_parts(parts: Sequence[ir.Value], dim: int, outer: int) -> ir.Value:
    """Put the parts of a dim together that `take_part` took apart.

    Args:
        parts: in order.
        dim: along which they were cut.
        outer: into how many blocks the dim falls, each cut by itself.
    """
    if outer == 1:
        return concatenate(parts, dim)
    dims = shape_of(parts[0])
    size = dims[dim] // outer
    blocks = [reshape(part, (*dims[:dim], outer, size, *dims[dim + 1 :])) for part in parts]
    whole = concatenate(blocks, dim + 1)
    return reshape(whole, (*dims[:dim], math.prod((outer, size, len(parts))), *dims[dim + 1 :]))


def add_parts(parts: Sequence[ir.Value], merge: str) -> ir.Value:
    """Put partial results together with a binary op, first parts first."""
    total = parts[0]
    for part in parts[1:]:
        total = binary(merge, total, part)
    return total


def is_narrow(value: ir.Value) -> bool:
    """Whether a tensor is of floating-point numbers of 16 bits or less."""
    element = tensor(value).element_type
    return isinstance(element, ir.FloatType) and element.width < _WIDE


def add_up(parts: Sequence[ir.Value], merge: str, element: ir.Type) -> ir.Value:
    """Put what parts gave together, as elements of the type that the whole op made.

    Totals of narrow products are kept in 32 bits and rounded once, as the uncut product's are.

    Args:
        parts: what each part gave.
        merge: name of the binary op that puts two together.
        element: type of the result's elements.
    """
    for part in parts:
        if is_narrow(part) and part.owner.name in _PRODUCTS:
            part.set_type(ir.RankedTensorType.get(tensor(part).shape, ir.F32Type.get()))
    return convert(add_parts(parts, merge), element)
