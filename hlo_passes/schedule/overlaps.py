"""Which compute may run beside which exchange of a problem: the paper's incomparability test."""

from dataclasses import dataclass

from hlo_passes.facts.reach import Reach
from hlo_passes.schedule.problem import Lane, Problem


@dataclass(frozen=True)
class Overlaps:
    """Paths between every op and the exchanges, one bit per exchange (paper section 4.1).

    Time and memory are O((ops + edges) * exchanges / 64).

    Attributes:
        exchanges: the exchanges in program order; exchange i has bit `1 << i`.
        before: per op, the exchanges that it depends on, itself included.
        after: per op, the exchanges that depend on it, itself included.
        urgent: bits of the exchanges that more work waits for.
    """

    exchanges: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    urgent: int

    @staticmethod
    def of(problem: Problem) -> "Overlaps":
        """Follow every path of the problem from and to its exchanges."""
        reach = Reach.of(problem)
        urgent = sum(bits for op, bits in reach.bit.items() if problem.urgent[op])
        return Overlaps(problem.exchanges, reach.before, reach.after, urgent)

    @property
    def all(self) -> int:
        """The bits of all exchanges."""
        return (1 << len(self.exchanges)) - 1

    @property
    def sums(self) -> int:
        """The bits of the gradient sums: exchanges that no further heavy work waits for."""
        return self.all & ~self.urgent

    def beside(self, op: int) -> int:
        """Return the bits of the exchanges that `op` may run beside: no path either way."""
        return self.all & ~(self.before[op] | self.after[op])

    def late(self, op: int) -> bool:
        """Whether `op` waits for a gradient sum: an optimizer update, as a rule."""
        return bool(self.before[op] & self.sums & ~self.own(op))

    def own(self, op: int) -> int:
        """Return the bit of `op` itself; none if it is no exchange."""
        return self.before[op] & self.after[op]


def is_wait(problem: Problem, op: int) -> bool:
    """Whether `op` only makes the compute lane wait for an exchange: the done half of one."""
    return (
        problem.lane[op] is Lane.COMPUTE
        and problem.us[op] == 0.0
        and any(problem.lane[p] is Lane.EXCHANGE for p in problem.preds[op])
    )
