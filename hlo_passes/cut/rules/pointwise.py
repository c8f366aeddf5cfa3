"""Ops that treat every element alone, and those that make elements from nothing."""

from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import (
    Part,
    Rule,
    Rules,
    by_factors,
    clone_part,
    part_type,
    pointwise_factors,
)
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.parts import take_part
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.ir.traits import POINTWISE
from hlo_passes.proofs.engine import NotProved


def _cut(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    rank = max(len(shape_of(v)) for v in (*op.operands, *op.results))
    return by_factors(pointwise_factors(op, range(rank)), spot, cut)


def _cut_bitcast(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    if shape_of(op.operands[0]) != shape_of(op.results[0]):
        raise NotProved("a bitcast that changes the shape")
    return _cut(op, spot, cut, k)


def _cut_iota(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    return OpSplit((), (cut,))


def _part_iota(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    (cut,) = part.split.results
    assert isinstance(cut, Cut)
    if integer(op, "iota_dimension") != cut.dim:
        return clone_part(op, operands, part)
    assert isinstance(part.k, int)
    # Narrow types round what they count, so a part is counted as the whole is.
    counted = op.clone().results[0]
    return [take_part(counted, cut.dim, cut.outer, part.index, part.k)]


def _cut_constant(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    if splat_of(op) is None:
        raise NotProved("a constant table, sliced instead")
    return OpSplit((), (cut,))


def splat_of(op: ir.Operation) -> ir.Attribute | None:
    """Return the one number that a constant holds everywhere, or None."""
    try:
        value = op.attributes["value"]
    except TypeError:  # Complex numbers have no Python form.
        return None
    if not isinstance(value, ir.DenseElementsAttr) or not value.is_splat:
        return None
    return value.get_splat_value()


def _part_constant(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    (cut,) = part.split.results
    assert isinstance(cut, Cut)
    kind = part_type(op.results[0].type, cut, part.k)
    value = splat_of(op)
    assert value is not None
    attributes = {"value": ir.DenseElementsAttr.get_splat(kind, value)}
    return list(ir.Operation.create(op.name, results=[kind], attributes=attributes).results)


RULES: Rules = {
    **{kind: Rule(_cut, clone_part) for kind in sorted(POINTWISE)},
    "bitcast_convert": Rule(_cut_bitcast, clone_part),
    "iota": Rule(_cut_iota, _part_iota),
    "constant": Rule(_cut_constant, _part_constant),
}
