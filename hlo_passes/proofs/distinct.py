"""Proves that no two tokens are sent to the same row, from how their rows are counted out.

Most layers give a token its expert and the number of tokens before it that chose the same expert,
which no two tokens share; few say so with `unique_indices`. So (expert, rank) differ between tokens
whose expert exists, and the others lie beyond the buffer. Indices may be wrapped as negative ones
are, and sent beyond the buffer where a token is dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body, name_op
from hlo_passes.ir.stablehlo.read import integer, is_unique, kind_of, maker_of, shape_of
from hlo_passes.proofs.arithmetic import direction_of, element_of
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.elements import made_in_order
from hlo_passes.proofs.ranges import NEVER, Range, in_type


@dataclass
class DistinctRows:
    """Answers whether index vectors name rows of a buffer at most once.

    Attributes:
        body: the block.
        numbers: its value numbers.
    """

    body: Body
    numbers: Mapping[ir.Value, int]

    @cached_property
    def counting(self) -> Counting:
        """What the values of the block count."""
        return Counting(self.body, self.numbers)

    @cached_property
    def promised(self) -> dict[tuple[int, int], list[tuple[int, ...]]]:
        """Sizes of the dims for which the program itself says that index vectors are distinct.

        By the number of the index tensor, and the dim that holds a vector. What lies beyond those
        sizes is no part of the promise.
        """
        found: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for place, op in enumerate(self.body.ops):
            if self.body.kind(place) != "scatter" or not is_unique(op):
                continue
            dims = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
            columns = tuple(dims.scattered_dims_to_operand_dims)
            if dims.input_batching_dims or not set(columns) <= set(dims.inserted_window_dims):
                continue
            table = shape_of(op.operands[0])
            key = self.numbers[op.operands[len(op.results)]], dims.index_vector_dim
            found.setdefault(key, []).append(tuple(table[d] for d in columns))
        return found

    def are_distinct(self, indices: ir.Value, dims: tuple[int, ...], index_dim: int) -> bool:
        """Whether no two index vectors name one row of a buffer.

        Args:
            indices: the index vectors.
            dims: sizes of the buffer's dims that they address, in the order of their columns.
            index_dim: dim of the indices that holds a vector.
        """
        for sizes in self.promised.get((self.numbers[indices], index_dim), ()):
            if len(sizes) == len(dims) and all(a <= b for a, b in zip(dims, sizes, strict=True)):
                return True
        columns = self._columns(indices, index_dim)
        if columns is None or len(columns) != len(dims):
            return False
        if len(columns) == 1:
            return self._is_flat(columns[0], dims[0])
        return any(
            self._is_counted([columns[i] for i in order], [dims[i] for i in order])
            for order in permutations(range(len(columns)))
        )

    def doubt(self, indices: ir.Value, dims: tuple[int, ...], index_dim: int) -> str:
        """Say what keeps index vectors from being proved distinct.

        Args:
            indices: the index vectors.
            dims: sizes of the buffer's dims that they address, in the order of their columns.
            index_dim: dim of the indices that holds a vector.
        """
        columns = self._columns(indices, index_dim)
        if columns is None or len(columns) != len(dims):
            return "index vectors are no columns side by side"
        stripped = [self._inside(column, n) for column, n in zip(columns, dims, strict=True)]
        for column in stripped:
            op = maker_of(column)
            drops = op is not None and kind_of(op) in ("select", "minimum", "maximum")
            if drops and any(map(self.counting.constants.is_known, op.operands)):
                return f"whom {name_op(op)} drops may land on a row of the buffer"
        if any(self.counting.rank(column) for column in stripped):
            return "tokens are counted for other experts, or in other groups, than they are sent to"
        return f"what {self.counting.blame(stripped[-1])} makes is no count of the tokens before"

    def _is_counted(self, columns: list[ir.Value], sizes: list[int]) -> bool:
        """Whether columns are (a group of tokens,) an expert, and its rank in that group."""
        if len(columns) > 3:
            return False
        *groups, expert, rank = columns
        *_, experts, slots = sizes
        found = self.counting.rank(self._inside(rank, slots))
        if found is None or found.experts < experts:
            return False
        if found.group is not None:
            number = self.counting.constants.all_of(groups[0]) if groups else None
            if number is None or not _tells_apart(number, found.group):
                return False
        return self.counting.elements.of(self._inside(expert, experts)).is_like(found.expert)

    def _is_flat(self, index: ir.Value, size: int) -> bool:
        """Whether an index is `expert * slots + rank` where the rank is below `slots`."""
        op, _ = made_in_order(index)
        if op is None or kind_of(op) != "select":
            return False
        mask, value, other = op.operands
        number = self.counting.constants.number(other)
        if number is None or 0 <= number < size or shape_of(mask) != shape_of(value):
            return False
        op, _ = made_in_order(value)
        if op is None or kind_of(op) != "add":
            return False
        return any(
            self._is_row(base, rank, mask, size)
            for base, rank in (op.operands, list(op.operands)[::-1])
        )

    def _is_row(self, base: ir.Value, rank: ir.Value, mask: ir.Value, size: int) -> bool:
        """Whether `base + rank` names a row once, where a mask holds.

        An expert that does not exist must lie beyond the buffer, on either side: what overflows
        could come back into it.
        """
        found, times = self.counting.rank(rank), self._times(base)
        if found is None or found.group is not None or times is None:
            return False
        expert, slots = times
        ranges = self.counting.ranges
        experts = ranges.of(expert)
        reached = Range(experts.low * slots, experts.high * slots + slots)
        return (
            in_type(reached, element_of(base)) == reached
            and ranges.of(rank).low >= 0
            and self._is_below(mask, rank, slots)
            and found.experts * slots >= size
            and self.counting.elements.of(expert).is_like(found.expert)
        )  # fmt: skip

    def _times(self, value: ir.Value) -> tuple[ir.Value, int] | None:
        """Return (x, c) of `x * c` with c a positive constant."""
        op, _ = made_in_order(value)
        if op is None or kind_of(op) != "multiply":
            return None
        left, right = op.operands
        for x, c in ((left, right), (right, left)):
            number = self.counting.constants.number(c)
            if number is not None and number >= 1:
                return x, int(number)
        return None

    def _is_below(self, mask: ir.Value, rank: ir.Value, slots: int) -> bool:
        """Whether a mask holds only where the rank is below `slots`."""
        op, _ = made_in_order(mask)
        if op is None:
            return False
        if kind_of(op) == "and":
            return any(self._is_below(v, rank, slots) for v in op.operands)
        if kind_of(op) != "compare" or direction_of(op) != "LT":
            return False
        elements, limit = self.counting.elements, self.counting.constants.number(op.operands[1])
        same = elements.of(op.operands[0]).is_like(elements.of(rank))
        return same and limit is not None and limit <= slots

    def _columns(self, indices: ir.Value, index_dim: int) -> list[ir.Value] | None:
        """Return the columns of index vectors."""
        shape = shape_of(indices)
        if index_dim >= len(shape) or shape[index_dim] == 1:
            return [indices]
        op = maker_of(indices)
        if op is None or kind_of(op) != "concatenate" or integer(op, "dimension") != index_dim:
            return None
        columns = list(op.operands)
        return columns if all(shape_of(c)[index_dim] == 1 for c in columns) else None

    def _inside(self, index: ir.Value, size: int) -> ir.Value:
        """Strip what changes an index only where it is beyond `size`."""
        while True:
            op, index = made_in_order(index)
            kind = None if op is None else kind_of(op)
            stripped = None
            if op is not None and kind == "select" and shape_of(op.operands[0]) == shape_of(index):
                stripped = self._chosen_inside(op, size)
            elif op is not None and kind == "minimum":
                stripped = self._bounded_beyond(op, size)
            if stripped is None:
                return index
            index = stripped

    def _chosen_inside(self, select: ir.Operation, size: int) -> ir.Value | None:
        """Return the side of a choice that it is wherever it is below `size`; None if unknown."""
        mask, yes, no = select.operands
        number = self.counting.constants.number(no)
        if number is not None and not 0 <= number < size:
            return yes
        # As of "is it negative?"
        return no if self.counting.ranges.of(mask) == NEVER else None

    def _bounded_beyond(self, minimum: ir.Operation, size: int) -> ir.Value | None:
        """Return what a minimum bounds by a constant that is not below `size`; None if none."""
        limits = [self.counting.constants.number(v) for v in minimum.operands]
        free = [v for v, limit in zip(minimum.operands, limits, strict=True) if limit is None]
        known = [limit for limit in limits if limit is not None]
        return free[0] if len(free) == 1 and known[0] >= size else None


def _tells_apart(number: np.ndarray, group: np.ndarray) -> bool:
    """Whether tokens of different groups have different numbers."""
    pairs = set(zip(number.ravel().tolist(), group.ravel().tolist(), strict=True))
    return len(pairs) == len({n for n, _ in pairs})
