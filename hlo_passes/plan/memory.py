"""Keeps the books on temporary memory while an order is being made."""

from collections.abc import Iterable

from hlo_passes.analysis.liveness import Buffers


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

    def need(self, op: int) -> int:
        """Return the bytes alive while `op` runs, if it is next."""
        made = sum(self.buffers.sizes[b] for b in self.buffers.makes[op])
        return self.live + made + self.buffers.scratch[op]

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
