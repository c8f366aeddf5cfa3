"""Rewrites a block so that its cut ops run once for every part."""

from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.rules.reduce import carry_of
from hlo_passes.cut.rules.rule import Part
from hlo_passes.cut.spread import BARRIER, States
from hlo_passes.cut.states import Cut, OpSplit, Sum
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.build import alone, barrier_of, tensor
from hlo_passes.ir.stablehlo.edit import erase_unread
from hlo_passes.ir.stablehlo.parts import add_up
from hlo_passes.layers.capacity.row_paths import CutSites
from hlo_passes.split.build_order import build_order
from hlo_passes.split.dropless_parts import DroplessParts
from hlo_passes.split.row_batches import RowBatches
from hlo_passes.split.rows import Arrival, RowExchange
from hlo_passes.split.swapped import swapped, swaps
from hlo_passes.split.values import PartValues


def cut_block(
    body: Body, states: States, sites: CutSites | None = None, rows: RowExchange | None = None
) -> None:
    """Cut a block into parts. The body's handles are gone afterwards.

    Args:
        body: the block.
        states: which ops are cut, and how.
        sites: exchanges whose rows are sent part by part.
        rows: how rows are sent; needed if there are any.
    """
    _Cutter(body, states, sites or CutSites(), rows).run()


class _Cutter:
    """Builds the new block behind the old one, op by op, and erases what it replaced."""

    def __init__(
        self, body: Body, states: States, sites: CutSites, rows: RowExchange | None
    ) -> None:
        self.body, self.states, self.rows = body, states, rows
        self.part_values = PartValues(states.k)
        self.puts = {site.exchange: site for site in sites.puts}
        self.fetches = {site.access: site for site in sites.fetches}
        self.paths = {path.fetch.exchange: path for path in sites.paths}
        self.arrivals: dict[int, tuple[Arrival, ...]] = {}
        self.answers: dict[int, tuple[ir.Value, ...]] = {}
        self.replaced = {i for site in (*sites.puts, *sites.fetches) for i in site.ops}
        self.replaced |= {i for path in sites.paths for i in path.dropped}
        # Ops that something else builds, or runs for some rows.
        self.dealt_with = self.replaced | {i for path in sites.paths for i in path.ops}
        self.dropless: dict[int, DroplessParts] = {}
        for cut in sites.dropless:
            assert rows is not None
            parts = DroplessParts(cut, body, self.part_values, rows)
            self.dropless.update(dict.fromkeys(parts.places, parts))
            self.replaced |= cut.replaced
            self.dealt_with |= cut.replaced | {*parts.places}

    def run(self) -> None:
        end = self.body.ops[-1]
        for place in build_order(self.body, tuple(self.paths.values())):
            op = self.body.ops[place]
            with ir.InsertionPoint(end), op.location:
                self._build(place, op)
        for place in reversed(range(len(self.body.ops))):
            if place in self.replaced or place in self.states.splits:
                erase_unread(self.body.ops[place])

    def _build(self, place: int, op: ir.Operation) -> None:
        if place in self.dropless:
            self.dropless[place].build(place)
        elif place in self.puts:
            assert self.rows is not None
            self.arrivals[place] = self.rows.put(self.puts[place], self.body, self.part_values)
        elif place in self.fetches:
            assert self.rows is not None
            answers = self.answers.get(self.fetches[place].exchange)
            self.rows.fetch(self.fetches[place], self.body, self.part_values, answers)
        elif place in self.paths:
            assert self.rows is not None
            path = self.paths[place]
            batches = RowBatches(
                path, self.body, self.part_values, self.rows.sum_up, self.rows.ragged
            )
            self.answers[place] = batches.run(self.arrivals[path.put.exchange])
        elif place in self.replaced:
            return
        elif place in self.states.splits:
            self._split(op, self.states.splits[place])
        else:
            self._keep(place, op)

    def _keep(self, place: int, op: ir.Operation) -> None:
        """Let a whole op read whole values.

        XLA would turn a sum over joined parts into sums of parts; a barrier keeps it from that.
        """
        for i, value in enumerate(op.operands):
            new = self.part_values.whole(value)
            if new != value:
                op.operands[i] = barrier_of([new])[0] if place in self.states.sums else new
        for value in self.body.reads[place][len(op.operands) :]:
            new = self.part_values.whole(value)
            if new != value:
                _replace_inside(op, value, new)
        if op != self.body.ops[-1]:
            op.move_before(self.body.ops[-1])

    def _split(self, op: ir.Operation, split: OpSplit) -> None:
        if op.name.endswith(BARRIER):
            self._split_barrier(op, split)
        elif any(isinstance(state, Sum) for state in split.results):
            self._accumulate(op, split)
        else:
            self._split_plain(op, split)

    def _operands(self, op: ir.Operation, split: OpSplit, index: int) -> list[ir.Value]:
        return [
            self._shared(op, value, index)
            if state is None
            else self.part_values.parts(value, state)[index]
            for value, state in zip(op.operands, split.operands, strict=True)
        ]

    def _shared(self, op: ir.Operation, value: ir.Value, index: int) -> ir.Value:
        """Return a value that all parts read.

        Biases and scales are read by kernels, which XLA would put together; see `alone`. What is
        made from nothing is made inside those kernels.
        """
        _, made_by = self.body.made_by(value)
        is_read = op.name.endswith("broadcast_in_dim") and made_by not in ("constant", "iota")
        return self.part_values.own(value, index) if is_read else self.part_values.whole(value)

    def _split_plain(self, op: ir.Operation, split: OpSplit) -> None:
        rule = rule_of(op)
        assert rule is not None
        made: list[list[ir.Value]] = []
        carry = None
        for index in range(self.states.k):
            part = Part(index, self.states.k, split, carry)
            made.append(rule.part(op, self._operands(op, split, index), part))
            if split.carries:
                carry = alone(carry_of(op, made[-1]), index)
        for r, state in enumerate(split.results):
            if isinstance(state, Cut):
                self.part_values.give_parts(op.results[r], state, [values[r] for values in made])
            else:
                self.part_values.give_whole(op.results[r], made[-1][r])

    def _accumulate(self, op: ir.Operation, split: OpSplit) -> None:
        """Add products up, part by part.

        Where the product is transposed, its parts are products of swapped operands: XLA makes
        them of a product right before its transpose, and there is a sum between them here.
        """
        rule = rule_of(op)
        (state,) = split.results
        assert rule is not None
        assert isinstance(state, Sum)
        swap = self._swap_behind(op)
        parts = []
        for index in range(self.states.k):
            part = Part(index, self.states.k, split)
            (made,) = rule.part(op, self._operands(op, split, index), part)
            if swap is not None:
                made = swapped(made)
            parts.append(made)
        if swap is not None:
            self.replaced.add(swap)
        (whole,) = op.results if swap is None else self.body.ops[swap].results
        self.part_values.give_whole(whole, add_up(parts, state.merge, tensor(whole).element_type))

    def _swap_behind(self, op: ir.Operation) -> int | None:
        """Return the place of a transpose that makes a product one of swapped operands."""
        users = self.body.users.get(op.results[0], ())
        if len(users) != 1 or users[0] in self.states.splits or users[0] in self.dealt_with:
            return None
        return users[0] if swaps(op, self.body.ops[users[0]]) else None

    def _split_barrier(self, op: ir.Operation, split: OpSplit) -> None:
        """Give every part a barrier of its own, and one to what is whole."""
        cuts = {i: state for i, state in enumerate(split.operands) if state is not None}
        rest = [i for i in range(len(op.operands)) if i not in cuts]
        rows = [self.part_values.parts(op.operands[i], cut) for i, cut in cuts.items()]
        columns = [barrier_of(column) for column in zip(*rows, strict=True)]
        for (i, cut), parts in zip(cuts.items(), zip(*columns, strict=True), strict=True):
            self.part_values.give_parts(op.results[i], cut, parts)
        if rest:
            whole = barrier_of([self.part_values.whole(op.operands[i]) for i in rest])
            for i, value in zip(rest, whole, strict=True):
                self.part_values.give_whole(op.results[i], value)


def _replace_inside(op: ir.Operation, old: ir.Value, new: ir.Value) -> None:
    """Replace a captured value in the regions of an op."""

    def visit(inner: ir.Operation) -> ir.WalkResult:
        for i, value in enumerate(inner.operands):
            if value == old:
                inner.operands[i] = new
        return ir.WalkResult.ADVANCE

    op.walk(visit)
