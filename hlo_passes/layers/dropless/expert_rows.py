"""What happens to rows at their experts: whether every row is treated alone, wherever it lies.

A part of the tokens has its own buffer, in which its rows lie elsewhere. So what is done to a row
may depend on what is in it and on its expert, and on nothing else. Ops run along the rows; a row's
number may only be compared with where an expert's rows start or end, which says no more than which
expert's it is. Sums over rows (gradients of weights) are sums over parts, if rows that nobody sent
add nothing: they are zero, or times zero.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jax.extend.mlir.dialects import chlo
from jaxlib.mlir import ir

from hlo_passes.cut.rules import dot, layout, pointwise, slicing
from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.rules.rule import OpLoop, by_factors
from hlo_passes.cut.states import Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.proofs.arithmetic import direction_of, element_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.fills import BEYOND, Fills, number_like
from hlo_passes.proofs.prefix import starts_from_nothing
from hlo_passes.proofs.ranges import Range, in_type

ROWS = Cut(0)
"""How the rows of a buffer lead it."""

_ALLOWED = frozenset({
    *pointwise.RULES, *layout.RULES, *dot.RULES, *slicing.RULES, "reduce", "ragged_dot",
})  # fmt: skip
_RENAMES = ("broadcast_in_dim", "reshape", "convert")
_ROW_FIRST = {"LT", "GE"}
_ROW_LAST = {"GT", "LE"}


@dataclass(frozen=True, eq=False)
class ExpertOps:
    """Ops that run for the rows of one part.

    Attributes:
        splits: per op, by its place, the states of what it reads and makes: `Cut` where rows are.
        live: places of those that read what came, directly or not; the others can be had whole.
        tables: values that every part has its own of: sizes, starts or ends of its groups.
    """

    splits: dict[int, OpSplit]
    live: frozenset[int]
    tables: tuple[ir.Value, ...]


@dataclass
class ExpertOpFinder:
    """Follows rows from the exchanges that bring them to those that take them away.

    Attributes:
        body: the block.
        room: rows of the buffers that exchanges fill: each may be anywhere, so that ops have to be
            such that every one of them is a part.
        came: what exchanges bring.
        leaves: places of the exchanges that take rows away.
        is_boundary: whether all entries of a table are starts or ends of experts' rows.
        is_sizes: whether a table holds the rows of every expert.
    """

    body: Body
    room: int
    came: tuple[ir.Value, ...]
    leaves: frozenset[int]
    is_boundary: Callable[[ir.Value], bool]
    is_sizes: Callable[[ir.Value], bool]
    cuts: dict[ir.Value, Cut] = field(default_factory=dict)
    splits: dict[int, OpSplit] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    tables: dict[ir.Value, None] = field(default_factory=dict)
    idle: Fills = field(default_factory=lambda: Fills(Constants()))

    def find(self) -> ExpertOps:
        """Find all ops that run for rows.

        Raises:
            NotProved: if one of them does more than treat every row alone.
        """
        alive = set(self.came)
        for value in self.came:
            self.cuts[value] = ROWS
            self.idle.say_zero(value)
        for place in range(len(self.body.ops)):
            if any(value in alive for value in self.body.reads[place]):
                alive.update(self._follow(place, alive))
        return ExpertOps(self.splits, frozenset(self.live), tuple(self.tables))

    def _follow(self, place: int, alive: set[ir.Value]) -> Iterator[ir.Value]:
        """Take in an op that reads rows; yield what it makes of them."""
        op = self.body.ops[place]
        reads = [i for i, value in enumerate(op.operands) if value in alive]
        if place in self.leaves:
            if reads != [0] or self.cuts[op.operands[0]] != ROWS:
                raise self._refusal(place, "takes rows in another order")
            return
        if place in self.splits:
            raise self._refusal(place, "is read before rows have come")
        if not reads:
            raise self._refusal(place, "reads rows inside a region")
        split = self._split(place, Spot("operand", reads[0]), self.cuts[op.operands[reads[0]]])
        self.live.add(place)
        self._agree(place, split, alive)
        yield from (v for v, state in zip(op.results, split.results, strict=True)
                    if isinstance(state, Cut))  # fmt: skip

    def _split(self, place: int, spot: Spot, cut: Cut) -> OpSplit:
        op, kind = self.body.ops[place], self.body.kind(place)
        rule = rule_of(op)
        if kind not in _ALLOWED or (rule is None and kind != "ragged_dot"):
            raise self._refusal(place, "may do more than treat every row alone")
        try:
            if kind == "ragged_dot":
                split = self._grouped(op, spot, cut)
            else:
                assert rule is not None
                split = rule.cut(op, spot, cut, self.room)
        except NotProved as reason:
            raise self._refusal(place, f"does not treat every row alone: {reason}") from None
        for values, states in ((op.operands, split.operands), (op.results, split.results)):
            for value, state in zip(values, states, strict=True):
                if isinstance(state, Cut) and not state.fits(shape_of(value), self.room):
                    raise self._refusal(place, "has no such rows")
        self.splits[place] = split
        return split

    def _agree(self, place: int, split: OpSplit, alive: set[ir.Value]) -> None:
        """Check what an op reads beside rows, and note what it makes."""
        op = self.body.ops[place]
        for value, state in zip(op.operands, split.operands, strict=True):
            if value in alive:
                if self.cuts[value] != state:
                    raise self._refusal(place, "mixes rows of different places")
            elif state is not None:
                self._make(place, value, state)
        self._check_numbers(place, split)
        if isinstance(split.results[0], Sum):
            self._check_sum(place, split)
            return
        for value, state in zip(op.results, split.results, strict=True):
            assert isinstance(state, Cut)
            self.cuts[value] = state
            self.idle.follow(op, value, [isinstance(s, Cut) for s in split.operands])

    def _make(self, reader: int, value: ir.Value, cut: Cut) -> None:
        """Take in an op that makes rows from nothing: constants, numbers, and what follows."""
        if value in self.cuts:
            if self.cuts[value] != cut:
                raise self._refusal(reader, "reads one value as rows in two ways")
            return
        place, kind = self.body.made_by(value)
        if place < 0 or place in self.splits or len(self.body.ops[place].results) != 1:
            raise self._refusal(reader, "reads rows that no exchange has brought")
        if kind == "iota" and integer(self.body.ops[place], "iota_dimension") == cut.dim:
            if shape_of(value)[cut.dim] != self.room or not self._holds_numbers(value):
                raise self._refusal(place, "numbers something else than rows")
            self.splits[place] = OpSplit((), (cut,))
            self.cuts[value] = cut
            self.idle.say(value, BEYOND)
            return
        split = self._split(place, Spot("result", 0), cut)
        self._agree(place, split, set())

    def _check_numbers(self, place: int, split: OpSplit) -> None:
        """Check that a row's number only says which expert's row it is."""
        op, kind = self.body.ops[place], self.body.kind(place)
        if kind == "ragged_dot":
            sizes = op.operands[2]
            if not self.is_sizes(sizes):
                raise self._refusal(place, "has other groups than the rows that came")
            self.tables[sizes] = None
        numbers = [v for v in op.operands if v in self.cuts and self.idle.of(v) is BEYOND]
        if not numbers:
            return
        if kind in _RENAMES:
            if not self._holds_numbers(op.results[0]):
                raise self._refusal(place, "numbers rows in a type that holds not all of them")
        elif kind == "compare" and len(numbers) == 1:
            self._check_boundary(place, op, numbers[0])
        else:
            raise self._refusal(place, "depends on where in the buffer a row lies")

    def _holds_numbers(self, value: ir.Value) -> bool:
        """Whether the type of a value holds the number of every row."""
        numbers = Range(0, self.room - 1)
        return in_type(numbers, element_of(value)) == numbers

    def _check_boundary(self, place: int, op: ir.Operation, number: ir.Value) -> None:
        """Check that a comparison of a row's number asks which expert's row it is."""
        at = list(op.operands).index(number)
        limit = self._uniform(op.operands[1 - at])
        wanted = _ROW_LAST if at else _ROW_FIRST
        if direction_of(op) not in wanted or limit is None or not self.is_boundary(limit):
            raise self._refusal(place, "compares a row's place with no start or end of a group")
        self.tables[limit] = None
        after = number_like(op.results[0], direction_of(op) in ("GE", "LE"))
        self.idle.say(op.results[0], after)

    def _uniform(self, value: ir.Value) -> ir.Value | None:
        """Return what a value repeats for every row."""
        place, kind = self.body.made_by(value)
        if kind != "broadcast_in_dim" or self.splits[place].operands != (None,):
            return None
        return self.body.ops[place].operands[0]

    def _check_sum(self, place: int, split: OpSplit) -> None:
        """Check that rows that nobody sent add nothing to a sum over rows."""
        op, kind = self.body.ops[place], self.body.kind(place)
        if kind == "ragged_dot":
            return
        zero = any(
            isinstance(state, Cut) and self.idle.is_zero(value)
            for value, state in zip(op.operands, split.operands, strict=True)
        )
        adds = split.results == (Sum("add"),)
        if kind == "reduce":
            adds = adds and starts_from_nothing(op, "add")
        if not adds or not zero:
            raise self._refusal(place, "puts rows together with those that nobody sent")

    @staticmethod
    def _grouped(op: ir.Operation, spot: Spot, cut: Cut) -> OpSplit:
        """Cut a grouped product along its rows."""
        return by_factors([grouped_factor(op)], spot, cut)

    def _refusal(self, place: int, why: str) -> NotProved:
        return NotProved(f"{self.body.where(place)} {why}")


def grouped_factor(op: ir.Operation) -> OpLoop:
    """Return the loop of a grouped product that runs over its rows.

    Raises:
        NotProved: if it has no such loop.
    """
    numbers = chlo.RaggedDotDimensionNumbers(op.attributes["ragged_dot_dimension_numbers"])
    (row,) = numbers.lhs_ragged_dimensions
    contracted = list(numbers.lhs_contracting_dimensions)
    batch = list(numbers.lhs_batching_dimensions)
    if row in contracted:
        other = list(numbers.rhs_contracting_dimensions)[contracted.index(row)]
        return OpLoop((row, other, None), (None,))
    if row in batch:
        raise NotProved("its groups are a batch")
    free = [d for d in range(len(shape_of(op.operands[0]))) if d not in {*contracted, *batch}]
    return OpLoop((row, None, None), (len(batch) + free.index(row),))
