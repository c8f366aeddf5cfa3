"""How much an op does: floating point operations and HBM traffic, from shapes alone.

The rules are those of any roofline: a matrix product costs 2*M*N*K, everything else one operation
per element; an op reads its operands and writes its results once, and ops that touch a slice of a
large operand (gather, dynamic-slice, scatter, ...) are charged for the slice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from hlo_passes.ir.traits import MOVES_NOTHING, REDUCES, SLICES, UPDATES
from hlo_passes.ir.types import TensorType

_LINE_BYTES = 128
"""What GPUs read and write memory by."""


@dataclass(frozen=True, slots=True)
class Work:
    """Cost of one execution before any device is known.

    Attributes:
        flops: floating point operations.
        bytes: HBM bytes read and written.
        matmul: whether a matrix product is among them.
        dtype: operand type of the largest product, else the result's type.
    """

    flops: float
    bytes: float
    matmul: bool = False
    dtype: str = "f32"


def dot_flops(lhs: TensorType, result: TensorType, contracting: tuple[int, ...]) -> float:
    """Operations of a (batched) matrix product whose `lhs` contracts dims `contracting`.

    Args:
        lhs: left operand.
        result: what is made.
        contracting: dims of `lhs` that are summed over.
    """
    return 2.0 * result.elements * math.prod(lhs.shape[d] for d in contracting)


def convolution_flops(kernel: TensorType, result: TensorType, output_feature_dim: int) -> float:
    """Operations of a convolution: every output element reads the kernel of its feature.

    Args:
        kernel: second operand.
        result: what is made.
        output_feature_dim: dim of the kernel.
    """
    features = max(kernel.shape[output_feature_dim], 1)
    return 2.0 * result.elements * kernel.elements / features


def grouped_product(
    operands: Sequence[TensorType], results: Sequence[TensorType]
) -> tuple[float, TensorType] | None:
    """Return the operations of a kernel that multiplies rows by the matrix of their group.

    Such kernels (Mosaic GPU's, Triton's) are custom calls that say nothing of themselves, but their
    shapes do: rows `[m, k]` and matrices `[g, k, n]` make `[m, n]`; for the gradients of the
    matrices `[m, k]` and `[m, n]` make `[g, k, n]`. Every row is in one group, so the sizes of the
    groups do not matter. Matrices may lie transposed.

    Returns:
        The operations and the type of the rows; None where the shapes fit neither.
    """
    read = [o for o in operands if len(o.shape) in (2, 3)]
    for rows, other in permutations(read, 2):
        for made in results:
            if len(rows.shape) == 2 and _is_grouped(rows.shape, other.shape, made.shape):
                n = made.shape[1] if len(made.shape) == 2 else other.shape[1]
                return 2.0 * math.prod(rows.shape) * n, rows
    return None


def _is_grouped(rows: tuple[int, ...], other: tuple[int, ...], made: tuple[int, ...]) -> bool:
    """Whether `[m, k]` with a stack of matrices make `[m, n]`, or with `[m, n]` such a stack."""
    if (len(other), len(made)) not in ((2, 3), (3, 2)):
        return False
    (m, k), (flat, stack) = rows, sorted((other, made), key=len)
    return flat[0] == m and sorted(stack[1:]) == sorted((k, flat[1]))


def traffic(kind: str, operands: tuple[TensorType, ...], results: tuple[TensorType, ...]) -> float:
    """HBM bytes of an op that is not fused with its neighbours.

    Args:
        kind: StableHLO's name of the op.
        operands: every tensor that it reads, in order.
        results: every tensor that it makes.
    """
    if kind in MOVES_NOTHING:
        return 0.0
    written = float(sum(r.bytes for r in results))
    if kind in SLICES:
        return 2.0 * written + sum(o.bytes for o in operands[1:])
    if kind == "dynamic_update_slice" and len(operands) > 1:
        return 2.0 * operands[1].bytes
    if kind == "scatter" and len(operands) >= 3:
        arrays = len(operands) // 2
        return 3.0 * sum(o.bytes for o in operands[arrays + 1 :]) + operands[arrays].bytes
    return written + sum(o.bytes for o in operands)


def moves_lines(kind: str, operands: tuple[TensorType, ...], results: int) -> bool:
    """Whether a gather or scatter moves whole memory lines, and is as fast as any copy.

    What an index names is taken to lie in one piece, as rows do.

    Args:
        kind: StableHLO's name of the op.
        operands: every tensor that it reads, in order.
        results: bytes that it makes.
    """
    if kind not in ("gather", "scatter") or len(operands) < 2:
        return False
    arrays = len(operands) // 2
    moved = results if kind == "gather" else sum(o.bytes for o in operands[arrays + 1 :])
    return moved >= _LINE_BYTES * operands[arrays].elements


def pointwise_flops(
    kind: str, operands: tuple[TensorType, ...], results: tuple[TensorType, ...]
) -> float:
    """One operation per element made, or per element read by a reduction.

    Args:
        kind: StableHLO's name of the op.
        operands: every tensor that it reads.
        results: every tensor that it makes.
    """
    if kind in MOVES_NOTHING or kind in SLICES or kind in UPDATES:
        return 0.0
    made = sum(r.elements for r in results)
    if kind in REDUCES:
        return float(max(made, sum(o.elements for o in operands)))
    return float(made)
