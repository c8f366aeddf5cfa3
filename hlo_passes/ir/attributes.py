"""Reads what ops and values say of themselves."""

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.types import TensorType, from_mlir_dtype


def tensor_type(kind: ir.Type) -> TensorType | None:
    """Return a tensor's type, a bounded dim at its bound; None for what is no tensor.

    Raises:
        ValueError: if a dim has no bound.
    """
    if not isinstance(kind, ir.RankedTensorType):
        return None
    sizes = tuple(kind.shape)
    if not kind.has_static_shape:
        known = kind.encoding is not None and stablehlo.TypeExtensions.isinstance(kind.encoding)
        bounds = stablehlo.TypeExtensions(kind.encoding).bounds if known else sizes
        sizes = tuple(
            bound if kind.is_dynamic_dim(d) else size
            for d, (size, bound) in enumerate(zip(sizes, bounds, strict=True))
        )
        if any(size < 0 for size in sizes):
            raise ValueError(f"unbounded dimension: {kind} has no size")
    return TensorType(sizes, from_mlir_dtype(str(kind.element_type)))


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
