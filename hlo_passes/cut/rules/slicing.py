"""Ops that take, place or put together pieces of tensors; dims that they leave alone may be cut."""

from collections.abc import Callable, Mapping

from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import Part, Rule, Rules, clone_part, clone_with
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.read import integer, ints, shape_of
from hlo_passes.proofs.engine import NotProved


def _along(
    taken: Callable[[ir.Operation, int], str | None],
    tensors: Callable[[ir.Operation], int],
):
    """Return a rule for ops whose leading operands and result keep the dims that they leave alone.

    Args:
        taken: what the op does to a dim, for the refusal; None if it leaves it alone.
        tensors: number of leading operands that have these dims; the others stay whole.
    """

    def rule(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
        count = tensors(op)
        if spot.side == "operand" and spot.index >= count:
            raise NotProved(f"operand {spot.index} is a scalar that every part reads whole")
        if (why := taken(op, cut.dim)) is not None:
            raise NotProved(f"{why}; cut along a dim that it leaves alone, or join the parts first")
        operands = tuple(cut if i < count else None for i in range(len(op.operands)))
        return OpSplit(operands, (cut,))

    return rule


def _one(op: ir.Operation) -> int:
    return 1


def _two(op: ir.Operation) -> int:
    return 2


def _every(op: ir.Operation) -> int:
    return len(op.operands)


def _sliced(op: ir.Operation, dim: int) -> str | None:
    size = shape_of(op.operands[0])[dim]
    bounds = [ints(op, name)[dim] for name in ("start_indices", "limit_indices", "strides")]
    return None if bounds == [0, size, 1] else f"takes a piece of the cut dim {dim}"


def _sliced_somewhere(op: ir.Operation, dim: int) -> str | None:
    """A slice of full size starts at 0, whatever its start says."""
    whole = ints(op, "slice_sizes")[dim] == shape_of(op.operands[0])[dim]
    return None if whole else f"takes a piece of the cut dim {dim}"


def _updated(op: ir.Operation, dim: int) -> str | None:
    """An update of full size starts at 0, whatever its start says."""
    operand, update = shape_of(op.operands[0]), shape_of(op.operands[1])
    return None if operand[dim] == update[dim] else f"updates a piece of the cut dim {dim}"


def _padded(op: ir.Operation, dim: int) -> str | None:
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    return f"pads the cut dim {dim}" if any(ints(op, name)[dim] for name in names) else None


def _concatenated(op: ir.Operation, dim: int) -> str | None:
    return f"concatenates along the cut dim {dim}" if integer(op, "dimension") == dim else None


def _reversed(op: ir.Operation, dim: int) -> str | None:
    return f"reverses the cut dim {dim}" if dim in ints(op, "dimensions") else None


def _shorter(name: str):
    def attributes(op: ir.Operation, part: Part) -> Mapping[str, ir.Attribute]:
        (cut,) = part.split.results
        assert isinstance(cut, Cut)
        sizes = list(ints(op, name))
        sizes[cut.dim] //= part.k
        return {name: ir.DenseI64ArrayAttr.get(sizes)}

    return attributes


RULES: Rules = {
    "slice": Rule(_along(_sliced, _one), clone_with(_shorter("limit_indices"))),
    "dynamic_slice": Rule(_along(_sliced_somewhere, _one), clone_with(_shorter("slice_sizes"))),
    "dynamic_update_slice": Rule(_along(_updated, _two), clone_part),
    "pad": Rule(_along(_padded, _one), clone_part),
    "concatenate": Rule(_along(_concatenated, _every), clone_part),
    "reverse": Rule(_along(_reversed, _every), clone_part),
}
