"""Reads what one op or value says of itself."""

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.types import TensorType, from_mlir_dtype

_CHOICES = {"stablehlo.select": 1, "stablehlo.minimum": 0, "stablehlo.maximum": 0}
"""Ops that hand on one of their operands, and the first that they may."""

_MERGES = ("add", "maximum", "minimum", "multiply", "and", "or")


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


def kind_of(op: ir.Operation) -> str:
    """Return the kind of an op, without its dialect."""
    return op.name.rpartition(".")[2]


def maker_of(value: ir.Value) -> ir.Operation | None:
    """Return the op that makes a value, in whatever block; None for an argument."""
    owner = value.owner
    return None if isinstance(owner, ir.Block) else owner.operation


def same_operand(op: ir.Operation, value: ir.Value) -> ir.Value:
    """Return the operand that stands where a value stands among the results."""
    return op.operands[list(op.results).index(value)] if len(op.results) > 1 else op.operands[0]


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


def has_steps(op: ir.Operation) -> bool:
    """Whether a window skips elements, of what it slides over or inside itself."""
    names = ("window_strides", "base_dilations", "window_dilations")
    return any(step != 1 for name in names for step in ints(op, name))


def padding(op: ir.Operation) -> list[tuple[int, int]]:
    """Return what a window op adds before and behind every dim."""
    if "padding" not in op.attributes:
        return [(0, 0)] * len(ints(op, "window_dimensions"))
    flat = [int(x) for x in ir.DenseIntElementsAttr(op.attributes["padding"])]
    return list(zip(flat[::2], flat[1::2], strict=True))


def update_of(op: ir.Operation) -> str | None:
    """Return what a scatter does with what is there: `set`, a kind of op, or None for others."""
    block = op.regions[0].blocks[0]
    inside = [view.operation for view in block.operations]
    if len(inside) == 1 and list(inside[0].operands) == [block.arguments[1]]:
        return "set"
    return reducer(op)


def is_unique(op: ir.Operation) -> bool:
    """Whether a scatter promises that no two of its indices are equal."""
    return "unique_indices" in op.attributes and ir.BoolAttr(op.attributes["unique_indices"]).value
