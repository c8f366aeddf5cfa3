"""Why an exchange stays exposed: from paths, from the order it is in, and from what hides what.

Of the compute that neither needs an exchange nor feeds it, some runs beside it, some hides others,
and some cannot run at that time because of where the others are. What most of it does is the
reason. Whether more memory would do is not asked here: only a new order can tell.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hlo_passes.facts.reach import Reach
from hlo_passes.ir.graph import Graph
from hlo_passes.schedule.problem import Lane, Problem
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Window

LEAST = 0.01
"""An exchange of which a smaller share is exposed counts as hidden."""


IN_ORDER = "kept in order by side effects, control dependencies or a donated buffer"


class Stop(StrEnum):
    """What keeps work from an exchange."""

    BLOCKED = "XLA made it synchronous: nothing runs beside it until it is started apart"
    DEPENDENCE = "all other work{loop} needs the exchange or feeds it; only splitting would help"
    EFFECT = f"work that its data would let run beside it is {IN_ORDER}"
    WORK = "all work that may run beside it does, and is not enough; only splitting would help"
    HIDES = "another exchange's turn: the work that could hide it hides others"
    WAITS = (
        "another exchange's turn: the work that could hide it needs one that starts later, or"
        " feeds one that starts earlier"
    )
    HELD = "the work that could hide it may not move ({held})"
    ORDER = "no shorter order was found, although there is work that could hide it"


@dataclass(frozen=True)
class Held:
    """What may not move.

    Attributes:
        problem: the computation with that in a row.
        why: who says so.
    """

    problem: Problem
    why: str


@dataclass(frozen=True, slots=True)
class Beside:
    """What the compute does that neither needs an exchange nor feeds it, in us.

    Attributes:
        all: all of it.
        here: what runs beside the exchange, at least in part.
        hides: what runs beside others instead.
        waits: what needs an exchange that starts later, or feeds one that starts earlier.
        data: all, if data alone decided what needs what.
        free: all, if what an option holds in place is left out.
    """

    all: float
    here: float
    hides: float
    waits: float
    data: float
    free: float

    def stop(self, us: float) -> Stop:
        """Return why an exchange of this length is exposed."""
        little = LEAST * us
        unused = self.all - self.here
        if unused <= little:
            if self.data > self.all + little:
                return Stop.EFFECT
            if self.all < us:
                return Stop.WORK if self.all > 0 else Stop.DEPENDENCE
            return Stop.ORDER
        if self.free < self.all - little and self.free - self.here <= little:
            return Stop.HELD
        rest = unused - self.hides - self.waits
        shares = {Stop.HIDES: self.hides, Stop.WAITS: self.waits, Stop.ORDER: rest}
        return max(shares, key=shares.__getitem__)


def besides(
    graph: Graph, problem: Problem, windows: Sequence[Window], held: Held | None = None
) -> dict[int, Beside]:
    """Return what could hide every exchange that is not blocking, and what it does instead.

    Args:
        graph: one computation.
        problem: the same, reduced.
        windows: of its exchanges, in the order that it runs in.
        held: what may not move, if anything may not.
    """
    reach = Reach.of(problem, graph.exchanges)
    groups = _grouped(graph, problem, windows, reach)
    data, free = by_data(graph, problem), _all(held.problem if held else problem)
    found, started = {}, 0
    every = sum(reach.bit.values())
    for window in sorted(windows, key=lambda w: (w.start_us, w.op)):
        own = reach.bit[window.op]
        if window.op not in problem.blocking:
            sums = _shared_out(groups, own, started, every & ~(started | own))
            found[window.op] = Beside(*sums, data[window.op], free[window.op])
        started |= own
    return found


type _Groups = Mapping[tuple[int, int, int], float]
"""Us of compute by the exchanges before it, after it and hidden by it, as bits."""


def _grouped(graph: Graph, problem: Problem, windows: Sequence[Window], reach: Reach) -> _Groups:
    """Add up compute that is the same to every exchange."""
    ids, hidden = {op.key: op.id for op in graph.ops}, defaultdict(int)
    for window in windows:
        for filler in window.fillers:
            hidden[ids[filler]] |= reach.bit[window.op]
    groups: defaultdict[tuple[int, int, int], float] = defaultdict(float)
    for op in _compute(problem):
        groups[reach.before[op], reach.after[op], hidden[op]] += problem.us[op]
    return groups


def _shared_out(
    groups: _Groups, own: int, started: int, later: int
) -> tuple[float, float, float, float]:
    """Return what compute that is not tied to an exchange does: all of it, and as in `Beside`.

    Args:
        groups: all compute.
        own: the bit of the exchange.
        started, later: bits of those that start before and after it.
    """
    total = here = hides = waits = 0.0
    for (before, after, hidden), us in groups.items():
        if (before | after) & own:
            continue
        total += us
        if hidden & own:
            here += us
        elif hidden:
            hides += us
        elif before & later or after & started:
            waits += us
    return total, here, hides, waits


def _compute(problem: Problem) -> Iterator[int]:
    """Yield the ops that can hide an exchange."""
    for op in range(problem.size):
        if problem.lane[op] is Lane.COMPUTE and problem.us[op] > 0:
            yield op


def _all(problem: Problem) -> dict[int, float]:
    """Return per exchange the us of compute that neither needs it nor feeds it."""
    reach = Reach.of(problem)
    groups: defaultdict[int, float] = defaultdict(float)
    for op in _compute(problem):
        groups[reach.before[op] | reach.after[op]] += problem.us[op]
    return {
        exchange: sum(us for tied, us in groups.items() if not tied & bit)
        for exchange, bit in reach.bit.items()
    }


def by_data(graph: Graph, problem: Problem) -> dict[int, float]:
    """Return the us of compute beside every exchange of a graph if data alone kept the order."""
    return _all(loosened(graph, problem))


def loosened(graph: Graph, problem: Problem) -> Problem:
    """Return the problem in which an op comes after those whose results it reads, and no others."""
    preds = [{graph.values[v].op for v in op.operands} | {op.start} for op in graph.ops]
    return replace(problem, preds=tuple(tuple(sorted(ids - {-1})) for ids in preds))


def why_exposed(
    simulator: Simulator, *, held: Held | None = None, is_loop: bool = False
) -> dict[str, str]:
    """Say of every exchange of a computation that is exposed why it is, by its key.

    Args:
        simulator: the computation, and among its orders its own.
        held: what may not move, if anything may not.
        is_loop: whether it is the body of a loop or a branch.
    """
    graph, problem = simulator.graph, simulator.problem
    timeline = simulator.timeline(simulator.orders.get(graph.name))
    windows = timeline.windows[: len(graph.exchanges)]
    exposed = [w for w in windows if w.exposed_us > LEAST * w.us]
    if not exposed:
        return {}
    beside = besides(graph, problem, windows, held)
    reasons = {}
    for w in exposed:
        stop = beside[w.op].stop(w.us) if w.op in beside else Stop.BLOCKED
        where = " of its loop or call" if is_loop else ""
        text = stop.format(loop=where, held=held.why if held else "")
        much = "exposed" if w.exposed_us > (1 - LEAST) * w.us else "partly exposed"
        reasons[w.key] = graph.ops[w.op].why_blocking or f"{much}: {text}"
    return reasons
