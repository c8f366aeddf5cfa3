"""Swaps the operands of a matrix product, so that it gives what its transpose gave.

XLA does so itself with a product right before its transpose. Its CPU backend may not be left to: a
product of 16-bit numbers in 32 bits that is transposed compiles there and fails when it runs
(`tests/contract/test_mixed_products.py`).
"""

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.build import op_of, type_like
from hlo_passes.ir.stablehlo.read import ints, shape_of


def swaps(product: ir.Operation, user: ir.Operation) -> bool:
    """Whether a user of a product transposes it into the product of swapped operands.

    Args:
        product: any op.
        user: any op that reads its only result.
    """
    if product.name != "stablehlo.dot_general" or user.name != "stablehlo.transpose":
        return False
    # An algorithm names the precision of each side.
    if "algorithm" in product.attributes:
        return False
    return ints(user, "permutation") == _permutation(product)


def swapped(product: ir.Value) -> ir.Value:
    """Replace a product by that of swapped operands, which has its transposed shape."""
    op = product.owner
    left, right = op.operands
    numbers = _numbers(op)
    attributes = {name: op.attributes[name] for name in op.attributes}
    attributes |= {
        "dot_dimension_numbers": stablehlo.DotDimensionNumbers.get(
            lhs_batching_dimensions=numbers.rhs_batching_dimensions,
            rhs_batching_dimensions=numbers.lhs_batching_dimensions,
            lhs_contracting_dimensions=numbers.rhs_contracting_dimensions,
            rhs_contracting_dimensions=numbers.lhs_contracting_dimensions,
        )
    }
    if "precision_config" in op.attributes:
        precision = ir.ArrayAttr(op.attributes["precision_config"])
        attributes["precision_config"] = ir.ArrayAttr.get([*reversed([*precision])])
    dims = [shape_of(product)[d] for d in _permutation(op)]
    (made,) = op_of("dot_general", [right, left], [type_like(product.type, dims)], attributes)
    op.erase()
    return made


def _numbers(product: ir.Operation) -> stablehlo.DotDimensionNumbers:
    return stablehlo.DotDimensionNumbers(product.attributes["dot_dimension_numbers"])


def _permutation(product: ir.Operation) -> tuple[int, ...]:
    """Return how swapping the operands permutes a product's dims: batching, left, right."""
    numbers = _numbers(product)
    batch = len(numbers.lhs_batching_dimensions)
    left = len(shape_of(product.operands[0])) - batch - len(numbers.lhs_contracting_dimensions)
    rank = len(shape_of(product.results[0]))
    return (*range(batch), *range(batch + left, rank), *range(batch, batch + left))
