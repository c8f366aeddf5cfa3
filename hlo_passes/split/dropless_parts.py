"""Builds the parts of a dropless layer: each counts, sorts, sends and groups rows of its own.

Tables are made as the step makes them, from the counts of a part instead of the whole. Only ranks
are counted anew: the step's go on from part to part, or follow another order.
"""

from dataclasses import dataclass, field

from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.rules.rule import Part, clone_part, part_type
from hlo_passes.cut.states import Cut, OpSplit, Sum
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.parts import add_up
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.dropless.exchanges import Access
from hlo_passes.layers.dropless.expert_rows import ROWS
from hlo_passes.layers.dropless.layers import DroplessCut, counted_at
from hlo_passes.split.dense_ragged import dense_exchange
from hlo_passes.split.rows import TOKENS, RowExchange, one_hot
from hlo_passes.split.values import PartValues


@dataclass
class DroplessParts:
    """Builds one layer.

    Attributes:
        cut: how it is cut.
        body: the block.
        part_values: values of tokens, and those that all parts share.
        sent: how rows are sent.
    """

    cut: DroplessCut
    body: Body
    part_values: PartValues
    sent: RowExchange
    _rows: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)
    _tables: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)
    _positions: dict[int, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        exchanges = self.cut.layer.exchanges
        self._exchanges = {one.place: one for one in exchanges}
        self._accesses = {
            access.place: (one, access) for one in exchanges for access in one.accesses
        }

    @property
    def places(self) -> frozenset[int]:
        """Places of the ops that are built here."""
        return frozenset({*self._exchanges, *self._accesses, *self.cut.rows.live})

    def build(self, place: int) -> None:
        """Build all parts of an op, at the insertion point."""
        if place in self._exchanges:
            self._exchange(place)
        elif place in self._accesses:
            one, access = self._accesses[place]
            (self._sort if one.way == "there" else self._unsort)(access)
        else:
            self._run(place, self.cut.rows.splits[place])

    def _sort(self, access: Access) -> None:
        """Put the rows of a part where its own counts say."""
        op = self.body.ops[access.place]
        kind = part_type(op.results[0].type, ROWS, self.part_values.k)
        dims = tuple(ir.RankedTensorType(kind).shape)
        source = op.operands[2 if access.by == "row" else 0]
        for i, rows in enumerate(self.part_values.parts(source, TOKENS)):
            if access.by == "choice":
                tokens, *width = shape_of(rows)
                many = build.type_like(rows.type, (tokens, access.each, *width))
                rows = build.broadcast(rows, many, [0, *range(2, len(width) + 2)])
            self._rows[op.results[0], i] = build.scatter_rows(
                build.filled(kind, 0), build.reshape(rows, dims), self._position(i), "set",
                distinct=True,
            )  # fmt: skip

    def _unsort(self, access: Access) -> None:
        """Read the rows of a part in the order of its tokens."""
        op, parts = self.body.ops[access.place], []
        own = op.operands[0 if access.by == "row" else 2]
        dims = TOKENS.part_of(shape_of(op.results[0]), self.part_values.k)
        for i in range(self.part_values.k):
            rows = build.gather_rows(self._rows[own, i], self._position(i))
            if access.each > 1:
                many = build.reshape(rows, (dims[0], access.each, *dims[1:]))
                rows = build.total(many, 1)
            parts.append(build.reshape(rows, dims))
        self.part_values.give_parts(op.results[0], TOKENS, parts)

    def _position(self, i: int) -> ir.Value:
        """Return where the rows of a part lie once they are sorted, int32 `[N]`."""
        if i not in self._positions:
            routing = self.cut.layer.routing
            part = self.part_values.parts(routing.ids, TOKENS)[i]
            rows, i32 = routing.rows // self.part_values.k, ir.IntegerType.get_signless(32)
            hot = one_hot(build.convert(build.reshape(part, (rows,)), i32), routing.experts)
            counts = build.total(hot, 0)
            starts = build.binary("subtract", self.sent.sum_up(counts, 0), counts)
            behind = build.binary("subtract", starts, build.splat(starts.type, 1))
            place = build.binary(
                "add", self.sent.sum_up(hot, 0), build.broadcast(behind, hot.type, [1])
            )
            self._positions[i] = build.total(build.binary("multiply", hot, place), 1)
        return self._positions[i]

    def _exchange(self, place: int) -> None:
        op = self.body.ops[place]
        kind = part_type(op.results[0].type, ROWS, self.part_values.k)
        for i in range(self.part_values.k):
            tables = [self._table(value, i) for value in list(op.operands)[2:]]
            operands = [self._row(op.operands[0], i), build.filled(kind, 0), *tables]
            if self.sent.ragged:
                new = op.clone()
                for at, value in enumerate(operands):
                    new.operands[at] = value
                new.results[0].set_type(kind)
                made = new.results[0]
            else:
                made = dense_exchange(op, operands, self.sent.groups[place])
            self._rows[op.results[0], i] = made

    def _run(self, place: int, split: OpSplit) -> None:
        """Run an op for the rows of every part; add up what it gives for all of them."""
        op = self.body.ops[place]
        made = [self._part(place, split, i) for i in range(self.part_values.k)]
        for r, state in enumerate(split.results):
            if not isinstance(state, Sum):
                for i, values in enumerate(made):
                    self._rows[op.results[r], i] = values[r]
                continue
            element = build.tensor(op.results[r]).element_type
            total = add_up([values[r] for values in made], state.merge, element)
            self.part_values.give_whole(op.results[r], total)

    def _part(self, place: int, split: OpSplit, i: int) -> list[ir.Value]:
        op = self.body.ops[place]
        operands = [
            self._row(value, i) if isinstance(state, Cut) else self._shared(value, i)
            for value, state in zip(self._read(place), split.operands, strict=True)
        ]
        rule = rule_of(op)
        make = clone_part if rule is None or op.name == "stablehlo.iota" else rule.part
        return make(op, operands, Part(i, self.part_values.k, split))

    def _row(self, value: ir.Value, i: int) -> ir.Value:
        """Return a value for the rows of a part; numbers of rows count from zero in each."""
        if (value, i) not in self._rows:
            place = self.body.maker[value]
            (made,) = self._part(place, self.cut.rows.splits[place], i)
            self._rows[value, i] = made
        return self._rows[value, i]

    def _shared(self, value: ir.Value, i: int) -> ir.Value:
        """Return a value that is not one of rows: a table of the part, or what all parts share."""
        return (
            self._table(value, i)
            if value in self.cut.rows.tables
            else self.part_values.whole(value)
        )

    def _table(self, value: ir.Value, i: int) -> ir.Value:
        """Return a table of a part, made as the whole's is."""
        if value not in self.cut.tables:
            return self.part_values.whole(value)
        if (value, i) not in self._tables:
            place, kind = self.body.made_by(value)
            op, read = self.body.ops[place], self._read(place)
            if kind == "optimization_barrier":
                at = list(op.results).index(value)
                self._tables[value, i] = self._table(read[at], i)
                return self._tables[value, i]
            counted = counted_at(op) if value in self.cut.counts else ()
            operands = [
                self.part_values.parts(operand, TOKENS)[i]
                if n in counted
                else self._table(operand, i)
                for n, operand in enumerate(read)
            ]
            new = op.clone()
            for n, operand in enumerate(operands):
                new.operands[n] = operand
            for old, result in zip(op.results, new.results, strict=True):
                self._tables[old, i] = result
        return self._tables[value, i]

    def _read(self, place: int) -> tuple[ir.Value, ...]:
        """Return an op's operands in the old program: those of one that stays may be others now."""
        return tuple(self.body.reads[place][: len(self.body.ops[place].operands)])
