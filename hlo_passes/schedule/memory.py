"""Keeps the books on temporary memory while an order is being made."""

from collections.abc import Iterable, Sequence

import numpy as np

from hlo_passes.facts.liveness import Buffers


class Ledger:
    """Bytes alive after every op issued so far, by the same rules as `Buffers.peak`.

    Attributes:
        live: bytes alive now.
        peak: the most there have been.
    """

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self.live = 0
        self.peak = 0
        self._readers = [0] * len(buffers.sizes)
        for read in buffers.reads:
            for buffer in read:
                self._readers[buffer] += 1

    def need(self, ops: Sequence[int]) -> int:
        """Return the bytes alive while the last of `ops` runs, if they are next."""
        made = sum(self.buffers.sizes[b] for op in ops for b in self.buffers.makes[op])
        return self.live + made + self.buffers.scratch[ops[-1]]

    def issue(self, ops: Iterable[int]) -> None:
        """Enter `ops`, in order of issue."""
        buffers, readers = self.buffers, self._readers
        for op in ops:
            made = buffers.makes[op]
            self.live += sum(buffers.sizes[b] for b in made)
            self.peak = max(self.peak, self.live + buffers.scratch[op])
            for buffer in buffers.reads[op]:
                readers[buffer] -= 1
                if readers[buffer] == 0:
                    self.live -= buffers.sizes[buffer]
            self.live -= sum(buffers.sizes[b] for b in made if readers[b] == 0)


class Rest:
    """What the ops not yet issued would need, if they followed in program order.

    An op that runs ahead holds its results until their readers come, and what its operands held is
    free sooner. An op is safe if the rest still fits after it: then there is always a way on, and
    an order made of safe ops fits as a whole. (The banker's algorithm, with program order as the
    way out.)

    Entering or asking for an op is O(its buffers * ops), in array operations.
    """

    def __init__(self, buffers: Buffers) -> None:
        size = len(buffers.makes)
        self.buffers = buffers
        self.readers: list[list[int]] = [[] for _ in buffers.sizes]
        for op, read in enumerate(buffers.reads):
            for buffer in read:
                self.readers[buffer].append(op)
        self.issued = bytearray(size)
        self.bytes = np.array(buffers.scratch, dtype=np.int64)
        for op, made in enumerate(buffers.makes):
            for buffer in made:
                self.bytes[op : self._last(buffer, op) + 1] += buffers.sizes[buffer]

    def fits(self, ops: Sequence[int], first: int, limit: float) -> bool:
        """Whether the rest stays within `limit` bytes, or no worse than it is, once `ops` ran.

        Args:
            ops: what may be issued now, in this order.
            first: the first op in program order that is not issued.
            limit: bytes.
        """
        if ops[0] == first and len(ops) == 1:
            return True
        changes = self._changes_by(ops)
        end = max((stop for _, stop, _ in changes), default=0)
        if end <= first or not any(size > 0 for _, _, size in changes):
            return True
        before = self.bytes[first:end]
        after = before.copy()
        for start, stop, size in changes:
            after[max(start - first, 0) : max(stop - first, 0)] += size
        most = after.max()
        return bool(most <= limit or most <= before.max())

    def issue(self, ops: Iterable[int]) -> None:
        """Enter `ops`, in order of issue."""
        for op in ops:
            for start, stop, size in self._changes(op):
                self.bytes[start:stop] += size
            self.issued[op] = 1

    def _changes_by(self, ops: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return the changes that `ops` make together, without entering them."""
        changes = []
        for op in ops:
            changes += self._changes(op)
            self.issued[op] = 1
        for op in ops:
            self.issued[op] = 0
        return changes

    def _changes(self, op: int) -> Sequence[tuple[int, int, int]]:
        """Return (from, to, bytes) by which the need of the rest changes when `op` is issued."""
        buffers, changes = self.buffers, []
        for buffer in buffers.makes[op]:
            size, readers = buffers.sizes[buffer], self.readers[buffer]
            changes.append((0, op, size) if readers else (op, op + 1, -size))
        for buffer in buffers.reads[op]:
            last = self._last(buffer)
            if last == op:
                changes.append((self._last(buffer, -1, op) + 1, op + 1, -buffers.sizes[buffer]))
        if buffers.scratch[op]:
            changes.append((op, op + 1, -buffers.scratch[op]))
        return changes

    def _last(self, buffer: int, default: int = -1, but: int = -1) -> int:
        """Return the last reader of a buffer that is not issued, `but` left out."""
        for op in reversed(self.readers[buffer]):
            if op != but and not self.issued[op]:
                return op
        return default
