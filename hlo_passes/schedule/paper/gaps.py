"""Puts gradient sums between the exchanges that matter more, as the paper's artefact does."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from hlo_passes.schedule.problem import Lane, Problem
from hlo_passes.schedule.simulate import execute


class _Sum(NamedTuple):
    """A gradient sum: which, how long, when its operands are there, and behind which place."""

    op: int
    us: float
    ready_us: float
    after: int


def place_sums(problem: Problem, spine: Sequence[int]) -> list[int]:
    """Insert the gradient sums so that by prediction none delays an urgent exchange.

    Every gap between two urgent exchanges takes, again and again, the longest sum that is ready
    and fits. What fits nowhere follows the last urgent exchange.

    Args:
        problem: what is ordered.
        spine: an order of the ops that wait for no gradient sum.

    Returns:
        The spine with every sum in it whose operands are.
    """
    run = execute(problem, spine)
    waiting = _sums(problem, spine, [run.start_us[op] + problem.us[op] for op in spine])
    pool: list[_Sum] = []
    inserted: defaultdict[int, list[int]] = defaultdict(list)
    free_us, least = 0.0, -1
    for place, anchor in enumerate(spine):
        if problem.lane[anchor] is not Lane.EXCHANGE:
            continue
        while waiting and waiting[-1].after < place:
            pool.append(waiting.pop())
        while (found := _best_fit(pool, free_us, run.start_us[anchor])) is not None:
            pool.remove(found)
            free_us = max(free_us, found.ready_us) + found.us
            least = max(least, found.after)
            inserted[least].append(found.op)
        free_us, least = run.start_us[anchor] + problem.us[anchor], place
    for left in sorted(pool + waiting, key=lambda s: (s.ready_us, s.op)):
        least = max(least, left.after)
        inserted[least].append(left.op)
    return inserted[-1] + [op for i, head in enumerate(spine) for op in (head, *inserted[i])]


def _sums(problem: Problem, spine: Sequence[int], end_us: Sequence[float]) -> list[_Sum]:
    """Return the sums whose operands are in the spine, the first to be ready last."""
    place = {op: i for i, op in enumerate(spine)}
    sums = []
    for op in problem.exchanges:
        preds = [place.get(p) for p in problem.preds[op]]
        if op in place or None in preds:
            continue
        known = [p for p in preds if p is not None]
        ready_us = max((end_us[p] for p in known), default=0.0)
        sums.append(_Sum(op, problem.us[op], ready_us, max(known, default=-1)))
    return sorted(sums, key=lambda s: (-s.after, -s.op))


def _best_fit(pool: Sequence[_Sum], free_us: float, until_us: float) -> _Sum | None:
    """Return the longest sum that fits between two times; the first in program order on a tie."""
    fit = [s for s in pool if max(free_us, s.ready_us) + s.us <= until_us]
    return max(fit, key=lambda s: (s.us, -s.op), default=None)
