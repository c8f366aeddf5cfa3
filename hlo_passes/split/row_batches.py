"""Runs experts on the rows of one part, in batches of fixed size.

How many rows came for an expert is known only at run time. Every expert gets a batch of as many
rows as a balanced routing brings it, and a little more; if more came for any of them, all get
another batch, until no rows are left. So the work grows with the rows and not with the room for
them, whatever the routing, and no row is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.rules.rule import Part
from hlo_passes.cut.states import Cut, OpSplit
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.capacity.row_layouts import RowLayout
from hlo_passes.layers.capacity.row_paths import RowPath
from hlo_passes.split.rows import Arrival, PrefixSum, Shipment, one_hot, ranks
from hlo_passes.split.values import PartValues


@dataclass(frozen=True, slots=True)
class _RowBatch:
    """One batch of one part.

    Attributes:
        rows: rows of every expert in it.
        packed: per row, which of the packed rows it is; their number where there is none.
        source, expert, place: per row, where it belongs in the whole buffer.
        real: per row, whether there is one.
        slot: per packed row, which row of the batch it is; beyond them if it is not in it.
        in_batch: per packed row, whether the batch has it.
    """

    rows: int
    packed: ir.Value
    source: ir.Value
    expert: ir.Value
    place: ir.Value
    real: ir.Value
    slot: ir.Value
    in_batch: ir.Value


@dataclass
class RowBatches:
    """Runs the ops of a row path, part by part.

    Attributes:
        path: the ops.
        body: their block.
        part_values: its values.
        sum_up: how prefix sums are built.
        scatters: whether rows are scattered to where they lie, or gathered there.
    """

    path: RowPath
    body: Body
    part_values: PartValues
    sum_up: PrefixSum
    scatters: bool

    @cached_property
    def came(self) -> ir.Value:
        """What the put brings, in the old block."""
        return self.body.ops[self.path.put.exchange].results[0]

    @cached_property
    def answer(self) -> ir.Value:
        """What the fetch takes away, in the old block."""
        return self.body.ops[self.path.fetch.exchange].operands[0]

    def run(self, arrivals: Sequence[Arrival]) -> tuple[ir.Value, ...]:
        """Build all parts at the insertion point.

        Args:
            arrivals: per part, the rows that came.

        Returns:
            Per part, the packed rows that go back.
        """
        exports = [build.filled(self._flat_type(value), 0) for value in self.path.exports]
        answers = []
        for arrival in arrivals:
            answer, *exports = self._run_part(arrival, exports)
            answers.append(answer)
        for value, joined in zip(self.path.exports, exports, strict=True):
            self.part_values.give_whole(value, build.reshape(joined, shape_of(value)))
        return tuple(answers)

    def _run_part(self, arrival: Arrival, exports: Sequence[ir.Value]) -> list[ir.Value]:
        """Build the loop over the batches of one part; return its answers and the exports."""
        shipment, count = arrival.shipment, shape_of(arrival.rows)[0]
        asked = build.reshape(shipment.asked, (count,))
        rows = self.path.batch_rows(shape_of(shipment.places)[0])
        expert, _ = build.divide(asked, self.path.capacity)
        rank = ranks(one_hot(expert, self.path.experts), self.sum_up)
        last = build.largest(rank, 0, 0)
        trips = build.binary("divide", last, build.splat(last.type, rows))
        trips = build.binary("add", trips, build.splat(trips.type, 1))
        imports = [
            build.reshape(self.part_values.whole(value), self._flat_type(value).shape)
            for value in self.path.imports
        ]
        width = self.path.layout_of(self.answer).width
        empty = build.filled(build.type_like(self.answer.type, (count, width)), 0)

        def step(trip: ir.Value, carried: Sequence[ir.Value]) -> Sequence[ir.Value]:
            batch = self._batch(shipment, asked, expert, rank, trip, rows)
            made = self._compute(batch, arrival.rows, imports)
            answer = self._put_answer(batch, self._flat(made[self.answer], width), carried[0])
            return [answer, *self._export(batch, made, carried[1:])]

        answer, *exports = build.repeat(trips, [empty, *exports], step)
        return [build.reshape(answer, (count, *shape_of(arrival.rows)[1:])), *exports]

    def _batch(
        self,
        shipment: Shipment,
        asked: ir.Value,
        expert: ir.Value,
        rank: ir.Value,
        trip: ir.Value,
        rows: int,
    ) -> _RowBatch:
        """Build the tables of one batch."""
        experts, count = self.path.experts, shape_of(asked)[0]
        first = build.binary("multiply", trip, build.splat(trip.type, rows))
        within = build.binary("subtract", rank, build.broadcast(first, rank.type, []))
        zero, limit = build.splat(rank.type, 0), build.splat(rank.type, rows)
        is_here = build.binary(
            "and", build.compare(within, "GE", zero), build.compare(within, "LT", limit)
        )
        is_here = build.binary("and", is_here, build.compare(rank, "GE", zero))
        slot = build.binary("add", build.binary("multiply", expert, limit), within)
        slot = build.select(is_here, slot, build.splat(slot.type, experts * rows))
        packed = build.filled(build.int_type((experts * rows,)), count)
        packed = build.scatter_rows(packed, build.iota((count,), 0), slot, "set", distinct=True)
        real = build.compare(packed, "LT", build.splat(packed.type, count))
        inside = build.gather_rows(asked, packed)
        owner, place = build.divide(inside, self.path.capacity)
        return _RowBatch(
            rows=rows,
            packed=packed,
            source=build.divide(packed, shipment.room)[0],
            expert=owner,
            place=place,
            real=real,
            slot=slot,
            in_batch=is_here,
        )

    def _compute(
        self, batch: _RowBatch, came: ir.Value, imports: Sequence[ir.Value]
    ) -> dict[ir.Value, ir.Value]:
        """Build the ops for one batch; return what each old value is in it."""
        made = {self.came: build.gather_rows(came, batch.packed)}
        for value, whole in zip(self.path.imports, imports, strict=True):
            made[value] = build.gather_rows(whole, self._positions(batch, value))
        for value in made:
            made[value] = build.reshape(made[value], self._batch_shape(value, batch.rows))
        for place in self.path.ops:
            op = self.body.ops[place]
            operands = [
                made[value] if state is not None else self.part_values.whole(value)
                for value, state in zip(
                    self.body.reads[place], self.path.by_place.splits[place].operands, strict=True
                )
            ]
            made |= zip(op.results, self._narrow(place, operands, batch.rows), strict=True)
        return made

    def _narrow(self, place: int, operands: Sequence[ir.Value], rows: int) -> list[ir.Value]:
        """Build an op for the rows of a batch: of one source, and as many places as it has."""
        op, path = self.body.ops[place], self.path
        by_source, by_place = path.by_source.splits[place], path.by_place.splits[place]
        rule = rule_of(op)
        assert rule is not None
        one = rule.part(op, operands, Part(0, path.by_source.k, by_source))[0].owner
        inside = _inside_one(by_source, by_place, path.by_source.k)
        part = Part(0, Fraction(path.capacity, rows), inside)
        new = rule.part(one, operands, part)
        one.erase()
        return new

    def _put_answer(self, batch: _RowBatch, rows: ir.Value, answer: ir.Value) -> ir.Value:
        """Write the rows of a batch to where they lie packed.

        XLA:CPU writes a scatter row by row, on one core; XLA:GPU reads and writes the whole buffer
        for anything else.
        """
        if self.scatters:
            return build.scatter_rows(answer, rows, batch.packed, "set", distinct=True)
        answered = build.gather_rows(rows, batch.slot)
        bits = build.type_like(batch.in_batch.type, shape_of(answered))
        return build.select(build.broadcast(batch.in_batch, bits, [0]), answered, answer)

    def _export(
        self, batch: _RowBatch, made: dict[ir.Value, ir.Value], carried: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """Write what readers outside want into the whole buffers."""
        exports = []
        for value, buffer in zip(self.path.exports, carried, strict=True):
            position = self._positions(batch, value)
            beyond = build.splat(position.type, shape_of(buffer)[0])
            position = build.select(batch.real, position, beyond)
            rows = self._flat(made[value], self.path.layout_of(value).width)
            exports.append(build.scatter_rows(buffer, rows, position, "set", distinct=True))
        return exports

    def _positions(self, batch: _RowBatch, value: ir.Value) -> ir.Value:
        """Return, per row of a batch, which row of a whole value it is; any for none."""
        layout: RowLayout = self.path.layout_of(value)
        kind = batch.source.type
        source = build.binary("multiply", batch.source, build.splat(kind, layout.source))
        expert = build.binary("multiply", batch.expert, build.splat(kind, layout.expert))
        return build.binary("add", build.binary("add", source, expert), batch.place)

    def _batch_shape(self, value: ir.Value, rows: int) -> tuple[int, ...]:
        path = self.path
        shape = path.by_source.cuts[value].part_of(shape_of(value), path.by_source.k)
        return path.by_place.cuts[value].part_of(shape, Fraction(path.capacity, rows))

    def _flat_type(self, value: ir.Value) -> ir.RankedTensorType:
        """Return the type of a whole value, seen as rows."""
        count, width = math.prod(shape_of(value)), self.path.layout_of(value).width
        return build.type_like(value.type, (count // width, width))

    def _flat(self, value: ir.Value, width: int) -> ir.Value:
        return build.reshape(value, (math.prod(shape_of(value)) // width, width))


def _inside_one(by_source: OpSplit, by_place: OpSplit, peers: int) -> OpSplit:
    """Return how an op is cut by place that has been cut down to one source."""
    return OpSplit(
        tuple(map(_inside(peers), by_source.operands, by_place.operands)),
        tuple(map(_inside(peers), by_source.results, by_place.results)),
    )


def _inside(peers: int):
    def cut(source: object, place: object) -> Cut | None:
        if not isinstance(source, Cut) or not isinstance(place, Cut):
            return None
        has_sources = source.dim == place.dim and place.outer % (source.outer * peers) == 0
        return Cut(place.dim, place.outer // peers) if has_sources else place

    return cut
