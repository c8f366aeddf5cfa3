"""Reductions and prefix sums."""

from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.analysis.constants import Constants
from hlo_passes.analysis.cuts import Cut, NoSplit, OpSplit, Spot, Sum
from hlo_passes.analysis.engine import maker_of
from hlo_passes.analysis.split_rules.rule import (
    Factor,
    Part,
    Rule,
    Rules,
    by_factors,
    clone_part,
    clone_with,
)
from hlo_passes.ir.attributes import integer, ints, shape_of
from hlo_passes.ir.build import binary, broadcast, convert, reduce_over, reshape, slice_of
from hlo_passes.ir.parts import is_narrow

_CHOICES = {"stablehlo.select": 1, "stablehlo.minimum": 0, "stablehlo.maximum": 0}
"""Ops that hand on one of their operands, and the first that they may."""

_SCAN = "chlo.scan"
_NEUTRAL = {"add": 0, "multiply": 1}
_MERGES = ("add", "maximum", "minimum", "multiply", "and", "or")


def reducer(op: ir.Operation) -> str | None:
    """Return the kind of the one op that an op's region applies to its two arguments, or None."""
    block = op.regions[0].blocks[0]
    inside = [view.operation for view in block.operations]
    if len(inside) != 2 or set(inside[0].operands) != set(block.arguments):
        return None
    if any(value != inside[0].results[0] for value in inside[1].operands):
        return None
    kind = inside[0].name.rpartition(".")[2]
    return kind if kind in _MERGES else None


def _cut_reduce(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """Cut along a dim that stays, or sum over one that goes."""
    count = len(op.results)
    gone = set(ints(op, "dimensions"))
    rank = len(shape_of(op.operands[0]))
    kept = [d for d in range(rank) if d not in gone]
    nothing = (None,) * count
    factors = [Factor((d,) * count + nothing, (i,) * count) for i, d in enumerate(kept)]
    merge = reducer(op)
    if spot.side == "operand" and cut.dim in gone and merge is not None:
        _refuse_counted_start(op, merge)
    if merge is not None and count == 1:
        factors += [Factor((d, None), (None,)) for d in sorted(gone)]
    elif spot.side == "operand" and cut.dim in gone:
        raise NoSplit("reduces the cut dim with more than one op: its parts cannot be put together")
    return by_factors(factors, spot, cut, merge or "add")


def _part_reduce(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    """Build a reduction of one part; sums of 16-bit numbers are of 32 bits, as XLA's own are."""
    state = part.split.results[0]
    if not isinstance(state, Sum) or state.merge not in _NEUTRAL or not is_narrow(operands[0]):
        return clone_part(op, operands, part)
    wide = convert(operands[0], ir.F32Type.get())
    return [reduce_over(wide, ints(op, "dimensions"), state.merge, _NEUTRAL[state.merge])]


def _refuse_counted_start(op: ir.Operation, merge: str) -> None:
    """Every part starts from the start value: once more must change nothing."""
    if not starts_from_nothing(op, merge):
        raise NoSplit(f"{merge}s up the cut dim from a start that every part would count again; "
                      "start from a constant that changes nothing")  # fmt: skip


def _refuse_rounded_count(op: ir.Operation) -> None:
    """Refuse a prefix sum that would give other slots: bfloat16 counts no further than 256."""
    if is_narrow(op.operands[0]):
        raise NoSplit("a prefix sum in 16 bits rounds otherwise in parts; count in int32")


def starts_from_nothing(op: ir.Operation, merge: str) -> bool:
    """Whether a reduction of one tensor may start several times and still be the same."""
    neutral = _NEUTRAL.get(merge)
    if neutral is None:
        return True
    return Constants().number(op.operands[1]) == neutral


def only_chooses(op: ir.Operation, index: int) -> bool:
    """Whether result `index` of a reduction is one of the numbers it was given, as of argmax."""
    block, count = op.regions[0].blocks[0], len(op.results)
    own = {block.arguments[index], block.arguments[index + count]}
    inside = [view.operation for view in block.operations]
    todo = [inside[-1].operands[index]]
    while todo:
        value = todo.pop()
        if value in own:
            continue
        maker = maker_of(value)
        if maker is None or maker.name not in _CHOICES:
            return False
        todo.extend(maker.operands[_CHOICES[maker.name] :])
    return True


def _cut_window(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """Cut along a dim that the window does not slide over, or carry a prefix sum."""
    if len(op.results) != 1:
        raise NoSplit("a window over several tensors")
    window = ints(op, "window_dimensions")
    shape = shape_of(op.operands[0])
    if shape != shape_of(op.results[0]) or _has_steps(op):
        raise NoSplit("a window that changes the shape")
    if window[cut.dim] == 1 and _padding(op)[cut.dim] != (0, 0):
        raise NoSplit(f"a window that moves the cut dim {cut.dim}; pad and slice it instead")
    if window[cut.dim] != 1:
        if not is_prefix(op, cut.dim):
            raise NoSplit(f"a window over the cut dim {cut.dim} that is no prefix sum")
        if cut.outer != 1:
            raise NoSplit("a prefix sum over a dim that is cut block by block: its order is not "
                          "the order of the parts")  # fmt: skip
        _refuse_rounded_count(op)
        return OpSplit((cut, None), (cut,), carries=True)
    factors = [Factor((d, None), (d,)) for d in range(len(shape))]
    return by_factors(factors, spot, cut)


def is_prefix(op: ir.Operation, dim: int) -> bool:
    """Whether a `reduce_window` is an inclusive prefix sum along `dim`, as `jnp.cumsum` makes."""
    size = shape_of(op.operands[0])[dim]
    window = ints(op, "window_dimensions")
    others = all(w == 1 for d, w in enumerate(window) if d != dim)
    ends_here = window[dim] == size and _padding(op)[dim] == (size - 1, 0)
    return others and ends_here and reducer(op) == "add" and starts_from_nothing(op, "add")


def _has_steps(op: ir.Operation) -> bool:
    names = ("window_strides", "base_dilations", "window_dilations")
    return any(step != 1 for name in names for step in ints(op, name))


def _padding(op: ir.Operation) -> list[tuple[int, int]]:
    if "padding" not in op.attributes:
        return [(0, 0)] * len(ints(op, "window_dimensions"))
    flat = [int(x) for x in ir.DenseIntElementsAttr(op.attributes["padding"])]
    return list(zip(flat[::2], flat[1::2], strict=True))


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
        raise NoSplit("a scan of several tensors")
    if spot.index or cut.dim != integer(op, "dimension"):
        raise NoSplit("a scan beside the dim that it runs along: its region is for whole slices; "
                      "cut that dim, or join the parts first")  # fmt: skip
    if cut.outer != 1 or ir.BoolAttr(op.attributes["is_reverse"]).value:
        raise NoSplit("a scan whose order is not the order of the parts")
    if reducer(op) != "add":
        raise NoSplit("a scan over the cut dim that is no prefix sum")
    _refuse_counted_start(op, "add")
    _refuse_rounded_count(op)
    return OpSplit((cut, None), (cut, None), carries=True)


def is_prefix_scan(op: ir.Operation) -> bool:
    """Whether a `chlo.scan` is an inclusive prefix sum of one tensor, first elements first."""
    if len(op.operands) != 2 or ir.BoolAttr(op.attributes["is_reverse"]).value:
        return False
    return reducer(op) == "add" and starts_from_nothing(op, "add")


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
    window, padding = list(ints(op, "window_dimensions")), _padding(op)
    window[cut.dim] //= part.k
    padding[cut.dim] = (window[cut.dim] - 1, 0)
    flat = [str(list(pair)) for pair in padding]
    kind = f"tensor<{len(padding)}x2xi64>"
    return {
        "window_dimensions": ir.DenseI64ArrayAttr.get(window),
        "padding": ir.Attribute.parse(f"dense<[{', '.join(flat)}]> : {kind}"),
    }


RULES: Rules = {
    "reduce": Rule(_cut_reduce, _part_reduce),
    "reduce_window": Rule(_cut_window, _part_window),
    "scan": Rule(_cut_scan, _part_scan),
}
