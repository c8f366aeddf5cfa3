"""Follows values through ops that only move elements: where the dims of one are in another."""

import math
from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.analysis.split_rules.pointwise import splat_of
from hlo_passes.analysis.split_rules.reduce import reducer, starts_from_nothing
from hlo_passes.ir.attributes import integer, ints, shape_of

type Label = int
"""A dim: of the value at hand, from 0; or one that was summed over, negative."""

_COUNTS = {"f64": 2**53, "f32": 2**24, "f16": 2**11, "bf16": 2**8}
"""Up to which number floats count exactly."""


def move_of(op: ir.Operation, value: ir.Value) -> tuple[ir.Value, tuple[Label | None, ...]] | None:
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


def unit_places(source: tuple[int, ...], made: tuple[int, ...]) -> tuple[Label | None, ...] | None:
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
    return merge == "maximum" and _is_lowest(op.operands[1])


def _is_lowest(value: ir.Value) -> bool:
    """Whether a value is the lowest of its type."""
    op = _maker(root_of(value)[0])
    number = splat_of(op) if op is not None and op.name == "stablehlo.constant" else None
    if isinstance(number, ir.FloatAttr):
        return number.value == -math.inf
    if isinstance(number, ir.IntegerAttr) and not ir.IntegerType(number.type).is_unsigned:
        return number.value == -(2 ** (ir.IntegerType(number.type).width - 1))
    return False


def root_of(value: ir.Value) -> tuple[ir.Value, tuple[Label | None, ...]]:
    """Follow a value back through moves: to what it is from, and where it has the dims of that."""
    places: Sequence[Label | None] = range(len(shape_of(value)))
    while (op := _maker(value)) is not None and (move := move_of(op, value)) is not None:
        value = move[0]
        places = [None if p is None else places[p] for p in move[1]]
    return value, tuple(places)


def counts_along(value: ir.Value) -> Label | None:
    """Return the dim along which a value is 0, 1, 2, ..., the same along all others."""
    types = [value.type.element_type]
    places: Sequence[Label | None] = range(len(shape_of(value)))
    while True:
        value, at = root_of(value)
        places = [None if a is None else places[a] for a in at]
        op = _maker(value)
        if op is None:
            given = _given_to_loop(value)
            if given is None:
                return None
            value = given
        elif op.name == "stablehlo.convert":
            value = op.operands[0]
            types.append(value.type.element_type)
        else:
            break
    if op.name != "stablehlo.iota":
        return None
    dim = integer(op, "iota_dimension")
    count = shape_of(value)[dim]
    return places[dim] if all(_holds(kind, count) for kind in types) else None


def _maker(value: ir.Value) -> ir.Operation | None:
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


def _given_to_loop(value: ir.Value) -> ir.Value | None:
    """Return what a loop was given for a value that no trip changes; None if it is no such value.

    XLA moves what is the same in every trip out of loops.
    """
    argument = ir.BlockArgument(value)
    block, number = argument.owner, argument.arg_number
    loop = block.owner.operation
    if loop.name != "stablehlo.while" or block != loop.regions[1].blocks[0]:
        return None
    end = list(block.operations)[-1].operation
    return loop.operands[number] if end.operands[number] == value else None


def _holds(kind: ir.Type, count: int) -> bool:
    """Whether a type has all numbers below a count."""
    if isinstance(kind, ir.IntegerType):
        return count <= 2 ** (kind.width - (0 if kind.is_unsigned else 1))
    return count <= _COUNTS.get(str(kind), 0)
