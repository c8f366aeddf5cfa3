"""Reads what ops and values say of themselves."""

from jaxlib.mlir import ir


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """Return a tensor's dims; () for what is no tensor."""
    kind = value.type
    return tuple(kind.shape) if isinstance(kind, ir.RankedTensorType) else ()


def ints(op: ir.Operation, name: str) -> tuple[int, ...]:
    """Return a list-of-integers attribute of an op; () if it has none."""
    return tuple(op.attributes[name]) if name in op.attributes else ()


def integer(op: ir.Operation, name: str) -> int:
    """Return an integer attribute of an op."""
    return ir.IntegerAttr(op.attributes[name]).value
