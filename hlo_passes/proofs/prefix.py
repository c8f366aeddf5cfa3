"""Which reductions add up, and what they start from."""

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import ints, padding, reducer, shape_of
from hlo_passes.proofs.constants import Constants

NEUTRAL = {"add": 0, "multiply": 1}
"""Numbers that change nothing, by the op that puts two together."""


def starts_from_nothing(op: ir.Operation, merge: str) -> bool:
    """Whether a reduction of one tensor may start several times and still be the same."""
    neutral = NEUTRAL.get(merge)
    if neutral is None:
        return True
    return Constants().number(op.operands[1]) == neutral


def is_prefix(op: ir.Operation, dim: int) -> bool:
    """Whether a `reduce_window` is an inclusive prefix sum along `dim`, as `jnp.cumsum` makes."""
    size = shape_of(op.operands[0])[dim]
    window = ints(op, "window_dimensions")
    others = all(w == 1 for d, w in enumerate(window) if d != dim)
    ends_here = window[dim] == size and padding(op)[dim] == (size - 1, 0)
    return others and ends_here and reducer(op) == "add" and starts_from_nothing(op, "add")


def is_prefix_scan(op: ir.Operation) -> bool:
    """Whether a `chlo.scan` is an inclusive prefix sum of one tensor, first elements first."""
    if len(op.operands) != 2 or ir.BoolAttr(op.attributes["is_reverse"]).value:
        return False
    return reducer(op) == "add" and starts_from_nothing(op, "add")
