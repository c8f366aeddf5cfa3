"""Follows values through ops that only move elements: where the dims of one are in another."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import ints, kind_of, maker_of, reducer, same_operand, shape_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.prefix import starts_from_nothing

type DimName = int
"""A dim: of the value at hand, from 0; or one that was summed over, negative."""


def move_of(
    op: ir.Operation, value: ir.Value
) -> tuple[ir.Value, tuple[DimName | None, ...]] | None:
    """Return what an op moves, and per dim of that the dim of the result that it runs along."""
    rule = _PLACES.get(kind_of(op))
    if rule is None:
        return None
    source = same_operand(op, value)
    places = rule(op, shape_of(source), shape_of(value))
    return None if places is None else (source, places)


type _DimPlaces = tuple[DimName | None, ...] | None


def _stays(op: ir.Operation, source: tuple[int, ...], made: tuple[int, ...]) -> _DimPlaces:
    return tuple(range(len(source)))


def _transposed(op: ir.Operation, source: tuple[int, ...], made: tuple[int, ...]) -> _DimPlaces:
    permutation = ints(op, "permutation")
    return tuple(permutation.index(d) for d in range(len(permutation)))


def _repeated(op: ir.Operation, source: tuple[int, ...], made: tuple[int, ...]) -> _DimPlaces:
    placed = zip(ints(op, "broadcast_dimensions"), source, strict=True)
    return tuple(p if made[p] == size else None for p, size in placed)


def _reduced(op: ir.Operation, source: tuple[int, ...], made: tuple[int, ...]) -> _DimPlaces:
    if not _is_of_one(op):
        return None
    dropped, rest = ints(op, "dimensions"), iter(range(len(made)))
    return tuple(None if d in dropped else next(rest) for d in range(len(source)))


def _reshaped(op: ir.Operation, source: tuple[int, ...], made: tuple[int, ...]) -> _DimPlaces:
    return unit_places(source, made)


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


_PLACES: Mapping[str, Callable[..., _DimPlaces]] = MappingProxyType({
    "optimization_barrier": _stays,
    "transpose": _transposed,
    "broadcast_in_dim": _repeated,
    "reduce": _reduced,
    "reshape": _reshaped,
})  # fmt: skip
"""By the kind of op: (op, shape of what it moves, shape of what it makes) to the dims' places."""


def root_of(value: ir.Value) -> tuple[ir.Value, tuple[DimName | None, ...]]:
    """Follow a value back through moves: to what it is from, and where it has the dims of that."""
    places: Sequence[DimName | None] = range(len(shape_of(value)))
    while (op := maker_of(value)) is not None and (move := move_of(op, value)) is not None:
        value = move[0]
        places = [None if p is None else places[p] for p in move[1]]
    return value, tuple(places)
