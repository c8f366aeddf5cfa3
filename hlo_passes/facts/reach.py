"""Who depends on whom: the question "may these two overlap?" in constant time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Ordered(Protocol):
    """Ops in a legal order with what must come before and after each, and the exchanges."""

    @property
    def preds(self) -> tuple[tuple[int, ...], ...]: ...  # noqa: D102
    @property
    def succs(self) -> tuple[tuple[int, ...], ...]: ...  # noqa: D102
    @property
    def exchanges(self) -> tuple[int, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class Reach:
    """Paths between every op and a few chosen ones (by default the exchanges).

    One bit per chosen op and direction; with E chosen ops, time and memory are O(ops * E / 64).

    Attributes:
        bit: the bit of every chosen op.
        before: per op, bits of chosen ops that it is a descendant of, itself included.
        after: per op, bits of chosen ops that it is an ancestor of, itself included.
    """

    bit: dict[int, int]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @staticmethod
    def of(ordered: Ordered, chosen: Iterable[int] | None = None) -> "Reach":
        """Compute reachability to and from `chosen` (op ids) in a graph or scheduling problem."""
        ids = ordered.exchanges if chosen is None else tuple(chosen)
        bit = {op: 1 << i for i, op in enumerate(ids)}
        preds, succs = ordered.preds, ordered.succs
        count = len(preds)
        before, after = [0] * count, [0] * count
        for op in range(count):
            bits = bit.get(op, 0)
            for p in preds[op]:
                bits |= before[p]
            before[op] = bits
        for op in reversed(range(count)):
            bits = bit.get(op, 0)
            for s in succs[op]:
                bits |= after[s]
            after[op] = bits
        return Reach(bit, tuple(before), tuple(after))

    def may_overlap(self, op: int, chosen: int) -> bool:
        """Whether neither `op` nor the chosen op reaches the other (paper section 4.1)."""
        return not (self.before[op] | self.after[op]) & self.bit[chosen]

    def depends_on(self, op: int, chosen: int) -> bool:
        """Whether a path leads from the chosen op to `op`."""
        return bool(self.before[op] & self.bit[chosen])
