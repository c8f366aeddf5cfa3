"""Sends the token rows of one part, instead of the whole buffer of an all-to-all.

Every device packs the rows that its part of the tokens owns by destination, with as much room for
each peer as there can be rows for it, and tells the peers where the rows belong (a *put*) or which
rows it wants (a *fetch*). What arrives is written to the places where the whole all-to-all would
have put it, so that the buffer holds, after the last part, the same bits. With ragged exchanges
only the rows are sent; without, the room around them too, which is for backends that lack them.

A message of one int32 a row goes ahead. It is the same for the dispatch and the combine of a layer
and for their gradients, and is sent once for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.cut.states import Cut
from hlo_passes.ir.collectives import FILL
from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import integer, shape_of, update_of
from hlo_passes.layers.capacity.sites import RowBuffer, Site
from hlo_passes.split.values import PartValues

type PrefixSum = Callable[[ir.Value, int], ir.Value]
"""(values, dim) to their sums up to and including each."""

TOKENS = Cut(0)
"""How the tokens of a put or fetch are cut: they lead, and parts are contiguous."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """Where the rows of one part go.

    Rows lie *near*, on the device whose tokens they are, in the order of the peers that they go to;
    and *far*, on those peers, in a block of `room` rows for every source.

    Attributes:
        room: rows that fit in a block.
        places: per row of the part, its place near, int32 `[N]`; beyond all for one that goes
            nowhere.
        order: per place near, which row of the part it is, int32.
        starts: per peer, the first place near of the rows for it, `[peers]`.
        sent: rows that go to each peer, `[peers]`.
        wanted: rows that come from each peer, `[peers]`.
        asked: per source and place far, which row of its block in the whole buffer it is, int32
            `[peers, room]`; the number of rows of a block where there is none.
        here_near: where the sources keep near what goes to this device, `[peers]`.
        here_far: where the peers keep far what comes from this device, `[peers]`.
    """

    room: int
    places: ir.Value
    order: ir.Value
    starts: ir.Value
    sent: ir.Value
    wanted: ir.Value
    asked: ir.Value
    here_near: ir.Value
    here_far: ir.Value


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of one part.

    Attributes:
        rows: rows far, `[peers * room, ...]`.
        shipment: which rows they are.
    """

    rows: ir.Value
    shipment: Shipment


@dataclass
class RowExchange:
    """Builds puts and fetches.

    Attributes:
        numbers: value numbers of the block, by which equal index tensors are known.
        ragged: whether only filled rows are sent.
        groups: the devices that an all-to-all connects, for ragged exchanges.
    """

    numbers: dict[ir.Value, int]
    ragged: bool = False
    groups: dict[int, DeviceGroups] = field(default_factory=dict)
    _shipments: dict[object, Shipment] = field(default_factory=dict)

    @property
    def sum_up(self) -> PrefixSum:
        """How prefix sums are built."""
        return build.scan_sum if self.ragged else build.prefix_sum

    def put(self, site: Site, body: Body, part_values: PartValues) -> tuple[Arrival, ...]:
        """Build a dispatch in parts, at the insertion point.

        Args:
            site: the dispatch.
            body: the block.
            part_values: its values.
        """
        scatter, exchange, rows = body.ops[site.access], body.ops[site.exchange], site.rows
        element = build.tensor(exchange.results[0]).element_type
        updates = part_values.parts(scatter.operands[2], TOKENS)
        merge = update_of(scatter)
        assert merge is not None
        kind = ir.RankedTensorType.get([rows.count, *rows.width], element)
        arrived = build.filled(kind, 0)
        arrivals = []
        for index, update in enumerate(updates):
            shipment = self._shipment(site, body, part_values, index)
            count = shape_of(shipment.places)[0]
            own = build.convert(build.reshape(update, (count, *rows.width)), element)
            packed = build.gather_rows(own, shipment.order)
            came = self._send(packed, site, exchange, shipment)
            arrivals.append(Arrival(came, shipment))
            arrived = build.scatter_rows(
                arrived, came, _targets(shipment, rows), merge, distinct=site.distinct
            )
        part_values.give_whole(exchange.results[0], _received(arrived, exchange))
        return tuple(arrivals)

    def fetch(
        self,
        site: Site,
        body: Body,
        part_values: PartValues,
        answers: Sequence[ir.Value] | None = None,
    ) -> None:
        """Build a combine in parts, at the insertion point.

        Args:
            site: the combine.
            body: the block.
            part_values: its values.
            answers: per part the rows far that the sources ask for; None to read them from the
                whole buffer.
        """
        gather, exchange, rows = body.ops[site.access], body.ops[site.exchange], site.rows
        made = gather.results[0]
        element = build.tensor(made).element_type
        offered = None
        if answers is None:
            offered = _offered(part_values.whole(exchange.operands[0]), exchange, rows)
        parts = []
        for index in range(part_values.k):
            shipment = self._shipment(site, body, part_values, index)
            if offered is not None:
                wanted = build.gather_rows(offered, _sources(shipment, rows))
            else:
                assert answers is not None
                wanted = answers[index]
            came = self._send_back(wanted, site, exchange, shipment)
            own = build.convert(build.gather_rows(came, shipment.places), element)
            parts.append(build.reshape(own, TOKENS.part_of(shape_of(made), part_values.k)))
        part_values.give_parts(made, TOKENS, parts)

    def _shipment(self, site: Site, body: Body, part_values: PartValues, index: int) -> Shipment:
        """Return where a part's rows go; built once for all sites with the same indices."""
        indices = body.ops[site.access].operands[1]
        part = part_values.parts(indices, TOKENS)[index]
        rows, exchange = site.rows, body.ops[site.exchange]
        count = rows.tokens(shape_of(part))
        room = min(count, rows.block) if site.distinct else count
        groups = str(exchange.attributes["replica_groups"])
        key = (self.numbers[indices], rows, room, site.clamps, groups, index)
        if key not in self._shipments:
            self._shipments[key] = _AddressBuilder(rows, room, exchange, self.ragged, self.sum_up)(
                part, site.clamps
            )
        return self._shipments[key]

    def _send(
        self, packed: ir.Value, site: Site, exchange: ir.Operation, shipment: Shipment
    ) -> ir.Value:
        """Send rows near to where they lie far."""
        if not self.ragged:
            return build.all_to_all(packed, exchange)
        count, peers = shape_of(packed)[0], site.rows.peers
        far = build.type_like(packed.type, (peers * shipment.room, *shape_of(packed)[1:]))
        fill = min(1.0, peers * shipment.room / count)
        tables = [shipment.starts, shipment.sent, shipment.here_far, shipment.wanted]
        operands = [packed, build.filled(far, 0), *tables]
        return _ragged(operands, exchange, self.groups[site.exchange], fill)

    def _send_back(
        self, packed: ir.Value, site: Site, exchange: ir.Operation, shipment: Shipment
    ) -> ir.Value:
        """Send rows far to where they lie near."""
        if not self.ragged:
            return build.all_to_all(packed, exchange)
        count, peers = shape_of(shipment.order)[0], site.rows.peers
        near = build.type_like(packed.type, (count, *shape_of(packed)[1:]))
        fill = min(1.0, count / (peers * shipment.room))
        starts = build.table([peer * shipment.room for peer in range(peers)])
        tables = [starts, shipment.wanted, shipment.here_near, shipment.sent]
        operands = [packed, build.filled(near, 0), *tables]
        return _ragged(operands, exchange, self.groups[site.exchange], fill)


def one_hot(labels: ir.Value, count: int) -> ir.Value:
    """Return 1 where a row has a label below `count`, int32 `[N, count]`."""
    table = build.int_type((*shape_of(labels), count))
    is_it = build.compare(
        build.broadcast(labels, table, [0]), "EQ", build.iota(tuple(table.shape), 1)
    )
    return build.convert(is_it, table.element_type)


def ranks(hot: ir.Value, sum_up: PrefixSum) -> ir.Value:
    """Count the rows before every row that have its label; -1 for a row that has none."""
    upto = build.total(build.binary("multiply", sum_up(hot, 0), hot), 1)
    return build.binary("subtract", upto, build.splat(upto.type, 1))


@dataclass(frozen=True, slots=True)
class _AddressBuilder:
    """Ranks the rows of a part among those for the same peer, and tells the peers.

    Attributes:
        rows: how the whole buffer is addressed.
        room: rows that fit in a block.
        exchange: the all-to-all whose devices take part.
        compact: whether rows near follow each other without gaps; else they have blocks as far.
        sum_up: how prefix sums are built.
    """

    rows: RowBuffer
    room: int
    exchange: ir.Operation
    compact: bool
    sum_up: PrefixSum

    def __call__(self, indices: ir.Value, clamps: bool) -> Shipment:
        """Build the shipment of the rows that `indices` name."""
        peers, room = self.rows.peers, self.room
        flat, inside = _flat_rows(indices, self.rows, clamps)
        count = shape_of(flat)[0]
        peer, within = build.divide(flat, self.rows.block)
        hot = one_hot(peer, peers)
        hot = build.binary("multiply", hot, build.broadcast(_as_int(inside), hot.type, [0]))
        rank = ranks(hot, self.sum_up)
        fits = build.compare(rank, "LT", build.splat(rank.type, room))
        fits = build.binary("and", fits, inside)
        blocks = build.table([room * p for p in range(peers)])
        sent = build.total(hot, 0)
        starts = self._starts(sent) if self.compact else blocks
        size = count if self.compact else peers * room
        far = self._place(blocks, peer, rank, fits, peers * room)
        places = self._place(starts, peer, rank, fits, size) if self.compact else far
        order = build.filled(build.int_type((size,)), 0)
        order = build.scatter_rows(order, build.iota((count,), 0), places, "set", distinct=True)
        message = build.filled(build.int_type((peers * room,)), self.rows.block)
        message = build.scatter_rows(message, within, far, "set", distinct=True)
        swapped = self._swap(build.reshape(message, (peers, room)), starts, blocks)
        asked = build.slice_of(swapped, 1, 0, room)
        real = build.compare(asked, "LT", build.splat(asked.type, self.rows.block))
        return Shipment(
            room=room,
            places=places,
            order=order,
            starts=starts,
            sent=sent,
            wanted=build.total(_as_int(real), 1),
            asked=asked,
            here_near=build.reshape(build.slice_of(swapped, 1, room, room + 1), (peers,)),
            here_far=build.reshape(build.slice_of(swapped, 1, room + 1, room + 2), (peers,)),
        )

    def _starts(self, sent: ir.Value) -> ir.Value:
        """Sum up what goes to the peers before each."""
        peers = self.rows.peers
        table = build.int_type((peers, peers))
        before = build.compare(build.iota((peers, peers), 0), "LT", build.iota((peers, peers), 1))
        counted = build.binary("multiply", build.broadcast(sent, table, [0]), _as_int(before))
        return build.total(counted, 0)

    def _place(
        self, starts: ir.Value, peer: ir.Value, rank: ir.Value, fits: ir.Value, size: int
    ) -> ir.Value:
        """Return where every row lies; `size` if nowhere."""
        start = build.gather_rows(starts, peer)
        place = build.binary("add", start, rank)
        return build.select(fits, place, build.splat(place.type, size))

    def _swap(self, message: ir.Value, starts: ir.Value, blocks: ir.Value) -> ir.Value:
        """Swap `[peers, room + 2]`: which rows, and where they lie near and far."""
        columns = [build.reshape(table, (self.rows.peers, 1)) for table in (starts, blocks)]
        return build.all_to_all(build.concatenate([message, *columns], 1), self.exchange)


def _flat_rows(indices: ir.Value, rows: RowBuffer, clamps: bool) -> tuple[ir.Value, ir.Value]:
    """Return the row that every index vector names, int32 `[N]`, and whether there is one.

    Where there is none, the row is any number.
    Bounds are checked in the type of the indices, if that is wider: 2^32 is beyond every buffer.
    """
    count = rows.tokens(shape_of(indices))
    has_vector = rows.index_dim < len(shape_of(indices))
    i32 = ir.IntegerType.get_signless(32)
    if ir.IntegerType(build.tensor(indices).element_type).width < 32:
        indices = build.convert(indices, i32)
    kind = ir.RankedTensorType.get([count], build.tensor(indices).element_type)
    flat, inside = build.splat(build.int_type((count,)), 0), None
    for size, column in zip(rows.dims, rows.columns, strict=True):
        index = indices
        if has_vector:
            index = build.slice_of(indices, rows.index_dim, column, column + 1)
        index = build.reshape(index, (count,))
        if clamps:
            low, high = build.splat(kind, 0), build.splat(kind, size - 1)
            index = build.binary("minimum", build.binary("maximum", index, low), high)
        counted = build.unsigned(index)
        here = build.compare(counted, "LT", build.splat(counted.type, size))
        flat = build.binary("multiply", flat, build.splat(flat.type, size))
        flat = build.binary("add", flat, build.convert(index, i32))
        inside = here if inside is None else build.binary("and", inside, here)
    assert inside is not None
    return flat, inside


def _as_int(flag: ir.Value) -> ir.Value:
    return build.convert(flag, ir.IntegerType.get_signless(32))


def _block_starts(shipment: Shipment, rows: RowBuffer) -> ir.Value:
    """Return, per peer and packed row, the first row of the peer's block, `[peers, room]`."""
    dims = (rows.peers, shipment.room)
    counted = build.iota(dims, 0)
    return build.binary("multiply", counted, build.splat(counted.type, rows.block))


def _targets(shipment: Shipment, rows: RowBuffer) -> ir.Value:
    """Return the rows of the whole buffer that arriving rows belong to; beyond it for none."""
    place = build.binary("add", _block_starts(shipment, rows), shipment.asked)
    real = build.compare(shipment.asked, "LT", build.splat(shipment.asked.type, rows.block))
    beyond = build.splat(place.type, rows.count)
    return build.reshape(build.select(real, place, beyond), (rows.peers * shipment.room,))


def _sources(shipment: Shipment, rows: RowBuffer) -> ir.Value:
    """Return the rows of the offered buffer that the peers asked for; any for none."""
    last = build.splat(shipment.asked.type, rows.block - 1)
    bounded = build.binary("minimum", shipment.asked, last)
    place = build.binary("add", _block_starts(shipment, rows), bounded)
    return build.reshape(place, (rows.peers * shipment.room,))


def _received(arrived: ir.Value, exchange: ir.Operation) -> ir.Value:
    """Turn rows `[peers * block, ...]` into what the all-to-all gives."""
    operand, peers = shape_of(exchange.operands[0]), integer(exchange, "split_count")
    split, concat = integer(exchange, "split_dimension"), integer(exchange, "concat_dimension")
    dims = [size // peers if d == split else size for d, size in enumerate(operand)]
    blocks = build.reshape(arrived, (peers, *dims))
    order = [*range(1, concat + 1), 0, *range(concat + 1, len(dims) + 1)]
    return build.reshape(build.transpose(blocks, order), shape_of(exchange.results[0]))


def _offered(whole: ir.Value, exchange: ir.Operation, rows: RowBuffer) -> ir.Value:
    """Turn what an all-to-all is given into rows `[peers * block, ...]`, by destination."""
    dims, peers = shape_of(whole), integer(exchange, "split_count")
    split = integer(exchange, "split_dimension")
    blocks = build.reshape(whole, (*dims[:split], peers, dims[split] // peers, *dims[split + 1 :]))
    order = [split, *(d for d in range(len(dims) + 1) if d != split)]
    return build.reshape(build.transpose(blocks, order), (rows.count, *rows.width))


def _ragged(
    operands: Sequence[ir.Value], exchange: ir.Operation, groups: DeviceGroups, fill: float
) -> ir.Value:
    """Send filled rows only. XLA keeps the op's scope and line if its tables are of int64."""
    i64 = ir.IntegerType.get_signless(64)
    channel = stablehlo.ChannelHandle(exchange.attributes["channel_handle"]).handle
    table = build.np.asarray(groups, dtype=build.np.int64)
    config = {
        "replica_groups": ir.DenseIntElementsAttr.get(table, type=i64),
        "channel_id": ir.IntegerAttr.get(i64, channel),
    }
    attributes = {
        "call_target_name": ir.StringAttr.get("ragged_all_to_all"),
        "api_version": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), 4),
        "backend_config": ir.DictAttr.get(config),
        "mhlo.frontend_attributes": ir.DictAttr.get({FILL: ir.StringAttr.get(f"{fill:.6g}")}),
    }
    wide = [*operands[:2], *(build.convert(value, i64) for value in operands[2:])]
    return build.op_of("custom_call", wide, [operands[1].type], attributes)[0]
