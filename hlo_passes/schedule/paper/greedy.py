"""The paper's greedy: exchanges in program order, each taking the fillers that fit it best.

Source: section 4.2, Algorithm 1. What the paper leaves open is fixed here: ties go to program
order, a filler waits for the fillers that it reads, unassigned ops stay where they were, gradient
sums go into gaps where by prediction they delay no other exchange, and what waits for them comes
last.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from hlo_passes.schedule.issue import Issuer
from hlo_passes.schedule.overlaps import Overlaps, is_wait
from hlo_passes.schedule.paper.gaps import place_sums
from hlo_passes.schedule.problem import Lane, Problem


class Greedy(NamedTuple):
    """What the greedy decided.

    Attributes:
        order: op ids, a legal order of the problem.
        assignment: per urgent exchange in program order, the fillers issued right after it.
    """

    order: tuple[int, ...]
    assignment: dict[int, tuple[int, ...]]


def assign(
    exchange_us: Sequence[float],
    filler_us: Sequence[float],
    allowed: Sequence[Collection[int]],
    *,
    preds: Sequence[Collection[int]] = (),
    guard_2x: bool = False,
    last_chance: bool = False,
) -> list[list[int]]:
    """Assign fillers to exchanges (paper Algorithm 1).

    For every exchange, while some of it is uncovered, the free filler whose length is nearest to
    the rest is taken; the first in program order on a tie. O(pairs allowed * log fillers).

    Args:
        exchange_us: length of every exchange, in program order.
        filler_us: length of every filler, in program order.
        allowed: per exchange, the fillers that may run beside it.
        preds: per filler, the fillers that it has to follow; none by default.
        guard_2x: after its first filler an exchange takes none longer than twice the rest (the
            paper's artefact).
        last_chance: a filler left over at the last exchange that it may run beside is put there,
            with the fillers that it has to follow, even if that exchange is full (the artefact).

    Returns:
        Per exchange, its fillers in the order of assignment.
    """
    before = preds or [()] * len(filler_us)
    last = {f: e for e, fillers in enumerate(allowed) for f in fillers}
    used: set[int] = set()
    chosen: list[list[int]] = []
    for e, us in enumerate(exchange_us):
        pool = _Pool(filler_us, before, allowed[e], used)
        taken = _fill(pool, us, guard_2x)
        if last_chance:
            taken += pool.force(f for f in sorted(allowed[e]) if last[f] == e)
        chosen.append(taken)
    return chosen


def _fill(pool: "_Pool", us: float, guard_2x: bool) -> list[int]:
    """Take fillers for one exchange until it is covered or none is left."""
    taken: list[int] = []
    rest = us
    while rest > 0 and (filler := pool.nearest(rest)) is not None:
        if guard_2x and taken and pool.us[filler] > 2 * rest:
            break
        pool.take(filler)
        taken.append(filler)
        rest -= pool.us[filler]
    return taken


class _Pool:
    """The fillers that one exchange may still take, sorted by length.

    A filler is ready when every filler that it has to follow is used; one that this exchange may
    not take comes before the exchange anyway.
    """

    def __init__(
        self,
        us: Sequence[float],
        preds: Sequence[Collection[int]],
        allowed: Collection[int],
        used: set[int],
    ) -> None:
        self.us = us
        self.used = used
        free = {f for f in allowed if f not in used}
        self.waits = {f: waits for f in free if (waits := {p for p in preds[f] if p in free})}
        self.unlocks: defaultdict[int, list[int]] = defaultdict(list)
        for filler in sorted(self.waits):
            for p in self.waits[filler]:
                self.unlocks[p].append(filler)
        self.ready = sorted((us[f], f) for f in free if f not in self.waits)

    def nearest(self, rest: float) -> int | None:
        """Return the ready filler whose length is nearest to `rest`."""
        at = bisect_left(self.ready, (rest, -1))
        above = self.ready[at : at + 1]
        below = []
        if at:
            first = bisect_left(self.ready, (self.ready[at - 1][0], -1))
            below = self.ready[first : first + 1]
        near = [(abs(us - rest), filler) for us, filler in above + below]
        return min(near)[1] if near else None

    def take(self, filler: int) -> None:
        """Mark a ready filler as used and make ready what waited for it alone."""
        del self.ready[bisect_left(self.ready, (self.us[filler], filler))]
        self.used.add(filler)
        for after in self.unlocks[filler]:
            self.waits[after].discard(filler)
            if not self.waits[after]:
                del self.waits[after]
                insort(self.ready, (self.us[after], after))

    def force(self, fillers: Iterable[int]) -> list[int]:
        """Take `fillers` and all that they have to follow, in an order that keeps precedence."""
        forced: list[int] = []
        stack = [f for f in fillers if f not in self.used][::-1]
        while stack:
            filler = stack[-1]
            if filler in self.waits:
                stack += sorted(self.waits[filler], reverse=True)
                continue
            stack.pop()
            if filler not in self.used:
                self.take(filler)
                forced.append(filler)
        return forced


def greedy_order(problem: Problem, *, guard_2x: bool = False, last_chance: bool = False) -> Greedy:
    """Order a step by the paper's greedy.

    Args:
        problem: what to order.
        guard_2x: see `assign`.
        last_chance: see `assign`.
    """
    overlaps = Overlaps.of(problem)
    assignment = _assignment(problem, overlaps, guard_2x, last_chance)
    spine = _spine(problem, overlaps, assignment)
    placed = place_sums(problem, spine)
    return Greedy(_with_late(problem, overlaps, placed), assignment)


def _assignment(
    problem: Problem, overlaps: Overlaps, guard_2x: bool, last_chance: bool
) -> dict[int, tuple[int, ...]]:
    """Find the fillers of every urgent exchange."""
    fillers = [op for op in range(problem.size) if _is_filler(problem, overlaps, op)]
    beside = [overlaps.beside(op) for op in fillers]
    anchors = [e for e in overlaps.exchanges if problem.urgent[e]]
    chosen = assign(
        [problem.us[e] for e in anchors],
        [problem.us[op] for op in fillers],
        [_marked(beside, overlaps.own(e)) for e in anchors],
        preds=_filler_preds(problem, {op: i for i, op in enumerate(fillers)}),
        guard_2x=guard_2x,
        last_chance=last_chance,
    )
    named = [tuple(fillers[f] for f in taken) for taken in chosen]
    return dict(zip(anchors, named, strict=True))


def _marked(every: Sequence[int], bit: int) -> list[int]:
    """Return the places of the masks that have a bit."""
    return [place for place, bits in enumerate(every) if bits & bit]


def _is_filler(problem: Problem, overlaps: Overlaps, op: int) -> bool:
    """Whether an op is compute that may run beside an urgent exchange; updates are none."""
    if problem.lane[op] is not Lane.COMPUTE or problem.us[op] <= 0:
        return False
    return bool(overlaps.beside(op) & overlaps.urgent) and not overlaps.late(op)


def _filler_preds(problem: Problem, place: dict[int, int]) -> list[set[int]]:
    """Per filler, the nearest fillers above it; ops that take no time are looked through."""
    nearest: list[set[int]] = []
    for op in range(problem.size):
        above: set[int] = set()
        for p in problem.preds[op]:
            if p in place:
                above.add(place[p])
            elif problem.us[p] == 0.0:
                above |= nearest[p]
        nearest.append(above)
    return [nearest[op] for op in place]


def _spine(
    problem: Problem, overlaps: Overlaps, assignment: dict[int, tuple[int, ...]]
) -> tuple[int, ...]:
    """Order everything but gradient sums and what waits for them.

    Program order, except: an exchange starts as soon as its operands are there, with its fillers
    right behind it, and nobody waits for it before its first reader has to.
    """
    issuer = Issuer(problem)
    seen = 0

    def start_exchanges() -> None:
        nonlocal seen
        while seen < len(issuer.opened):
            op = issuer.opened[seen]
            seen += 1
            if op in assignment and not overlaps.late(op):
                issuer.pull(op)
                for filler in assignment[op]:
                    issuer.pull(filler)

    start_exchanges()
    held = {op for fillers in assignment.values() for op in fillers}
    for op in range(problem.size):
        moves = op in held or problem.lane[op] is Lane.EXCHANGE or is_wait(problem, op)
        if not (moves or overlaps.late(op)):
            issuer.pull(op)
            start_exchanges()
    for op in range(problem.size):  # exchanges' fillers and waits that nothing asked for
        if problem.lane[op] is not Lane.EXCHANGE and not overlaps.late(op):
            issuer.pull(op)
            start_exchanges()
    return tuple(issuer.order)


def _with_late(problem: Problem, overlaps: Overlaps, placed: Sequence[int]) -> tuple[int, ...]:
    """Append what waits for gradient sums: in the order in which the sums come in."""
    rank = {op: i for i, op in enumerate(placed)}
    waits_for = [-1] * problem.size
    for op in range(problem.size):
        own = rank.get(op, -1) if problem.lane[op] is Lane.EXCHANGE else -1
        waits_for[op] = max((waits_for[p] for p in problem.preds[op]), default=-1)
        waits_for[op] = max(waits_for[op], own)
    issuer = Issuer(problem)
    for op in placed:
        issuer.pull(op)
    late = [op for op in range(problem.size) if overlaps.late(op)]
    for op in sorted(late, key=lambda op: (waits_for[op], problem.lane[op] != Lane.EXCHANGE, op)):
        issuer.pull(op)
    return issuer.finish()
