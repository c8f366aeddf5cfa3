"""Dropless layers that can be cut along the batch.

Every token reaches its experts whatever the others choose, so a part of the tokens that counts,
sorts, sends and groups its own rows gives its tokens what the whole gives them. What it takes is
proved by dataflow, whatever the layer looks like:

- places of rows are `start[expert] + rank` (`routing.py`);
- tables of exchanges are those of rows grouped by expert (`exchanges.py`, `tables.py`), and the
  buffer has room for all rows of all devices, so that a k-th of it has room for those of a part;
- at their experts, rows are treated one by one (`expert_rows.py`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.stablehlo.blocks import ragged_exchanges_of
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.ir.traits import BRANCHES, EFFECTS
from hlo_passes.layers.dropless.exchanges import Layout, RaggedExchange, read_exchange, routing_of
from hlo_passes.layers.dropless.expert_rows import ExpertOpFinder, ExpertOps
from hlo_passes.layers.dropless.orders import Orders
from hlo_passes.layers.dropless.routing import CountedChoices, Positions, find_routings
from hlo_passes.layers.dropless.sorted_rows import SortedRows
from hlo_passes.layers.dropless.tables import Tables
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.engine import NotProved

_STAYS = EFFECTS | BRANCHES | {"call", "custom_call", "return", "rng_bit_generator", "while"}


@dataclass(frozen=True, eq=False)
class DroplessLayer:
    """A layer whose exchanges are those of one routing.

    Attributes:
        routing: its choices.
        exchanges: in program order.
        layout: where its rows lie.
        room: rows of the buffers at its experts.
    """

    routing: CountedChoices
    exchanges: tuple[RaggedExchange, ...]
    layout: Layout
    room: int
    _asked: dict[tuple[str, int], bool] = field(default_factory=dict)
    _rows: list[ExpertOps] = field(default_factory=list)

    def rows(self, body: Body) -> ExpertOps:
        """Return what happens to its rows at their experts.

        Raises:
            NotProved: if they are not treated one by one.
        """
        if not self._rows:
            came = tuple(body.ops[x.place].results[0] for x in self.exchanges if x.way == "there")
            leaves = frozenset(x.place for x in self.exchanges if x.way == "back")
            finder = ExpertOpFinder(body, self.room, came, leaves, self.is_boundary, self.is_sizes)
            self._rows.append(finder.find())
        return self._rows[0]

    def is_boundary(self, table: ir.Value) -> bool:
        """Whether all entries of a table are starts or ends of the rows of a device's experts."""
        return self._holds("boundary", table, _are_boundaries)

    def is_sizes(self, table: ir.Value) -> bool:
        """Whether a table holds the rows of every expert of a device."""
        return self._holds("sizes", table, np.array_equal)

    def _holds(
        self, name: str, table: ir.Value, check: Callable[[np.ndarray, np.ndarray], bool]
    ) -> bool:
        key = name, self.layout.tables.numbers[table]
        if key not in self._asked:
            devices = range(self.layout.tables.devices)
            self._asked[key] = all(self._holds_on(device, table, check) for device in devices)
        return self._asked[key]

    def _holds_on(
        self, device: int, table: ir.Value, check: Callable[[np.ndarray, np.ndarray], bool]
    ) -> bool:
        tables = self.layout.tables
        try:
            return check(tables.of(table).on(device), self.layout.sizes(device))
        except NotProved:
            return False


def _are_boundaries(at: np.ndarray, sizes: np.ndarray) -> bool:
    return bool(np.isin(at, [0, *np.cumsum(sizes, dtype=np.int64)]).all())


@dataclass(frozen=True, eq=False)
class DroplessCut:
    """A layer, cut.

    Attributes:
        layer: the layer.
        rows: what runs for the rows of a part.
        tables: values that every part has its own of, as they follow from its counts.
        counts: those of them that count choices.
        replaced: places of the ops that nobody needs then.
    """

    layer: DroplessLayer
    rows: ExpertOps
    tables: frozenset[ir.Value]
    counts: frozenset[ir.Value]
    replaced: frozenset[int]


@dataclass(frozen=True, eq=False)
class DroplessLayers:
    """The dropless layers of a block.

    Attributes:
        layers: in program order.
        refusals: per ragged exchange that belongs to none, (its place, why).
    """

    layers: tuple[DroplessLayer, ...] = ()
    refusals: tuple[tuple[int, str], ...] = ()


def find_layers(
    body: Body, numbers: dict[ir.Value, int], groups: Mapping[int, DeviceGroups], devices: int
) -> DroplessLayers:
    """Find the dropless layers of a block.

    Args:
        body: the block.
        numbers: its value numbers.
        groups: per exchange, by its place, the devices that take part together.
        devices: number of devices.
    """
    exchanges = ragged_exchanges_of(body)
    if not exchanges:
        return DroplessLayers()
    counting = Counting(body, numbers)
    routings = {r.number: r for r in find_routings(body, numbers, counting)}
    experts = {number: routing.experts for number, routing in routings.items()}
    tables = Tables(body, numbers, groups, devices, experts)
    rows = SortedRows(Positions(counting, tables), Orders(counting))
    sent = _Sent(body, tables, routings, rows)
    for place in exchanges:
        sent.read(place)
    layers = []
    for number, found in sent.found.items():
        try:
            layers.append(sent.layer(number))
        except NotProved as reason:
            sent.refused |= {one.place: str(reason) for one in found}
    return DroplessLayers(tuple(layers), tuple(sorted(sent.refused.items())))


@dataclass
class _Sent:
    """Sorts exchanges by the routing that their tables follow from.

    Attributes:
        body: the block.
        tables: what its tables hold.
        routings: by number.
        rows: proves which rows are whose.
        found: by the number of a routing, its exchanges.
        refused: why others are none, by place.
        broken: numbers of the routings that one of those belongs to.
    """

    body: Body
    tables: Tables
    routings: Mapping[int, CountedChoices]
    rows: SortedRows
    found: dict[int, list[RaggedExchange]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)

    def read(self, place: int) -> None:
        """Take in an exchange."""
        counted: frozenset[int] = frozenset()
        try:
            counted = routing_of(self.body, self.tables, place)
            if len(counted) != 1:
                raise NotProved("its tables follow from the counts of no routing, or of several")
            (number,) = counted
            layout = Layout(self.routings[number], place, self.tables)
            one = read_exchange(self.body, layout, place, self.rows)
            self.found.setdefault(number, []).append(one)
        except NotProved as reason:
            self.refused[place] = str(reason)
            self.broken |= counted if len(counted) == 1 else set()

    def layer(self, number: int) -> DroplessLayer:
        """Return the layer of a routing.

        Raises:
            NotProved: if its exchanges are not all there, or not alike.
        """
        if number in self.broken:
            raise NotProved("another exchange of its layer stays whole")
        exchanges = self.found[number]
        layout = Layout(self.routings[number], exchanges[0].place, self.tables)
        rooms = {max(shape_of(v)[0] for v in _buffers(self.body, one.place)) for one in exchanges}
        linked = {tuple(map(tuple, self.tables.groups[one.place])) for one in exchanges}
        if len(rooms) > 1 or len(linked) > 1:
            raise NotProved(
                "exchanges of its layer differ in their devices, or in their room at the experts"
            )
        return DroplessLayer(self.routings[number], tuple(exchanges), layout, rooms.pop())


def _buffers(body: Body, place: int) -> list[ir.Value]:
    op = body.ops[place]
    return [op.operands[0], op.results[0]]


def cut_layer(body: Body, layer: DroplessLayer, k: int, ops: Collection[int]) -> DroplessCut:
    """Work out how a layer is cut into k parts of the batch.

    Args:
        body: the block.
        layer: the layer.
        k: number of parts.
        ops: places of the ops that may be cut.

    Raises:
        NotProved: if it is not, and why.
    """
    rows = layer.rows(body)
    core = set(rows.live)
    for one in layer.exchanges:
        core |= {one.place, *(access.place for access in one.accesses)}
    if not all(place in ops for place in core):
        raise NotProved(
            "its rows are read beyond the stretch that may be cut: in buffers of parts they have "
            "other places; cut both directions"
        )
    tables, counts = _tables(body, layer, rows)
    _check_equal_parts(body, layer, counts, k)
    unneeded = _unneeded(body, core, set(_wanted(body, layer, rows, tables, counts)))
    return DroplessCut(layer, rows, tables, counts, unneeded)


def tokens_of(body: Body, layer: DroplessLayer) -> Iterator[ir.Value]:
    """Yield what becomes sorted rows, and what rows become: values along tokens or choices."""
    for one in layer.exchanges:
        for access in one.accesses:
            op = body.ops[access.place]
            if one.way == "back":
                yield op.results[0]
            else:
                yield op.operands[2 if access.by == "row" else 0]


def counted_at(op: ir.Operation) -> range:
    """Return which operands an op that counts choices goes through.

    One-hot rows, or indices and ones.
    """
    return range(1, len(op.operands)) if op.name == "stablehlo.scatter" else range(1)


def _check_equal_parts(
    body: Body, layer: DroplessLayer, counts: frozenset[ir.Value], k: int
) -> None:
    counters = [body.ops[body.maker[value]] for value in counts]
    counted = [op.operands[at] for op in counters for at in counted_at(op)]
    values = (layer.routing.ids, *tokens_of(body, layer), *counted)
    tokens = sorted({shape_of(value)[0] for value in values})
    for count in tokens:
        if count % k:
            raise NotProved(f"its {count} tokens or choices have no {k} equal parts")
    for one in layer.exchanges:
        for value in _buffers(body, one.place):
            if shape_of(value)[0] % k:
                raise NotProved(f"{shape_of(value)[0]} rows of room have no {k} equal parts")


def _tables(
    body: Body, layer: DroplessLayer, rows: ExpertOps
) -> tuple[frozenset[ir.Value], frozenset[ir.Value]]:
    """Return the tables that parts need and what these are made of, down to the counts."""
    known, number = layer.layout.tables, layer.routing.number
    todo = [*rows.tables]
    for one in layer.exchanges:
        todo += list(body.ops[one.place].operands)[2:]
    found: set[ir.Value] = set()
    counts: set[ir.Value] = set()
    while todo:
        value = todo.pop()
        if value in found or not known.of(value).counts:
            continue
        found.add(value)
        place, kind = body.made_by(value)
        op = body.ops[place]
        if kind == "optimization_barrier":
            todo.append(op.operands[list(op.results).index(value)])
        elif known.numbers[value] == number:
            counts.add(value)
        else:
            todo.extend(op.operands)
    return frozenset(found), frozenset(counts)


def _wanted(
    body: Body,
    layer: DroplessLayer,
    rows: ExpertOps,
    tables: frozenset[ir.Value],
    counts: frozenset[ir.Value],
) -> Iterator[ir.Value]:
    """Yield the values that parts are made from."""
    yield layer.routing.ids
    for place, split in rows.splits.items():
        for value, state in zip(body.ops[place].operands, split.operands, strict=True):
            if state is None and value not in tables:
                yield value
    yield from tokens_of(body, layer)
    for value in tables:
        place, kind = body.made_by(value)
        if value in counts or kind != "optimization_barrier":
            yield from (v for v in body.ops[place].operands if v not in tables)


def _unneeded(body: Body, core: set[int], wanted: set[ir.Value]) -> frozenset[int]:
    """Return the replaced ops, and those that only they read."""
    unneeded = set(core)
    for place in reversed(range(len(body.ops))):
        op, kind = body.ops[place], body.kind(place)
        users = [user for value in op.results for user in body.users.get(value, ())]
        is_wanted = any(value in wanted for value in op.results)
        if users and kind not in _STAYS and not is_wanted and all(u in unneeded for u in users):
            unneeded.add(place)
    return frozenset(unneeded)
