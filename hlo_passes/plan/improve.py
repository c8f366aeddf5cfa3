"""Local search: one op at a time is given a better place in a finished order."""

from collections.abc import Iterator, Sequence

from hlo_passes.plan.problem import Lane, Problem
from hlo_passes.plan.simulate import execute


def improve(
    problem: Problem,
    order: Sequence[int],
    *,
    contention: float = 0.0,
    memory_limit: int | None = None,
    effort: int = 200_000,
) -> tuple[int, ...]:
    """Move single ops as long as the order gets shorter.

    Every op that holds a lane is tried at every place that precedence allows; exchanges first,
    then compute, longest first. Of two orders of one length the one that starts its ops earlier is
    the better: that leads over plateaus. Stops when a whole round finds nothing or the effort is
    spent, so that small problems are searched through and large ones only touched.

    Args:
        problem: what is ordered.
        order: a legal order to start from.
        contention: see `execute`.
        memory_limit: bytes that an improved order may not exceed.
        effort: how many ops may be executed in all.
    """
    search = _Search(problem, order, contention, memory_limit, effort)
    while search.round():
        pass
    return tuple(search.order)


class _Search:
    def __init__(
        self,
        problem: Problem,
        order: Sequence[int],
        contention: float,
        memory_limit: int | None,
        effort: int,
    ) -> None:
        self.problem = problem
        self.order = list(order)
        self.contention = contention
        self.limit = memory_limit
        self.tries = effort // max(problem.size, 1)
        self.score = self._score(self.order)
        self.movable = sorted(
            (op for op in order if problem.lane[op] is not Lane.FREE),
            key=lambda op: (problem.lane[op] is not Lane.EXCHANGE, -problem.us[op], op),
        )

    def round(self) -> bool:
        """Try every op once; return whether there is reason to go on."""
        before = self.score
        for op in self.movable:
            for candidate in self._moves(op):
                if self.tries <= 0:
                    return False
                self.tries -= 1
                score = self._score(candidate)
                if score < self.score and self._fits(candidate):
                    self.order, self.score = candidate, score
        return self.score < before

    def _moves(self, op: int) -> Iterator[list[int]]:
        """Yield the order with `op` at every other place that changes what its lane sees."""
        at = self.order.index(op)
        rest = self.order[:at] + self.order[at + 1 :]
        place = {other: i for i, other in enumerate(rest)}
        first = max((place[p] + 1 for p in self.problem.preds[op]), default=0)
        last = min((place[s] for s in self.problem.succs[op]), default=len(rest))
        for i in range(first, last + 1):
            passes_free = i < last and self.problem.lane[rest[i]] is Lane.FREE
            if i != at and not passes_free:
                yield [*rest[:i], op, *rest[i:]]

    def _score(self, order: Sequence[int]) -> tuple[float, float]:
        run = execute(self.problem, order, self.contention)
        return run.makespan_us, sum(run.start_us)

    def _fits(self, order: Sequence[int]) -> bool:
        return self.limit is None or self.problem.buffers.peak(order) <= self.limit
