"""Which memory each op makes, reads and sets free, and the peak that an order needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.traits import RENAMES

NO_BUFFER = -1
"""Stands for memory that no order changes: arguments, constants, results."""


@dataclass(frozen=True)
class Buffers:
    """Temporary memory of one computation.

    Attributes:
        sizes: bytes of every buffer.
        makes: for every op, the buffers that it allocates.
        reads: for every op, the buffers that it reads or keeps alive.
        scratch: for every op, bytes that are live only while it runs (a loop's own peak).
    """

    sizes: tuple[int, ...]
    makes: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, ...], ...]
    scratch: tuple[int, ...]

    @cached_property
    def _readers(self) -> tuple[int, ...]:
        """How many ops read each buffer."""
        count = [0] * len(self.sizes)
        for buffers in self.reads:
            for buffer in buffers:
                count[buffer] += 1
        return tuple(count)

    def peak(self, order: Sequence[int]) -> int:
        """Return the largest number of bytes alive at once if ops run in `order`."""
        left = list(self._readers)
        sizes = self.sizes
        live = peak = 0
        for op in order:
            for buffer in self.makes[op]:
                live += sizes[buffer]
            if live + self.scratch[op] > peak:
                peak = live + self.scratch[op]
            for buffer in self.reads[op]:
                left[buffer] -= 1
                if left[buffer] == 0:
                    live -= sizes[buffer]
            for buffer in self.makes[op]:
                if left[buffer] == 0:
                    live -= sizes[buffer]
        return peak

    def at_peak(self, order: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return (bytes, op that makes it) of every buffer alive at the peak, largest first."""
        peak, left = self.peak(order), list(self._readers)
        live: dict[int, int] = {}
        total = 0
        for op in order:
            live |= dict.fromkeys(self.makes[op], op)
            total += sum(self.sizes[b] for b in self.makes[op])
            if total + self.scratch[op] == peak:
                break
            for buffer in self.reads[op]:
                left[buffer] -= 1
            for buffer in (*self.reads[op], *self.makes[op]):
                if left[buffer] == 0 and buffer in live:
                    del live[buffer]
                    total -= self.sizes[buffer]
        return tuple(sorted(((self.sizes[b], op) for b, op in live.items()), reverse=True))


def buffers_of(graph: Graph) -> Buffers:
    """Assign buffers to values: names share memory, in-place updates take over their operand's.

    An estimate of XLA's own assignment, good for comparing two orders of one computation: sizes
    are unpadded and nothing fragments.
    """
    return _Assignment(graph).result()


def _scratch(op: Op) -> int:
    """Return the bytes that are live only while an op runs: the peak of what is inside it."""
    return max((buffers_of(inner).peak(range(len(inner.ops))) for inner in op.inner), default=0)


class _Assignment:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sizes: list[int] = []
        self.of: list[tuple[int, ...]] = [
            (NO_BUFFER,) * len(value.leaves) for value in graph.values
        ]

    def result(self) -> Buffers:
        ops = self.graph.ops
        made: list[tuple[int, ...]] = []
        for op in ops:
            before = len(self.sizes)
            for result in op.results:
                self.of[result] = self._leaves(op, result)
            made.append(tuple(range(before, len(self.sizes))))
        kept = {NO_BUFFER, *self._buffers(self.graph.returns)}
        makes = tuple(tuple(b for b in buffers if b not in kept) for buffers in made)
        reads = tuple(tuple(sorted({*self._buffers(op.operands)} - kept)) for op in ops)
        return Buffers(tuple(self.sizes), makes, reads, tuple(map(_scratch, ops)))

    def _buffers(self, values: Iterable[int]) -> tuple[int, ...]:
        """Return the buffers of all leaves of values."""
        return tuple(b for v in values for b in self.of[v])

    def _leaves(self, op: Op, result: int) -> tuple[int, ...]:
        """Return the buffer of every leaf of one result, new ones where needed."""
        leaves = self.graph.values[result].leaves
        if op.kind in ("parameter", "constant"):
            return (NO_BUFFER,) * len(leaves)
        if op.kind == "get_tuple_element":
            return self._element(op, len(leaves))
        if op.kind in RENAMES:
            shared = self._buffers(op.operands)
            if len(shared) == len(leaves):
                return shared
        if op.kind == "recv_done":  # what came, and a token
            return self.of[op.operands[0]][: len(leaves)]
        if op.is_done and op.kind != "custom_call":  # a user's own done has results of its own
            return self.of[op.operands[0]][-len(leaves) :]
        taken = self._buffers(op.overwrites)
        if op.kind.endswith("_start"):
            # The start's tuple names the operands, which stay alive until the done, then results.
            read = self._buffers(op.operands)
            taken = read + taken if len(leaves) > len(read) else taken
        taken = taken[: len(leaves)]
        return taken + tuple(self._new(leaf.bytes) for leaf in leaves[len(taken) :])

    def _element(self, op: Op, count: int) -> tuple[int, ...]:
        """Pick one element of a tuple; its first leaf is at `index` unless tuples nest."""
        source = self.of[op.operands[0]]
        first = op.index if op.index + count <= len(source) else max(len(source) - count, 0)
        return source[first : first + count]

    def _new(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1
