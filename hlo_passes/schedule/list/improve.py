"""Local search: one op at a time is given a better place in a finished order."""

from collections.abc import Iterable, Iterator, Sequence

from hlo_passes.schedule.problem import Lane, Problem
from hlo_passes.schedule.simulate import execute


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
        """Yield the order with `op` at every other place, and with it what has to move along."""
        order, at = self.order, self.order.index(op)
        for moved, passed in self._drag(op, reversed(order[:at]), self.problem.preds):
            yield (
                order[: at + 1 - len(moved) - len(passed)]
                + moved[::-1]
                + passed[::-1]
                + order[at + 1 :]
            )
        for moved, passed in self._drag(op, order[at + 1 :], self.problem.succs):
            yield order[:at] + passed + moved + order[at + len(moved) + len(passed) :]

    def _drag(
        self, op: int, ahead: Iterable[int], tied: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Move `op` past the ops `ahead` of it, one by one; what it is tied to it pushes along.

        Yields:
            The ops that move and those that they pass, in the direction of the move.
        """
        moved, passed = [op], []
        pushed = set(tied[op])
        for other in ahead:
            if other in pushed:
                moved.append(other)
                pushed.update(tied[other])
                continue
            passed.append(other)
            if self.problem.lane[other] is not Lane.FREE:
                yield moved, passed

    def _score(self, order: Sequence[int]) -> tuple[float, float]:
        run = execute(self.problem, order, self.contention)
        return run.makespan_us, sum(run.start_us)

    def _fits(self, order: Sequence[int]) -> bool:
        return self.limit is None or self.problem.buffers.peak(order) <= self.limit
