"""A list scheduler that sees the whole step, several times over: the shortest order wins.

No single rule is right for every step: weight gradients may be worth more beside an all-to-all or
in the tail of gradient sums, and a sum may be worth more early than an exchange on time. A handful
of policies, each a fast pass over the step, and one judge (`execute`) weigh that.
"""

from collections.abc import Iterator

from hlo_passes.schedule.bound import makespan_bound
from hlo_passes.schedule.list.budget import Foresight
from hlo_passes.schedule.list.improve import improve
from hlo_passes.schedule.list.run import Policy, list_schedule
from hlo_passes.schedule.problem import Problem
from hlo_passes.schedule.simulate import execute

_AT_WILL = 9.0
"""A gradient sum that may delay others by nine times its own length may always start."""

POLICIES = (
    Policy(sum_weight=1.0, save=0.0),
    Policy(sum_weight=0.5, save=0.0, sum_delay=0.5),
    Policy(save=0.0, staged=True),
    Policy(sum_weight=0.0, save=0.0),
    Policy(sum_weight=2.0, save=1.0, ranked=True, fit=True),
    Policy(sum_weight=2.0, save=0.0, sum_delay=_AT_WILL),
    Policy(sum_weight=4.0, save=0.5, sum_delay=0.5),
    Policy(sum_weight=0.0, save=9.0, sum_delay=0.5, fit=True),
    Policy(sum_weight=0.5, save=0.0, sum_delay=_AT_WILL),
    Policy(sum_weight=1.0, save=0.0, ranked=True),
    Policy(sum_weight=4.0, save=1.0),
)
"""What is tried, of 192 combinations: the first four by hand, for whole steps; the others one by
one, until none of the rest made any of 500 random small steps shorter, local search included."""

_ENOUGH = 1e-4
"""An order this close to what no order can undercut is the last that is tried."""

_SEARCHED = 1000
"""Above this number of ops the local search would try too few moves to find any."""

_IMPROVED = 3
"""How many of the shortest orders the local search starts from; all of a step that is tiny."""

_TINY = 100
"""Up to this number of ops a local search costs next to nothing."""

_EFFORT = 20_000
"""How many ops may be dispatched in all before the policies that are left are left out."""

_LEAST = 4
"""How many policies are tried whatever the effort."""


def list_order(
    problem: Problem,
    *,
    memory_limit: int | None = None,
    contention: float = 0.0,
    is_quick: bool = False,
) -> tuple[int, ...]:
    """Order a step so that it is short and fits.

    About a dozen passes of O((ops + edges) log ops), fewer if one comes close to the bound; then,
    for small problems, a local search of bounded effort.

    Args:
        problem: what to order.
        memory_limit: bytes of temporary memory, judged by `problem.buffers`.
        contention: see `execute`.
        is_quick: whether one policy will do: where an order is only to tell which programs are
            worth compiling. What the others find of a whole step differs by 1%.

    Returns:
        A legal order that fits into `memory_limit`, and is not longer than program order if that
        fits as well; program order if no order that is found fits.
    """
    stock = tuple(range(problem.size))
    if not problem.exchanges:
        return stock

    def length(order: tuple[int, ...]) -> float:
        return execute(problem, order, contention).makespan_us

    enough = makespan_bound(problem) * (1 + _ENOUGH)
    fits = memory_limit is None or problem.buffers.peak(stock) <= memory_limit
    tried = {stock: length(stock)} if fits else {}
    for order in _fitting(problem, memory_limit, 1 if is_quick else len(POLICIES)):
        tried[order] = length(order)
        if tried[order] <= enough:
            return min(tried, key=tried.__getitem__)
    best = sorted(tried, key=tried.__getitem__)
    if not is_quick and problem.size <= _SEARCHED:
        start = len(best) if problem.size <= _TINY else _IMPROVED
        best[:start] = [
            improve(problem, order, contention=contention, memory_limit=memory_limit)
            for order in best[:start]
        ]
    return min((stock, *best) if fits else best, key=length, default=stock)


def _fitting(problem: Problem, memory_limit: int | None, most: int) -> Iterator[tuple[int, ...]]:
    """Yield one order per policy, of so many at most; none where none fits, as under a limit below
    program order's.
    """
    facts = Foresight.of(problem)
    effort = 0
    for number, policy in enumerate(POLICIES[:most]):
        if number >= _LEAST and effort >= _EFFORT:
            return
        effort += problem.size
        order = list_schedule(facts, policy, memory_limit=memory_limit)
        if memory_limit is None or problem.buffers.peak(order) <= memory_limit:
            yield order
