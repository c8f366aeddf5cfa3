"""Proves that no two tokens are sent to the same row, from how their rows are counted out.

Most layers give a token its expert and the number of tokens before it that chose the same expert,
which no two tokens share; few say so with `unique_indices`. So (expert, rank) differ between tokens
whose expert exists, and the others lie beyond the buffer. Indices may be wrapped as negative ones
are, and sent beyond the buffer where a token is dropped.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.analysis.counting import Counting, direction_of
from hlo_passes.analysis.split_rules.indexing import is_unique
from hlo_passes.ir.attributes import integer, shape_of
from hlo_passes.ir.body import Body


@dataclass
class DistinctRows:
    """Answers whether index vectors name rows of a buffer at most once.

    Attributes:
        body: the block.
        numbers: its value numbers.
    """

    body: Body
    numbers: dict[ir.Value, int]

    @cached_property
    def counting(self) -> Counting:
        """What the values of the block count."""
        return Counting(self.body, self.numbers)

    @cached_property
    def declared(self) -> frozenset[int]:
        """Numbers of index tensors that the program itself declares distinct."""
        return frozenset(
            self.numbers[op.operands[1]]
            for i, op in enumerate(self.body.ops)
            if self.body.kind(i) == "scatter" and is_unique(op)
        )

    def are_distinct(self, indices: ir.Value, dims: tuple[int, ...], index_dim: int) -> bool:
        """Whether no two index vectors name one row of a buffer.

        Args:
            indices: the index vectors.
            dims: sizes of the buffer's dims that they address, in the order of their columns.
            index_dim: dim of the indices that holds a vector.
        """
        if self.numbers[indices] in self.declared:
            return True
        columns = self._columns(indices, index_dim)
        if columns is None or len(columns) != len(dims):
            return False
        if len(columns) == 1:
            return self._is_flat(columns[0], dims[0])
        if len(columns) == 3:
            return any(
                self._is_triple([columns[i] for i in order], [dims[i] for i in order])
                for order in permutations(range(3))
            )
        if len(columns) != 2:
            return False
        sides = (0, 1), (1, 0)
        return any(self._is_pair(columns[e], columns[r], dims[e], dims[r]) for e, r in sides)

    def _is_pair(
        self, expert: ir.Value, rank: ir.Value, experts: int, slots: int,
        group: ir.Value | None = None,
    ) -> bool:  # fmt: skip
        """Whether two columns are an expert and its rank, among the tokens of a group if given."""
        found = self.counting.rank(self._inside(rank, slots))
        if found is None or found.experts < experts:
            return False
        if found.group is not None:
            number = None if group is None else self.counting.places(group)
            if number is None or not _tells_apart(number, found.group):
                return False
        return self.counting.view(self._inside(expert, experts)).is_like(found.expert)

    def _is_triple(self, columns: list[ir.Value], sizes: list[int]) -> bool:
        """Whether three columns are a group of tokens, an expert, and its rank in that group."""
        group, expert, rank = columns
        return self._is_pair(expert, rank, sizes[1], sizes[2], group)

    def _is_flat(self, index: ir.Value, size: int) -> bool:
        """Whether an index is `expert * slots + rank` where the rank is below `slots`."""
        place, kind = self.counting.made(index, ("select",))
        if kind != "select":
            return False
        mask, value, other = self.body.ops[place].operands
        if (number := self.counting.splat(other)) is None or 0 <= number < size:
            return False
        place, kind = self.counting.made(value, ("add",))
        if kind != "add":
            return False
        left, right = self.body.ops[place].operands
        for base, rank in ((left, right), (right, left)):
            found, times = self.counting.rank(rank), self._times(base)
            if found and times is not None and found.least >= 0 and found.group is None:
                expert, slots = times
                is_below = self._is_below(mask, rank, slots)
                are_all = found.experts * slots >= size
                if is_below and are_all and self.counting.view(expert).is_like(found.expert):
                    return True
        return False

    def _times(self, value: ir.Value) -> tuple[ir.Value, int] | None:
        """Return (x, c) of `x * c` with c a constant."""
        place, kind = self.counting.made(value, ("multiply",))
        if kind == "multiply":
            left, right = self.body.ops[place].operands
            for x, c in ((left, right), (right, left)):
                if (number := self.counting.splat(c)) is not None:
                    return x, int(number)
        return None

    def _is_below(self, mask: ir.Value, rank: ir.Value, slots: int) -> bool:
        """Whether a mask holds only where the rank is below `slots`."""
        place, kind = self.counting.made(mask, ("and", "compare"))
        if kind == "and":
            return any(self._is_below(v, rank, slots) for v in self.body.ops[place].operands)
        if kind != "compare":
            return False
        op = self.body.ops[place]
        limit = self.counting.splat(op.operands[1])
        same = self.counting.view(op.operands[0]).is_like(self.counting.view(rank))
        return same and limit is not None and limit <= slots and direction_of(op) == "LT"

    def _columns(self, indices: ir.Value, index_dim: int) -> list[ir.Value] | None:
        """Return the columns of index vectors."""
        shape = shape_of(indices)
        if index_dim >= len(shape) or shape[index_dim] == 1:
            return [indices]
        place, kind = self.counting.made(indices, ("concatenate",))
        if kind != "concatenate" or integer(self.body.ops[place], "dimension") != index_dim:
            return None
        columns = list(self.body.ops[place].operands)
        return columns if all(shape_of(c)[index_dim] == 1 for c in columns) else None

    def _inside(self, index: ir.Value, size: int) -> ir.Value:
        """Strip what changes an index only where it is beyond `size`."""
        while True:
            place, kind = self.counting.made(index, ("select", "minimum"))
            op = self.body.ops[place]
            if kind == "select":
                mask, yes, no = op.operands
                number = self.counting.splat(no)
                if number is not None and not 0 <= number < size:
                    index = yes
                elif self._is_wrap(mask, yes, no) and self.counting.least(no) >= 0:
                    index = no
                else:
                    return index
            elif kind == "minimum":
                limits = [self.counting.splat(v) for v in op.operands]
                kept = [v for v, limit in zip(op.operands, limits, strict=True) if limit is None]
                known = [limit for limit in limits if limit is not None]
                if len(kept) != 1 or known[0] < size:
                    return index
                index = kept[0]
            else:
                return index

    def _is_wrap(self, mask: ir.Value, wrapped: ir.Value, plain: ir.Value) -> bool:
        """Whether `select(plain < 0, plain + size, plain)` is what these belong to."""
        place, kind = self.body.made_by(mask)
        if kind != "compare" or direction_of(self.body.ops[place]) != "LT":
            return False
        left, right = self.body.ops[place].operands
        return self.numbers[left] == self.numbers[plain] and self.counting.splat(right) == 0


def _tells_apart(number: np.ndarray, group: np.ndarray) -> bool:
    """Whether tokens of different groups have different numbers."""
    pairs = set(zip(number.ravel().tolist(), group.ravel().tolist(), strict=True))
    return len(pairs) == len({n for n, _ in pairs})
