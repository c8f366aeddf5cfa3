"""Reductions and prefix sums."""

from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import OpLoop, Part, Rule, Rules, by_factors, clone_part, clone_with
from hlo_passes.cut.states import Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.build import binary, broadcast, convert, reduce_over, reshape, slice_of
from hlo_passes.ir.stablehlo.parts import is_narrow
from hlo_passes.ir.stablehlo.read import has_steps, integer, ints, padding, reducer, shape_of
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.prefix import NEUTRAL, is_prefix, starts_from_nothing

_SCAN = "chlo.scan"


def _cut_reduce(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """Cut along a dim that stays, or sum over one that goes."""
    count, merge = len(op.results), reducer(op)
    reduced = set(ints(op, "dimensions"))
    kept = [d for d in range(len(shape_of(op.operands[0]))) if d not in reduced]
    nothing = (None,) * count
    factors = [OpLoop((d,) * count + nothing, (i,) * count) for i, d in enumerate(kept)]
    if merge is not None and count == 1:
        factors += [OpLoop((d, None), (None,)) for d in sorted(reduced)]
    if spot.side == "operand" and cut.dim in reduced:
        _refuse_separate_sums(op, merge, count)
    return by_factors(factors, spot, cut, merge or "add")


def _refuse_separate_sums(op: ir.Operation, merge: str | None, count: int) -> None:
    """Refuse a reduction whose parts would have to be put together, and cannot be."""
    if merge is not None:
        _refuse_counted_start(op, merge)
    if merge is None or count != 1:
        raise NotProved(
            "reduces the cut dim with more than one op: its parts cannot be put together"
        )


def _part_reduce(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    """Build a reduction of one part; sums of 16-bit numbers are of 32 bits, as XLA's own are."""
    state = part.split.results[0]
    if not isinstance(state, Sum) or state.merge not in NEUTRAL or not is_narrow(operands[0]):
        return clone_part(op, operands, part)
    wide = convert(operands[0], ir.F32Type.get())
    return [reduce_over(wide, ints(op, "dimensions"), state.merge, NEUTRAL[state.merge])]


def _refuse_counted_start(op: ir.Operation, merge: str) -> None:
    """Every part starts from the start value: once more must change nothing."""
    if not starts_from_nothing(op, merge):
        raise NotProved(f"{merge}s up the cut dim from a start that every part would count again; "
                      "start from a constant that changes nothing")  # fmt: skip


def _refuse_rounded_count(op: ir.Operation) -> None:
    """Refuse a prefix sum that would give other slots: bfloat16 counts no further than 256."""
    if is_narrow(op.operands[0]):
        raise NotProved("a prefix sum in 16 bits rounds otherwise in parts; count in int32")


def _cut_window(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """Cut along a dim that the window does not slide over, or carry a prefix sum."""
    if len(op.results) != 1:
        raise NotProved("a window over several tensors")
    window = ints(op, "window_dimensions")
    shape = shape_of(op.operands[0])
    if shape != shape_of(op.results[0]) or has_steps(op):
        raise NotProved("a window that changes the shape")
    if window[cut.dim] == 1 and padding(op)[cut.dim] != (0, 0):
        raise NotProved(f"a window that moves the cut dim {cut.dim}; pad and slice it instead")
    if window[cut.dim] != 1:
        if not is_prefix(op, cut.dim):
            raise NotProved(f"a window over the cut dim {cut.dim} that is no prefix sum")
        if cut.outer != 1:
            raise NotProved("a prefix sum over a dim that is cut block by block: its order is not "
                          "the order of the parts")  # fmt: skip
        _refuse_rounded_count(op)
        return OpSplit((cut, None), (cut,), carries=True)
    factors = [OpLoop((d, None), (d,)) for d in range(len(shape))]
    return by_factors(factors, spot, cut)


def _part_window(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    """Build a prefix sum that goes on where the parts before it ended."""
    if not part.split.carries:
        return clone_part(op, operands, part)
    (counted,) = clone_with(_shorter)(op, operands, part)
    if part.carry is None:
        return [counted]
    return [binary("add", counted, broadcast(part.carry, counted.type))]


def carry_of(op: ir.Operation, made: Sequence[ir.Value]) -> ir.Value:
    """Return what the next part of a prefix sum starts from: the last slice of this one."""
    if op.name == _SCAN:
        dim = integer(op, "dimension")
    else:
        (dim,) = [d for d, w in enumerate(ints(op, "window_dimensions")) if w != 1]
    size = shape_of(made[0])[dim]
    return slice_of(made[0], dim, size - 1, size)


def _cut_scan(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """Go on from part to part: a scan hands out where it ended."""
    if len(op.operands) != 2 or len(op.results) != 2:
        raise NotProved("a scan of several tensors")
    if spot.index or cut.dim != integer(op, "dimension"):
        raise NotProved("a scan beside the dim that it runs along: its region is for whole slices; "
                      "cut that dim, or join the parts first")  # fmt: skip
    if cut.outer != 1 or ir.BoolAttr(op.attributes["is_reverse"]).value:
        raise NotProved("a scan whose order is not the order of the parts")
    if reducer(op) != "add":
        raise NotProved("a scan over the cut dim that is no prefix sum")
    _refuse_counted_start(op, "add")
    _refuse_rounded_count(op)
    return OpSplit((cut, None), (cut, None), carries=True)


def _part_scan(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    """Build one part of a scan.

    The total of the parts before is added to what it counts, and its end is read off there: XLA
    makes a loop over single elements of a scan that starts elsewhere, or hands out its end.
    """
    counted = clone_part(op, operands, part)[0]
    if part.carry is not None:
        counted = binary("add", counted, broadcast(part.carry, counted.type))
    end = carry_of(op, [counted])
    return [counted, reshape(end, shape_of(op.results[1]))]


def _shorter(op: ir.Operation, part: Part) -> dict[str, ir.Attribute]:
    (cut,) = part.split.results
    assert isinstance(cut, Cut)
    window, margins = list(ints(op, "window_dimensions")), padding(op)
    window[cut.dim] //= part.k
    margins[cut.dim] = (window[cut.dim] - 1, 0)
    flat = [str(list(pair)) for pair in margins]
    kind = f"tensor<{len(margins)}x2xi64>"
    return {
        "window_dimensions": ir.DenseI64ArrayAttr.get(window),
        "padding": ir.Attribute.parse(f"dense<[{', '.join(flat)}]> : {kind}"),
    }


RULES: Rules = {
    "reduce": Rule(_cut_reduce, _part_reduce),
    "reduce_window": Rule(_cut_window, _part_window),
    "scan": Rule(_cut_scan, _part_scan),
}
