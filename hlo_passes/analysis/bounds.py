"""Which numbers an integer can be, whatever the input."""

from jaxlib.mlir import ir

from hlo_passes.analysis.counting import Counting, direction_of, only_chooses
from hlo_passes.ir.attributes import integer, shape_of

_MOVES = ("broadcast_in_dim", "reshape", "slice", "transpose")


def is_index(counting: Counting, value: ir.Value, count: int) -> bool:
    """Whether every element of a value is known to be one of 0, 1, ..., count - 1."""
    return is_below(counting, value, count) and _is_natural(counting, value)


def _is_natural(counting: Counting, value: ir.Value) -> bool:
    """Whether no element is negative, of a value that is known to be below a limit."""
    if counting.least(value) >= 0:
        return True
    place, kind = counting.made(value, ())
    if place < 0:
        return False
    op = counting.body.ops[place]
    if kind == "select":
        taken = op.operands[2:] if is_never(counting, op.operands[0]) else op.operands[1:]
        return all(_is_natural(counting, v) for v in taken)
    if kind in _MOVES:
        return _is_natural(counting, op.operands[0])
    return kind == "remainder" and op.results[0].type.element_type.is_unsigned


def is_below(counting: Counting, value: ir.Value, limit: int) -> bool:
    """Whether every element of a value is known to be below a limit.

    Args:
        counting: what the values of its block count.
        value: what is asked for.
        limit: the limit.
    """
    place, kind = counting.made(value, ())
    if place < 0:
        return False
    op, root = counting.body.ops[place], counting.root(value)
    if kind == "top_k":
        return root == op.results[1] and shape_of(op.operands[0])[-1] <= limit
    if kind == "iota":
        return shape_of(root)[integer(op, "iota_dimension")] <= limit
    if kind == "constant":
        number = counting.splat(root)
        return number is not None and number < limit
    if kind == "remainder":
        divisor = _number(counting, op.operands[1])
        return divisor is not None and 0 < divisor <= limit
    if kind == "reduce":
        index = list(op.results).index(root)
        pair = op.operands[index], op.operands[index + len(op.results)]
        return only_chooses(op, index) and all(is_below(counting, v, limit) for v in pair)
    if kind == "select":
        taken = op.operands[2:] if is_never(counting, op.operands[0]) else op.operands[1:]
        return all(is_below(counting, v, limit) for v in taken)
    if kind in _MOVES:
        return is_below(counting, op.operands[0], limit)
    return kind == "minimum" and any(is_below(counting, v, limit) for v in op.operands)


def is_never(counting: Counting, flag: ir.Value) -> bool:
    """Whether a flag is false everywhere, as of what asks whether unsigned numbers are negative."""
    place, kind = counting.body.made_by(flag)
    if place < 0:
        return False
    op = counting.body.ops[place]
    if kind in _MOVES:
        return is_never(counting, op.operands[0])
    if kind == "and":
        return any(is_never(counting, v) for v in op.operands)
    if kind != "compare":
        return False
    element = ir.RankedTensorType(op.operands[0].type).element_type
    if not isinstance(element, ir.IntegerType):
        return False
    if direction_of(op) == "NE" and element.width == 1:
        return all(is_never(counting, v) for v in op.operands)
    is_zero = _number(counting, op.operands[1]) == 0
    return direction_of(op) == "LT" and element.is_unsigned and is_zero


def _number(counting: Counting, value: ir.Value) -> float | None:
    """Return the one number that a value holds everywhere, choices between constants made."""
    number = counting.splat(value)
    if number is not None:
        return number
    place, kind = counting.body.made_by(value)
    if kind in ("broadcast_in_dim", "reshape", "convert"):
        return _number(counting, counting.body.ops[place].operands[0])
    if kind != "select":
        return None
    mask, yes, no = counting.body.ops[place].operands
    asked, kind = counting.body.made_by(mask)
    if kind != "compare" or direction_of(counting.body.ops[asked]) != "EQ":
        return None
    left, right = (_number(counting, v) for v in counting.body.ops[asked].operands)
    if left is None or right is None:
        return None
    return _number(counting, yes if left == right else no)
