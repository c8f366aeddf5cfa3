"""Takes parts out of whole tensors, and puts parts together again."""

import math
from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.ir.attributes import shape_of
from hlo_passes.ir.build import binary, concatenate, reshape, slice_of, tensor

_NARROW = ("bf16", "f16")


def take_part(value: ir.Value, dim: int, outer: int, index: int, k: int) -> ir.Value:
    """Take part `index` of `k` of a dim that is seen as `[outer, k, rest]`."""
    dims = shape_of(value)
    size = dims[dim] // (outer * k)
    if outer == 1:
        return slice_of(value, dim, index * size, (index + 1) * size)
    blocks = reshape(value, (*dims[:dim], outer, k * size, *dims[dim + 1 :]))
    taken = slice_of(blocks, dim + 1, index * size, (index + 1) * size)
    return reshape(taken, (*dims[:dim], outer * size, *dims[dim + 1 :]))


def join_parts(parts: Sequence[ir.Value], dim: int, outer: int) -> ir.Value:
    """Put the parts of a dim together that `take_part` took apart."""
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
    """Whether a tensor is of 16-bit floating-point numbers."""
    return str(tensor(value).element_type) in _NARROW


def widen(product: ir.Value) -> None:
    """Let a product of 16-bit numbers give 32-bit ones."""
    if is_narrow(product):
        product.set_type(ir.RankedTensorType.get(tensor(product).shape, ir.F32Type.get()))
