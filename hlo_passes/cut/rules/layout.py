"""Ops that move elements without looking at them: transposes, reshapes, broadcasts."""

import math

from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import OpLoop, Rule, Rules, by_factors, clone_part
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.read import ints, shape_of
from hlo_passes.proofs.engine import NotProved


def _cut_transpose(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    factors = [OpLoop((old,), (new,)) for new, old in enumerate(ints(op, "permutation"))]
    return by_factors(factors, spot, cut)


def _cut_broadcast(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """A dim that the operand lacks, or has once, is the same in every part."""
    (made,), source = (shape_of(v) for v in op.results), shape_of(op.operands[0])
    placed = dict(zip(ints(op, "broadcast_dimensions"), range(len(source)), strict=True))
    factors = []
    for d in range(len(made)):
        old = placed.get(d)
        factors.append(OpLoop((old if old is not None and source[old] == made[d] else None,), (d,)))
    return by_factors(factors, spot, cut)


def _cut_reshape(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    source, made = shape_of(op.operands[0]), shape_of(op.results[0])
    if spot.side == "operand":
        return OpSplit((cut,), (cut_after_reshape(source, made, cut, k),))
    return OpSplit((cut_after_reshape(made, source, cut, k),), (cut,))


def cut_after_reshape(old: tuple[int, ...], new: tuple[int, ...], cut: Cut, k: int) -> Cut:
    """Return the cut of the reshaped tensor that holds the same elements in every part.

    Row by row in memory, a cut takes index i of the middle of `[before, k, after]`; a dim of the
    new shape holds that middle if what stands before it divides `before`.

    Args:
        old: the shape before.
        new: the shape after.
        cut: how the tensor is cut before.
        k: number of parts.

    Raises:
        NotProved: if the parts are not slices of one dim of the new shape.
    """
    if 0 in old:
        raise NotProved("reshapes a tensor without elements")
    before = math.prod(old[: cut.dim]) * cut.outer
    stands = 1
    for dim, size in enumerate(new):
        if size > 1 and before % stands == 0 and size % (before // stands * k) == 0:
            return Cut(dim, before // stands)
        stands *= size
    raise NotProved(f"reshape {list(old)} to {list(new)} scatters the {k} parts of dim {cut.dim}")


RULES: Rules = {
    "transpose": Rule(_cut_transpose, clone_part),
    "broadcast_in_dim": Rule(_cut_broadcast, clone_part),
    "reshape": Rule(_cut_reshape, clone_part),
}
