"""Routings of dropless layers: how many rows go to every expert, and where a row lies before.

Rows that are sorted by expert follow each other: those of an expert start behind all rows of the
experts before it, and a row's rank among its expert's rows says the rest. So its place is

    start[expert] + rank        start[e] = count[0] + ... + count[e - 1]

which no two rows share and which leaves no gap. Where that is proved, the sort of a part of the
rows is the same with counts of that part, and every row of it is somewhere in there.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.analysis.bounds import is_index
from hlo_passes.analysis.counting import Count, Counting, direction_of, is_ascending
from hlo_passes.analysis.cuts import NoSplit
from hlo_passes.analysis.dropless.tables import Tables
from hlo_passes.analysis.split_rules.reduce import reducer, starts_from_nothing
from hlo_passes.ir.attributes import ints, shape_of
from hlo_passes.ir.body import Body


@dataclass(frozen=True, eq=False)
class Routing:
    """Choices of experts, counted.

    Attributes:
        number: number of the value that counts a device's choices per expert.
        chosen: the choices that it counts.
        hot: one-hot choices `[..., E]` that are added up.
    """

    number: int
    chosen: Count
    hot: ir.Value

    @property
    def rows(self) -> int:
        """Choices of one device, each of which is a row."""
        return self.chosen.expert.at.size

    @property
    def experts(self) -> int:
        """Experts of all devices."""
        return self.chosen.experts


def find_routings(body: Body, numbers: dict[ir.Value, int], counting: Counting) -> list[Routing]:
    """Find all values that count choices per expert."""
    found: dict[int, Routing] = {}
    for place, op in enumerate(body.ops):
        if body.kind(place) != "reduce" or len(op.results) != 1 or reducer(op) != "add":
            continue
        rank = len(shape_of(op.operands[0]))
        if ints(op, "dimensions") != tuple(range(rank - 1)) or rank < 2:
            continue
        if not starts_from_nothing(op, "add") or not _is_int(op.results[0]):
            continue
        chosen = counting.hot(op.operands[0])
        if chosen is not None:
            number = numbers[op.results[0]]
            found.setdefault(number, Routing(number, chosen, op.operands[0]))
    return list(found.values())


def _is_int(value: ir.Value) -> bool:
    element = ir.RankedTensorType(value.type).element_type
    return isinstance(element, ir.IntegerType) and element.width >= 32


@dataclass(frozen=True)
class Positions:
    """Answers where rows that are sorted by expert lie.

    Attributes:
        body: the block.
        numbers: its value numbers.
        counting: what its values count.
        tables: what its tables hold.
    """

    body: Body
    numbers: dict[ir.Value, int]
    counting: Counting
    tables: Tables

    def starts_of(self, indices: ir.Value, routing: Routing) -> ir.Value:
        """Check that indices name the places of sorted rows, and return the table of starts.

        Raises:
            NoSplit: if they do not, or it is not proved.
        """
        reason = None
        for table, experts, rank in self._sums(indices):
            found = self.counting.rank(rank)
            if found is None or found.least != 0:
                reason = "rows are not placed by their rank among those of their expert"
                continue
            chosen = routing.chosen
            same = found.expert.is_like(chosen.expert) and found.experts == chosen.experts
            if not same or not self._is_choice(experts, routing):
                raise NoSplit("rows are placed by other choices than are counted")
            self._check_starts(table, routing)
            return table
        raise NoSplit(reason or "rows are not placed by counts of choices")

    def _sums(self, indices: ir.Value) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Yield (starts, experts, rank) of what may be `starts[experts] + rank`."""
        place, kind = self._made(indices)
        while kind == "select":
            mask, _, plain = self.body.ops[place].operands
            if not self._is_wrap(mask, plain):
                return
            place, kind = self._made(plain)
        if kind != "add":
            return
        left, right = self.body.ops[place].operands
        for start, rank in ((left, right), (right, left)):
            looked_up = self._lookup(start)
            if looked_up is not None:
                yield *looked_up, rank

    def _made(self, value: ir.Value) -> tuple[int, str]:
        """Return what makes a value, looking through what leaves elements in their order."""
        place, kind = self.body.made_by(value)
        while kind in ("reshape", "broadcast_in_dim", "optimization_barrier"):
            op = self.body.ops[place]
            source = op.operands[list(op.results).index(value)]
            keeps = math.prod(shape_of(source)) == math.prod(shape_of(value))
            if not keeps or not is_ascending(op):
                break
            value = source
            place, kind = self.body.made_by(value)
        return place, kind

    def _is_wrap(self, mask: ir.Value, plain: ir.Value) -> bool:
        """Whether a mask holds for negative numbers alone, which places are not."""
        place, kind = self.body.made_by(mask)
        if kind != "compare" or direction_of(self.body.ops[place]) != "LT":
            return False
        left, right = self.body.ops[place].operands
        return self.numbers[left] == self.numbers[plain] and self.counting.splat(right) == 0

    def _lookup(self, value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """Return (table, experts) of `table[experts]`."""
        place, kind = self._made(value)
        if kind != "gather":
            return None
        op = self.body.ops[place]
        numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
        table, experts = op.operands
        plain = (
            len(shape_of(table)) == 1
            and tuple(numbers.start_index_map) == (0,)
            and tuple(numbers.collapsed_slice_dims) == (0,)
            and not numbers.operand_batching_dims
        )
        return (table, experts) if plain else None

    def _is_choice(self, experts: ir.Value, routing: Routing) -> bool:
        """Whether indices are the choices that a routing counts, and all name an expert."""
        place, kind = self._made(experts)
        if kind == "select":
            mask, _, plain = self.body.ops[place].operands
            if not self._is_wrap(mask, plain):
                return False
            experts = plain
        if not is_index(self.counting, experts, routing.experts):
            return False
        return self.counting.view(experts).is_like(routing.chosen.expert)

    def _check_starts(self, table: ir.Value, routing: Routing) -> None:
        counts = self.tables.counts(routing.number)
        starts = np.cumsum(counts, axis=1) - counts
        for device in range(self.tables.devices):
            if not np.array_equal(self.tables.of(table, device).at, starts[device]):
                raise NoSplit("rows of an expert do not start behind those of the experts before")
