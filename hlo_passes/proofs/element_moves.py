"""Follows values through ops that only move elements: where the dims of one are in another."""

import math
from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import ints, maker_of, reducer, shape_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.prefix import starts_from_nothing

type DimName = int
"""A dim: of the value at hand, from 0; or one that was summed over, negative."""


def move_of(
    op: ir.Operation, value: ir.Value
) -> tuple[ir.Value, tuple[DimName | None, ...]] | None:
    """Return what an op moves, and per dim of that the dim of the result that it runs along."""
    kind = op.name.rpartition(".")[2]
    if kind == "optimization_barrier":
        source = op.operands[list(op.results).index(value)]
        return source, tuple(range(len(shape_of(source))))
    if kind == "transpose":
        permutation = ints(op, "permutation")
        return op.operands[0], tuple(permutation.index(d) for d in range(len(permutation)))
    if kind == "broadcast_in_dim":
        source, made = shape_of(op.operands[0]), shape_of(value)
        placed = zip(ints(op, "broadcast_dimensions"), source, strict=True)
        return op.operands[0], tuple(p if made[p] == size else None for p, size in placed)
    if kind == "reduce" and _is_of_one(op):
        gone = ints(op, "dimensions")
        rest = iter(range(len(shape_of(value))))
        rank = len(shape_of(op.operands[0]))
        return op.operands[0], tuple(None if d in gone else next(rest) for d in range(rank))
    if kind == "reshape":
        places = unit_places(shape_of(op.operands[0]), shape_of(value))
        return None if places is None else (op.operands[0], places)
    return None


def unit_places(
    source: tuple[int, ...], made: tuple[int, ...]
) -> tuple[DimName | None, ...] | None:
    """Return where a reshape leaves dims, if all that it does is add and drop dims of size 1."""
    if math.prod(source) != math.prod(made):
        return None
    large = [d for d, size in enumerate(made) if size != 1]
    if [size for size in source if size != 1] != [made[d] for d in large]:
        return None
    rest = iter(large)
    return tuple(next(rest) if size != 1 else None for size in source)


def _is_of_one(op: ir.Operation) -> bool:
    """Whether a reduction is one of single elements, which it leaves as they are."""
    shape = shape_of(op.operands[0])
    if len(op.results) != 1 or any(shape[d] != 1 for d in ints(op, "dimensions")):
        return False
    merge = reducer(op)
    if merge in ("add", "multiply"):
        return starts_from_nothing(op, merge)
    return merge == "maximum" and Constants().is_lowest(op.operands[1])


def root_of(value: ir.Value) -> tuple[ir.Value, tuple[DimName | None, ...]]:
    """Follow a value back through moves: to what it is from, and where it has the dims of that."""
    places: Sequence[DimName | None] = range(len(shape_of(value)))
    while (op := maker_of(value)) is not None and (move := move_of(op, value)) is not None:
        value = move[0]
        places = [None if p is None else places[p] for p in move[1]]
    return value, tuple(places)
