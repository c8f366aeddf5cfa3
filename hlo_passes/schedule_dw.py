"""Puts weight gradients, and whatever else may wait, beside the exchanges that need company.

Contract
    Changes the order of ops and nothing else. Every op stays after what it reads, control
    dependencies, side effects and donated buffers included; temporary memory stays within a
    stated share of what the old order needs, or within what the step needs if it is not cut. If
    no order is shorter, the old one stays.

Before and after
    dX2, dW2, a2a, dX1, dW1, sum(dW1), ...   ->   dX2, a2a [ dW2 ], dX1, ...

Steps
    1. Price every op and exchange for the target.
    2. Make orders: the paper's greedy (section 4, with its artefact's 2x guard and last-chance
       rule as options) and a list scheduler that sees the whole step.
    3. Simulate all of them and the old order; the shortest wins, ties keep the old one.
    4. State how much no order can hide.

Numerics
    EXACT.

Limits
    An exchange of the forward pass has nothing independent beside it: only splitting helps there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import ClassVar, Literal, NamedTuple

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Stage, Tier
from hlo_passes.facts.roles import before_loss
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Move, Plan, reorders
from hlo_passes.schedule.bound import exposed_bound
from hlo_passes.schedule.decision import AT_WILL, Decision, refusals_of
from hlo_passes.schedule.list.policies import list_order
from hlo_passes.schedule.paper.greedy import greedy_order
from hlo_passes.schedule.problem import Problem
from hlo_passes.schedule.reasons import Held
from hlo_passes.schedule.simulate import Simulator, execute
from hlo_passes.schedule.streams import uncrossed
from hlo_passes.schedule.timeline import Timeline, prediction_of

type Strategy = Literal["best", "greedy", "list"]

_SLACK = 0.02
"""By how much temporaries may grow where nobody knows how much memory there is."""

_WORTH = 1e-4
"""A gain below this share of the step is rounding, not a reason to change a program."""


@dataclass(frozen=True)
class ScheduleDw(Pass):
    """Order a step so that compute runs beside its exchanges.

    Attributes:
        strategy: `greedy` (the paper's), `list` (whole step), or `best` of both by simulation.
        two_x_guard: greedy only: stop rather than overfill a window by more than half.
        last_chance: greedy only: a filler is placed at its last window even if that is full.
        memory_slack: temporary memory may grow by this share of what the old order needs, and up
            to what the step needs if it is not cut; none for as much as the device has, and for
            2% where that is not known.
        moves: `all` ops may move, or those of the `forward` pass alone: what a cut forward pass
            gains without weight gradients beside exchanges, which the paper calls partition only.
    """

    tier: ClassVar[Tier] = Tier.EXACT
    stage: ClassVar[Stage] = Stage.BEHIND_SCHEDULER
    answers: ClassVar[frozenset[str]] = frozenset({"order"})

    strategy: Literal["best", "greedy", "list"] = "best"
    two_x_guard: bool = False
    last_chance: bool = False
    memory_slack: float | None = None
    moves: Literal["all", "forward"] = "all"

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide the order of the graph's own ops; loops inside it keep theirs."""
        return plan_of(self, _decide, graph, context)

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Put the module's ops in the planned order.

        Raises:
            PlanError: if the plan is another module's.
        """
        plan.check(module.fingerprint)
        if not plan.orders:
            return PassResult(module, False)
        return PassResult(module.reordered(plan.orders), True)

    def held(self, problem: Problem, graph: Graph) -> Held | None:
        """Return the problem in which nothing moves that may not; None if all may. See `moves`."""
        if self.moves == "all":
            return None
        free = before_loss(graph)
        still = [op.id for op in graph.ops if op.id not in free]
        return Held(problem.in_a_row(still), "moves=forward")

    def limit(self, stock_bytes: int, room: int | None = None, uncut_bytes: int = 0) -> int:
        """Return the temporary memory that a new order may need, in bytes.

        Args:
            stock_bytes: what the old order needs.
            room: what there is; None for as much as one likes.
            uncut_bytes: what the step needs if it is not cut.
        """
        if self.memory_slack is None and room is not None:
            return room
        slack = _SLACK if self.memory_slack is None else self.memory_slack
        margin = max(int(stock_bytes * (1 + slack)), uncut_bytes)
        return margin if room is None else min(margin, room)

    def choose(self, problem: Problem, contention: float) -> "ChosenOrder":
        """Return the winning order; one's own may return (strategy, order), None for the old one.

        An order that fits into `problem.room` wins over an old one that does not, however long.
        """
        if not problem.exchanges:
            return ChosenOrder("stock", None, False)
        stock = tuple(range(problem.size))
        limit = self.limit(problem.buffers.peak(stock), problem.room, problem.uncut_bytes)
        candidates = {"stock": stock}
        if self.strategy in ("best", "greedy"):
            candidates["greedy"] = greedy_order(
                problem, guard_2x=self.two_x_guard, last_chance=self.last_chance
            ).order
        if self.strategy in ("best", "list"):
            candidates["list"] = list_order(problem, contention=contention)
        is_bound = any(problem.buffers.peak(order) > limit for order in candidates.values())
        if is_bound and "list" in candidates:
            candidates["list"] = list_order(problem, memory_limit=limit, contention=contention)
        candidates = {
            name: uncrossed(problem.streams, problem.preds, order) if name != "stock" else order
            for name, order in candidates.items()
        }
        best = _shortest(problem, candidates, limit, contention)
        order = None if best == "stock" else tuple(candidates[best])
        return ChosenOrder(best, order, is_bound)


class ChosenOrder(NamedTuple):
    """An order that was chosen.

    Attributes:
        strategy: which of those that competed won; `stock` if the old order did.
        order: the order; None for the old one.
        is_bound: whether an order did not fit into memory.
    """

    strategy: str
    order: tuple[int, ...] | None
    is_bound: bool = True


def _shortest(
    problem: Problem, candidates: Mapping[str, Sequence[int]], limit: int, contention: float
) -> str:
    """Return the shortest candidate that fits into memory; the first named one on a tie.

    The old order stays if nothing fits.
    """
    length = {name: execute(problem, o, contention).makespan_us for name, o in candidates.items()}
    is_fit = problem.buffers.peak(candidates["stock"]) <= limit
    worth = length["stock"] * (1 - _WORTH) if is_fit else float("inf")
    fit = [
        name for name, order in candidates.items()
        if (name == "stock" and is_fit)
        or (name != "stock" and length[name] < worth and problem.buffers.peak(order) <= limit)
    ] or ["stock"]  # fmt: skip
    return min(fit, key=lambda name: length[name])


def plan_of(
    schedule: ScheduleDw,
    decide: Callable[[ScheduleDw, Graph, Context], Decision],
    graph: Graph,
    context: Context,
) -> Plan:
    """Decide on an order, and put what it does, and what it does not, into words and figures.

    Args:
        schedule: the options of the decision.
        decide: makes it.
        graph, context: as in `Pass.plan`.
    """

    def again(slack: float, lift: int) -> Decision:
        limit = context.memory_limit
        lifted = replace_fields(context, memory_limit=None if limit is None else limit + lift)
        return decide(replace_fields(schedule, memory_slack=slack), graph, lifted)

    made = decide(schedule, graph, context)
    before, after = Simulator(graph, context.costs).timeline(), made.timeline
    entry = made.strategies[graph.name]
    slack = schedule.memory_slack
    if slack is None:
        slack = _SLACK if context.memory_limit is None else AT_WILL
    return Plan(
        module=context.fingerprint,
        target=before.target,
        passes=(schedule.spec,),
        strategy=next((s for s in (entry, *made.strategies.values()) if s != "stock"), "stock"),
        edits=reorders(schedule.pass_name(), made.orders),
        moves=_moves(before, after),
        refusals=refusals_of(made, again, slack=slack, room=context.room(graph)),
        before=prediction_of(before),
        after=prediction_of(after),
        bound_us=round(made.bound_us, 3),
    )


def _decide(schedule: ScheduleDw, graph: Graph, context: Context) -> Decision:
    """Order the graph's own ops."""
    orders: dict[str, tuple[int, ...]] = {}
    simulators = {g.name: Simulator(g, context.costs, orders) for g, _ in graph.walk()}
    simulator = simulators[graph.name]
    problem = replace_fields(
        simulator.problem, room=context.room(graph), uncut_bytes=context.uncut_bytes
    )
    why = "what is inside a loop or call is ordered after XLA's scheduler"
    held = {name: Held(inside.problem.in_a_row(), why) for name, inside in simulators.items()}
    del held[graph.name]
    if (own := schedule.held(problem, graph)) is not None:
        held[graph.name] = own
    found = schedule.choose(own.problem if own else problem, context.costs.contention)
    chosen = ChosenOrder(*found)
    if chosen.order is not None:
        orders[graph.name] = chosen.order
    bounds = {graph.name: float(exposed_bound(simulator.problem))}
    strategies = {graph.name: chosen.strategy}
    return Decision(graph, simulators, orders, strategies, bounds, held, chosen.is_bound)


def _moves(before: Timeline, after: Timeline) -> tuple[Move, ...]:
    """Name what runs beside an exchange now and did not before."""
    old = {w.op: set(w.fillers) for w in before.windows}
    length = {slot.key: slot.us for slot in after.slots}
    return tuple(
        Move(
            op=filler,
            beside=window.key,
            us=round(length.get(filler, 0.0), 3),
            reason="neither needs the exchange nor feeds it",
        )
        for window in after.windows
        for filler in window.fillers
        if filler not in old.get(window.op, set())
    )
