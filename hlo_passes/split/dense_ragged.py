"""Does what a ragged exchange does on backends without one: for tests, not for speed.

Every device gets the rows of all devices of its group, and keeps those that are sent to it.
"""

from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.read import shape_of


def dense_exchange(
    exchange: ir.Operation, operands: Sequence[ir.Value], groups: DeviceGroups
) -> ir.Value:
    """Build a ragged exchange from all-gathers, at the insertion point.

    Args:
        exchange: the ragged exchange, for its channel.
        operands: rows, the buffer that rows are written into, input offsets, send sizes, output
            offsets and receive sizes.
        groups: the devices that take part together.
    """
    rows, buffer, *tables = operands
    peers, (count, *width) = len(groups[0]), shape_of(rows)
    slices = shape_of(tables[0])[0]
    local = slices // peers
    i32 = ir.IntegerType.get_signless(32)
    own_tables = [build.reshape(build.convert(table, i32), (1, 1, slices)) for table in tables[:3]]
    all_tables = _gather(build.concatenate(own_tables, 1), exchange, groups)
    begin, size, to = (
        build.reshape(
            _of_me(build.slice_of(all_tables, 1, n, n + 1), groups, local), (peers, local)
        )
        for n in range(3)
    )
    table = build.int_type((peers, local, count))
    row = build.iota((peers, local, count), 2)
    first, rest, target = (build.broadcast(value, table, [0, 1]) for value in (begin, size, to))
    inside = build.binary("subtract", row, first)
    sent = build.binary(
        "and",
        build.compare(inside, "GE", build.splat(table, 0)),
        build.compare(inside, "LT", rest),
    )
    beyond = build.splat(table, shape_of(buffer)[0])
    place = build.select(sent, build.binary("add", target, inside), beyond)
    first_place = build.smallest(place, 1, 2**31 - 1)
    came = _gather(build.reshape(rows, (1, count, *width)), exchange, groups)
    return build.scatter_rows(
        buffer,
        build.reshape(came, (peers * count, *width)),
        build.reshape(first_place, (peers * count,)),
        "set",
        distinct=True,
    )


def _gather(value: ir.Value, exchange: ir.Operation, groups: DeviceGroups) -> ir.Value:
    """Put the blocks `[1, ...]` of all devices of a group behind each other."""
    i64 = ir.IntegerType.get_signless(64)
    config = ir.DictAttr(exchange.attributes["backend_config"])
    channel = ir.IntegerAttr(config["channel_id"]).value
    attributes = {
        "all_gather_dim": ir.IntegerAttr.get(i64, 0),
        "replica_groups": ir.DenseIntElementsAttr.get(
            build.np.asarray(groups, dtype=build.np.int64), type=i64
        ),
        "channel_handle": ir.Attribute.parse(
            f"#stablehlo.channel_handle<handle = {channel}, type = 1>"
        ),
        "use_global_device_ids": ir.UnitAttr.get(),
    }
    kind = build.type_like(value.type, (len(groups[0]), *shape_of(value)[1:]))
    return build.op_of("all_gather", [value], [kind], attributes)[0]


def _of_me(value: ir.Value, groups: DeviceGroups, local: int) -> ir.Value:
    """Take the slices `[G, 1, local]` that are sent to this device of `[G, 1, G * local]`."""
    order = [0] * sum(map(len, groups))
    for group in groups:
        for place, device in enumerate(group):
            order[device] = place * local
    scalar = build.int_type(())
    u32 = ir.RankedTensorType.get([], ir.IntegerType.get_unsigned(32))
    (device,) = build.op_of("partition_id", [], [u32])
    i64s = ir.DenseI64ArrayAttr
    start = build.op_of(
        "dynamic_slice",
        [build.table(order), build.convert(device, scalar.element_type)],
        [build.int_type((1,))],
        {"slice_sizes": i64s.get([1])},
    )[0]
    zero, dims = build.splat(scalar, 0), shape_of(value)
    made = build.type_like(value.type, (*dims[:2], local))
    return build.op_of(
        "dynamic_slice",
        [value, zero, zero, build.reshape(start, ())],
        [made],
        {"slice_sizes": i64s.get([*dims[:2], local])},
    )[0]
