"""Small StableHLO builders: each makes one op, or a few, at the current insertion point."""

from collections.abc import Callable, Sequence

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import shape_of

type LoopStep = Callable[[ir.Value, Sequence[ir.Value]], Sequence[ir.Value]]
"""(number of the trip, what is carried) to what is carried on."""


def op_of(
    name: str,
    operands: Sequence[ir.Value],
    results: Sequence[ir.Type],
    attributes: dict[str, ir.Attribute] | None = None,
) -> list[ir.Value]:
    """Make `stablehlo.<name>` and return its results."""
    new = ir.Operation.create(
        f"stablehlo.{name}",
        results=list(results),
        operands=list(operands),
        attributes=attributes or {},
    )
    return list(new.results)


def tensor(value: ir.Value) -> ir.RankedTensorType:
    """Return a value's tensor type."""
    return ir.RankedTensorType(value.type)


def type_like(kind: ir.Type, dims: Sequence[int]) -> ir.RankedTensorType:
    """Return a tensor type with the same elements and other dims."""
    return ir.RankedTensorType.get(list(dims), ir.RankedTensorType(kind).element_type)


def int_type(dims: Sequence[int]) -> ir.RankedTensorType:
    """Return a tensor type of int32."""
    return ir.RankedTensorType.get(list(dims), ir.IntegerType.get_signless(32))


def splat(kind: ir.Type, value: float) -> ir.Value:
    """Make a constant that holds one number everywhere."""
    element = ir.RankedTensorType(kind).element_type
    is_float = isinstance(element, ir.FloatType)
    number = ir.FloatAttr.get(element, value) if is_float else _integer(element, value)
    attribute = ir.DenseElementsAttr.get_splat(kind, number)
    return op_of("constant", [], [kind], {"value": attribute})[0]


def filled(kind: ir.Type, value: float) -> ir.Value:
    """Make a tensor of one value that somebody will write into: it has to be filled first.

    Unlike a constant, which readers make for themselves, it is priced.
    """
    return broadcast(splat(type_like(kind, ()), value), kind, [])


def _integer(element: ir.Type, value: float) -> ir.Attribute:
    return ir.IntegerAttr.get(element, int(value))


def table(numbers: Sequence[int]) -> ir.Value:
    """Make an int32 vector."""
    attribute = ir.DenseElementsAttr.get(np.asarray(numbers, np.int32))
    return op_of("constant", [], [attribute.type], {"value": attribute})[0]


def iota(dims: Sequence[int], dim: int) -> ir.Value:
    """Count along a dim, int32."""
    attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim)
    return op_of("iota", [], [int_type(dims)], {"iota_dimension": attribute})[0]


def binary(kind: str, left: ir.Value, right: ir.Value) -> ir.Value:
    """Combine two equally shaped tensors: `add`, `multiply`, `minimum`, ..."""
    return op_of(kind, [left, right], [left.type])[0]


def compare(left: ir.Value, direction: str, right: ir.Value) -> ir.Value:
    """Compare two tensors: `EQ`, `LT`, `GE`, ..."""
    return stablehlo.compare(left, right, stablehlo.ComparisonDirectionAttr.get(direction))


def select(condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    """Take `yes` where the condition holds, else `no`."""
    return op_of("select", [condition, yes, no], [yes.type])[0]


def convert(value: ir.Value, element: ir.Type) -> ir.Value:
    """Change the element type, if it is another."""
    if tensor(value).element_type == element:
        return value
    return op_of("convert", [value], [ir.RankedTensorType.get(shape_of(value), element)])[0]


def unsigned(value: ir.Value) -> ir.Value:
    """Read integers as natural numbers, bit by bit: negative ones become the largest."""
    natural = ir.IntegerType.get_unsigned(ir.IntegerType(tensor(value).element_type).width)
    if tensor(value).element_type == natural:
        return value
    return op_of("bitcast_convert", [value], [ir.RankedTensorType.get(shape_of(value), natural)])[0]


def divide(value: ir.Value, by: int) -> tuple[ir.Value, ir.Value]:
    """Divide natural numbers, and return what remains, too; any numbers for negative ones.

    XLA makes comparisons with a tensor of zeros of a division that may be of negative numbers.
    """
    natural = unsigned(value)
    divisor = splat(natural.type, by)
    made = (binary(kind, natural, divisor) for kind in ("divide", "remainder"))
    quotient, rest = (op_of("bitcast_convert", [one], [value.type])[0] for one in made)
    return quotient, rest


def reshape(value: ir.Value, dims: Sequence[int]) -> ir.Value:
    """Give a tensor other dims, if they are others."""
    if shape_of(value) == tuple(dims):
        return value
    return op_of("reshape", [value], [type_like(value.type, dims)])[0]


def transpose(value: ir.Value, permutation: Sequence[int]) -> ir.Value:
    """Permute dims, if they move."""
    if list(permutation) == list(range(len(permutation))):
        return value
    dims = [shape_of(value)[d] for d in permutation]
    attribute = ir.DenseI64ArrayAttr.get(list(permutation))
    return op_of("transpose", [value], [type_like(value.type, dims)],
                 {"permutation": attribute})[0]  # fmt: skip


def broadcast(value: ir.Value, kind: ir.Type, dims: Sequence[int] | None = None) -> ir.Value:
    """Repeat a tensor: its dims, by default all in place, become `dims` of the type `kind`."""
    placed = list(dims) if dims is not None else list(range(len(shape_of(value))))
    attribute = ir.DenseI64ArrayAttr.get(placed)
    return op_of("broadcast_in_dim", [value], [kind], {"broadcast_dimensions": attribute})[0]


def slice_of(value: ir.Value, dim: int, start: int, limit: int) -> ir.Value:
    """Take indices start <= i < limit of a dim."""
    dims = shape_of(value)
    starts, limits = [0] * len(dims), list(dims)
    starts[dim], limits[dim] = start, limit
    made = [b - a for a, b in zip(starts, limits, strict=True)]
    attributes = {
        "start_indices": ir.DenseI64ArrayAttr.get(starts),
        "limit_indices": ir.DenseI64ArrayAttr.get(limits),
        "strides": ir.DenseI64ArrayAttr.get([1] * len(dims)),
    }
    return op_of("slice", [value], [type_like(value.type, made)], attributes)[0]


def concatenate(values: Sequence[ir.Value], dim: int) -> ir.Value:
    """Put tensors behind each other along a dim."""
    if len(values) == 1:
        return values[0]
    dims = list(shape_of(values[0]))
    dims[dim] = sum(shape_of(v)[dim] for v in values)
    attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim)
    return op_of("concatenate", values, [type_like(values[0].type, dims)],
                 {"dimension": attribute})[0]  # fmt: skip


def barrier_of(values: Sequence[ir.Value]) -> list[ir.Value]:
    """Make names for values that are there only once all of them are."""
    return op_of("optimization_barrier", values, [v.type for v in values])


def alone(value: ir.Value, index: int) -> ir.Value:
    """Give a value a name that is not shared with anybody who uses another `index`.

    XLA puts kernels that read the same tensor into one, which then waits for what any of them
    waits for. It does not see that two barriers are the same if they hold different numbers.
    """
    return barrier_of([value, splat(int_type(()), index)])[0]


def all_to_all(value: ir.Value, like: ir.Operation) -> ir.Value:
    """Swap blocks of the leading dim between the devices that `like` (an all-to-all) connects."""
    i64 = ir.IntegerType.get_signless(64)
    attributes = {
        name: like.attributes[name]
        for name in ("channel_handle", "replica_groups", "split_count")
        if name in like.attributes
    }
    attributes["split_dimension"] = ir.IntegerAttr.get(i64, 0)
    attributes["concat_dimension"] = ir.IntegerAttr.get(i64, 0)
    return op_of("all_to_all", [value], [value.type], attributes)[0]


def prefix_sum(value: ir.Value, dim: int) -> ir.Value:
    """Sum up along a dim, each element included, as `jnp.cumsum` lowers."""
    dims = shape_of(value)
    window = [dims[d] if d == dim else 1 for d in range(len(dims))]
    padding = np.zeros((len(dims), 2), np.int64)
    padding[dim, 0] = dims[dim] - 1
    new = stablehlo.ReduceWindowOp(
        [value.type],
        [value],
        [splat(type_like(value.type, ()), 0)],
        ir.DenseI64ArrayAttr.get(window),
        padding=ir.DenseIntElementsAttr.get(padding),
    )
    _combine(new.regions[0], type_like(value.type, ()), "add")
    return new.results[0]


def scan_sum(value: ir.Value, dim: int) -> ir.Value:
    """Sum up along a dim as `jnp.cumsum` lowers for CUDA, where a window would be quadratic."""
    start = type_like(value.type, [n for d, n in enumerate(shape_of(value)) if d != dim])
    attributes = {
        "dimension": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim),
        "is_associative": ir.BoolAttr.get(True),
        "is_reverse": ir.BoolAttr.get(False),
        "operandSegmentSizes": ir.DenseI32ArrayAttr.get([1, 1]),
        "resultSegmentSizes": ir.DenseI32ArrayAttr.get([1, 1]),
    }
    new = ir.Operation.create(
        "chlo.scan", [value.type, start], [value, splat(start, 0)], attributes, regions=1
    )
    location = ir.Location.current
    block = new.regions[0].blocks.append(start, start, arg_locs=[location, location])
    with ir.InsertionPoint(block):
        added = binary("add", *block.arguments)
        stablehlo.return_([added, added])
    return new.results[0]


def total(value: ir.Value, dim: int) -> ir.Value:
    """Sum over a dim."""
    return reduce_over(value, [dim], "add", 0)


def largest(value: ir.Value, dim: int, least: float) -> ir.Value:
    """Take the largest over a dim, and at least `least`."""
    return reduce_over(value, [dim], "maximum", least)


def smallest(value: ir.Value, dim: int, most: float) -> ir.Value:
    """Take the smallest over a dim, and at most `most`."""
    return reduce_over(value, [dim], "minimum", most)


def reduce_over(value: ir.Value, dims: Sequence[int], merge: str, start: float) -> ir.Value:
    """Put the elements along dims together with a binary op, from `start` on."""
    kept = [size for d, size in enumerate(shape_of(value)) if d not in dims]
    kind, first = type_like(value.type, kept), splat(type_like(value.type, ()), start)
    new = stablehlo.ReduceOp([kind], [value], [first], ir.DenseI64ArrayAttr.get(list(dims)))
    _combine(new.regions[0], type_like(value.type, ()), merge)
    return new.results[0]


def repeat(count: ir.Value, carried: Sequence[ir.Value], step: LoopStep) -> list[ir.Value]:
    """Make a loop that runs `count` (int32 scalar) times, and return what it carries in the end.

    Args:
        count: number of trips.
        carried: what the first trip starts from.
        step: builds one trip, given its number and what it starts from.
    """
    inits = [splat(count.type, 0), *carried]
    kinds, location = [value.type for value in inits], ir.Location.current
    loop = ir.Operation.create("stablehlo.while", kinds, inits, regions=2)
    places = [location] * len(kinds)
    condition, body = (r.blocks.append(*kinds, arg_locs=places) for r in loop.regions)
    with ir.InsertionPoint(condition):
        stablehlo.return_([compare(condition.arguments[0], "LT", count)])
    with ir.InsertionPoint(body):
        trip, *values = body.arguments
        made = step(trip, values)
        stablehlo.return_([binary("add", trip, splat(trip.type, 1)), *made])
    return list(loop.results)[1:]


def scatter_rows(
    buffer: ir.Value, rows: ir.Value, places: ir.Value, merge: str, *, distinct: bool
) -> ir.Value:
    """Write, or add, rows `[N, ...]` to places int32 `[N]` of a buffer `[R, ...]`.

    Args:
        buffer: what the rows go into.
        rows: what is written.
        places: rows of the buffer; those beyond it are dropped.
        merge: `set` or `add`.
        distinct: whether no two places within the buffer are equal.
    """
    count = len(shape_of(buffer))
    numbers = stablehlo.ScatterDimensionNumbers.get(list(range(1, count)), [0], [], [], [0], 1)
    new = stablehlo.ScatterOp(
        [buffer.type], [buffer], reshape(places, (*shape_of(places), 1)), [rows], numbers,
        unique_indices=ir.BoolAttr.get(distinct),
    )  # fmt: skip
    _combine(new.regions[0], type_like(buffer.type, ()), merge)
    return new.results[0]


def gather_rows(buffer: ir.Value, places: ir.Value) -> ir.Value:
    """Read rows `[N, ...]` at places int32 `[N]` of a buffer `[R, ...]`; places are clamped."""
    dims = shape_of(buffer)
    numbers = stablehlo.GatherDimensionNumbers.get(list(range(1, len(dims))), [0], [], [], [0], 1)
    kind = type_like(buffer.type, (shape_of(places)[0], *dims[1:]))
    sizes = ir.DenseI64ArrayAttr.get([1, *dims[1:]])
    new = ir.Operation.create(
        "stablehlo.gather",
        results=[kind],
        operands=[buffer, reshape(places, (*shape_of(places), 1))],
        attributes={"dimension_numbers": numbers, "slice_sizes": sizes},
    )
    return new.results[0]


def scatter_to(dims: Sequence[int], indices: ir.Value, rows: ir.Value) -> ir.Value:
    """Add rows `[T, K, ...]` to an empty buffer `[*dims, ...]`, at index vectors int32 `[T, K, R]`.

    Those that point beyond the buffer are dropped.
    """
    count, width = len(dims), shape_of(rows)[2:]
    buffer = splat(type_like(rows.type, (*dims, *width)), 0)
    columns, window = list(range(count)), list(range(2, 2 + len(width)))
    numbers = stablehlo.ScatterDimensionNumbers.get(window, columns, [], [], columns, 2)
    new = stablehlo.ScatterOp([buffer.type], [buffer], indices, [rows], numbers)
    _combine(new.regions[0], type_like(buffer.type, ()), "add")
    return new.results[0]


def gather_or_zero(buffer: ir.Value, indices: ir.Value) -> ir.Value:
    """Read rows `[T, K, ...]` of a buffer `[*dims, ...]` at index vectors int32 `[T, K, R]`.

    Those that point beyond the buffer read zeros.
    """
    (*batch, count), dims = shape_of(indices), shape_of(buffer)
    made = type_like(buffer.type, (*batch, *dims[count:]))
    columns, offset = list(range(count)), list(range(2, 2 + len(dims) - count))
    numbers = stablehlo.GatherDimensionNumbers.get(offset, columns, [], [], columns, 2)
    sizes = ir.DenseI64ArrayAttr.get([1] * count + list(dims[count:]))
    rows = op_of("gather", [buffer, indices], [made],
                 {"dimension_numbers": numbers, "slice_sizes": sizes})[0]  # fmt: skip
    last = broadcast(table([size - 1 for size in dims[:count]]), indices.type, [2])
    above = compare(indices, "GE", splat(indices.type, 0))
    inside = reduce_over(binary("and", above, compare(indices, "LE", last)), [2], "and", 1)
    mask = broadcast(inside, type_like(inside.type, shape_of(rows)), [0, 1])
    return select(mask, rows, splat(rows.type, 0))


def gather_in_batches(tables: ir.Value, indices: ir.Value) -> ir.Value:
    """Read elements `[T, K]` of tables `[T, *dims]` at index vectors int32 `[T, K, R]`.

    Each table has index vectors of its own; they are clamped.
    """
    count = shape_of(indices)[2]
    columns = list(range(1, count + 1))
    numbers = stablehlo.GatherDimensionNumbers.get([], columns, [0], [0], columns, 2)
    sizes = ir.DenseI64ArrayAttr.get([1] * (count + 1))
    made = type_like(tables.type, shape_of(indices)[:2])
    return op_of("gather", [tables, indices], [made],
                 {"dimension_numbers": numbers, "slice_sizes": sizes})[0]  # fmt: skip


def _combine(region: ir.Region, kind: ir.Type, merge: str) -> None:
    """Fill a region with one binary op on its two arguments, or with its second argument."""
    location = ir.Location.current
    block = region.blocks.append(kind, kind, arg_locs=[location, location])
    with ir.InsertionPoint(block):
        left, right = block.arguments
        stablehlo.return_([right if merge == "set" else binary(merge, left, right)])
