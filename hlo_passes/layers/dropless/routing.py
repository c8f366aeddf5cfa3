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

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import ints, kind_of, maker_of, reducer, shape_of, update_of
from hlo_passes.layers.dropless.tables import Tables
from hlo_passes.proofs.arithmetic import direction_of
from hlo_passes.proofs.counting import Counting, TokenCount
from hlo_passes.proofs.elements import made_in_order
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.prefix import starts_from_nothing


@dataclass(frozen=True, eq=False)
class CountedChoices:
    """Choices of experts, counted.

    Attributes:
        number: number of the value that counts a device's choices per expert.
        chosen: the choices that it counts.
        ids: the first value that holds them, in the order in which they are counted.
    """

    number: int
    chosen: TokenCount
    ids: ir.Value

    @property
    def rows(self) -> int:
        """Choices of one device, each of which is a row."""
        return self.chosen.expert.at.size

    @property
    def experts(self) -> int:
        """Experts of all devices."""
        return self.chosen.experts


def find_routings(
    body: Body, numbers: dict[ir.Value, int], counting: Counting
) -> list[CountedChoices]:
    """Find all values that count choices per expert.

    Args:
        body: the block.
        numbers: its value numbers.
        counting: what its values count.
    """
    first: dict[object, ir.Value] = {}
    for value, number in numbers.items():
        first.setdefault(number, value)
    found: dict[int, CountedChoices] = {}
    for place, op in enumerate(body.ops):
        kind = body.kind(place)
        if kind not in ("reduce", "scatter") or len(op.results) != 1 or not _is_int(op.results[0]):
            continue
        chosen = _summed(op, counting) if kind == "reduce" else _binned(op, counting)
        if chosen is None or not _is_ordered(chosen.expert.at):
            continue
        number, ids = numbers[op.results[0]], first.get(chosen.expert.value)
        if ids is not None and math.prod(shape_of(ids)) == chosen.expert.at.size:
            found.setdefault(number, CountedChoices(number, chosen, ids))
    return list(found.values())


def _is_ordered(at: np.ndarray) -> bool:
    return np.array_equal(at.ravel(), np.arange(at.size))


def _summed(op: ir.Operation, counting: Counting) -> TokenCount | None:
    """Return the choices that a sum over one-hot rows counts."""
    rank = len(shape_of(op.operands[0]))
    if reducer(op) != "add" or ints(op, "dimensions") != tuple(range(rank - 1)) or rank < 2:
        return None
    return counting.hot(op.operands[0]) if starts_from_nothing(op, "add") else None


def _binned(op: ir.Operation, counting: Counting) -> TokenCount | None:
    """Return the choices that are counted by adding a one per choice, as `jnp.bincount` does."""
    if len(op.operands) != 3 or len(shape_of(op.results[0])) != 1 or update_of(op) != "add":
        return None
    dims = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    vector = max(len(shape_of(op.operands[1])) - 1, 1)
    whole = (
        tuple(dims.inserted_window_dims) == (0,)
        and not dims.input_batching_dims
        and dims.index_vector_dim >= vector
    )
    constants = counting.constants
    if not whole or not constants.is_zero(op.operands[0]) or constants.number(op.operands[2]) != 1:
        return None
    ids, experts = without_wrap(counting, op.operands[1]), shape_of(op.results[0])[0]
    if not counting.ranges.is_index(ids, experts):
        return None
    return TokenCount("hot", counting.elements.of(ids), experts)


def without_wrap(counting: Counting, index: ir.Value) -> ir.Value:
    """Strip what changes negative indices alone."""
    while True:
        op, index = made_in_order(index)
        if op is not None and kind_of(op) == "select":
            mask, _, plain = op.operands
            if not _is_negative(counting, mask, plain) or shape_of(mask) != shape_of(plain):
                return index
            index = plain
        elif op is not None and kind_of(op) == "maximum":
            kept = [v for v in op.operands if not counting.constants.is_zero(v)]
            if len(kept) != 1:
                return index
            index = kept[0]
        else:
            return index


def _is_negative(counting: Counting, mask: ir.Value, plain: ir.Value) -> bool:
    """Whether a mask holds for negative elements of a value alone."""
    op = maker_of(mask)
    if op is None or kind_of(op) != "compare" or direction_of(op) != "LT":
        return False
    left, right = op.operands
    numbers = counting.numbers
    is_same = numbers.get(left, left) == numbers.get(plain, plain)
    return is_same and counting.constants.is_zero(right)


def _is_int(value: ir.Value) -> bool:
    element = ir.RankedTensorType(value.type).element_type
    return isinstance(element, ir.IntegerType) and element.width >= 32


@dataclass(frozen=True)
class Positions:
    """Answers where rows that are sorted by expert lie.

    Attributes:
        counting: what the values of the block count.
        tables: what its tables hold.
    """

    counting: Counting
    tables: Tables

    def check(self, indices: ir.Value, routing: CountedChoices) -> None:
        """Check that indices name the places of sorted rows, in the order of choices.

        Raises:
            NotProved: if they do not, or it is not proved.
        """
        reason = None
        for table, experts, rank in self._sums(indices):
            found = self.counting.rank(rank)
            if found is None or found.first != 0 or found.group is not None:
                reason = "rows are not placed by their rank among those of their expert"
                continue
            chosen = routing.chosen
            same = found.expert.is_like(chosen.expert) and found.experts == chosen.experts
            if not same or not self._is_choice(experts, routing):
                raise NotProved("rows are placed by other choices than are counted")
            self._check_starts(table, routing)
            return
        raise NotProved(reason or "rows are not placed by counts of choices")

    def _sums(self, indices: ir.Value) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Yield (starts, experts, rank) of what may be `starts[experts] + rank`."""
        op, _ = made_in_order(without_wrap(self.counting, indices))
        if op is None or kind_of(op) != "add":
            return
        left, right = op.operands
        for start, rank in ((left, right), (right, left)):
            looked_up = self._lookup(start)
            if looked_up is not None:
                yield *looked_up, rank

    def _lookup(self, value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """Return (table, experts) of `table[experts]`."""
        op, _ = made_in_order(value)
        if op is None or kind_of(op) != "gather":
            return None
        numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
        table, experts = op.operands
        plain = (
            len(shape_of(table)) == 1
            and tuple(numbers.start_index_map) == (0,)
            and tuple(numbers.collapsed_slice_dims) == (0,)
            and not numbers.operand_batching_dims
        )
        return (table, experts) if plain else None

    def _is_choice(self, experts: ir.Value, routing: CountedChoices) -> bool:
        """Whether indices are the choices that a routing counts, and all name an expert."""
        experts = without_wrap(self.counting, experts)
        if not self.counting.ranges.is_index(experts, routing.experts):
            return False
        return self.counting.elements.of(experts).is_like(routing.chosen.expert)

    def _check_starts(self, table: ir.Value, routing: CountedChoices) -> None:
        counts = self.tables.counts(routing.number)
        starts = np.cumsum(counts, axis=1) - counts
        for device in range(self.tables.devices):
            if not np.array_equal(self.tables.of(table).on(device), starts[device]):
                raise NotProved("rows of an expert do not start behind those of the experts before")
