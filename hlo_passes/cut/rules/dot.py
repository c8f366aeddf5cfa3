"""Matrix products."""

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import OpLoop, Rule, Rules, by_factors, clone_part
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.read import shape_of


def _cut(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    return by_factors(dot_factors(op), spot, cut)


def dot_factors(op: ir.Operation) -> list[OpLoop]:
    """Return the loops of a product: batching and free dims, then contracted ones (sums)."""
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    left, right = (shape_of(v) for v in op.operands)
    batch = list(zip(numbers.lhs_batching_dimensions, numbers.rhs_batching_dimensions, strict=True))
    contracted = list(
        zip(numbers.lhs_contracting_dimensions, numbers.rhs_contracting_dimensions, strict=True)
    )
    taken = [{pair[side] for pair in (*batch, *contracted)} for side in (0, 1)]
    free_left = [d for d in range(len(left)) if d not in taken[0]]
    free_right = [d for d in range(len(right)) if d not in taken[1]]
    first, second = len(batch), len(batch) + len(free_left)
    return [
        *(OpLoop((a, b), (i,)) for i, (a, b) in enumerate(batch)),
        *(OpLoop((d, None), (first + i,)) for i, d in enumerate(free_left)),
        *(OpLoop((None, d), (second + i,)) for i, d in enumerate(free_right)),
        *(OpLoop(pair, (None,)) for pair in contracted),
    ]


RULES: Rules = {"dot_general": Rule(_cut, clone_part)}
