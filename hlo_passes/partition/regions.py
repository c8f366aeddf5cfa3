"""Whether a step's work is done in one manual region, where every exchange can be seen."""

from jax.extend.mlir.dialects import sdy
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.module import Module

_MANUAL = "sdy.manual_computation"
_HEAVY = ("stablehlo.dot_general", "stablehlo.convolution", "chlo.ragged_dot")


def is_one_region(module: Module) -> bool:
    """Whether all matrix products and exchanges of a module are in one region of local ops.

    What else may be around it (an optimizer that the partitioner spreads) is nothing to split.
    """
    region = module.body.owner
    if region.name != _MANUAL:
        return False
    manual = {str(axis) for axis in sdy.ManualAxesAttr(region.attributes["manual_axes"])}
    axes = {
        axis.name
        for view in module.ir.body.operations
        if view.operation.name == "sdy.mesh"
        for axis in map(sdy.MeshAxisAttr, sdy.MeshAttr(view.operation.attributes["mesh"]).axes)
        if axis.size > 1
    }
    around = [view.operation for view in region.parent.regions[0].blocks[0].operations]
    return axes <= manual and not any(_is_heavy(op) for op in around if op != region)


def _is_heavy(op: ir.Operation) -> bool:
    found = False

    def visit(inner: ir.Operation) -> ir.WalkResult:
        nonlocal found
        found = found or inner.name in _HEAVY
        return ir.WalkResult.INTERRUPT if found else ir.WalkResult.ADVANCE

    op.walk(visit)
    return found
