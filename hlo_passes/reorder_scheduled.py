"""Makes an order exact: edits the schedule of a module that XLA has scheduled already.

Contract
    Changes the schedule field of an HloModuleProto (or the order of lines of its text) and nothing
    else. Loops and branches are computations of their own and are ordered as well, innermost
    first. Legality is that of `Graph.ordered`: operands, control dependencies, side effects, and
    who may overwrite a donated buffer only after everybody has read it. XLA does not check the
    last of these.

Before and after
    start(a2a), done(a2a), gemm dX, gemm dW   ->   start(a2a), gemm dW, done(a2a), gemm dX

Steps
    1. Decide an order for every computation that runs, with `ScheduleDw`'s own decision; a loop's
       length enters the decision about the computation around it.
    2. Permute the instruction ids of each sequence.

Numerics
    EXACT.

Limits
    XLA must hand out the scheduled module: jax 0.12 on CUDA and CPU.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Stage, Tier
from hlo_passes.errors import PlanError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.plans import Plan
from hlo_passes.schedule.bound import exposed_bound
from hlo_passes.schedule.decision import Decision
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule_dw import ChosenOrder, ScheduleDw, plan_of


@dataclass(frozen=True)
class ReorderScheduled(Pass):
    """Order every computation of a scheduled module.

    Attributes:
        schedule: how an order is decided.
    """

    tier: ClassVar[Tier] = Tier.EXACT
    stage: ClassVar[Stage] = Stage.BEHIND_SCHEDULER
    answers: ClassVar[frozenset[str]] = frozenset({"order"})

    schedule: ScheduleDw = field(default_factory=ScheduleDw)

    @property
    def spec(self) -> str:
        """Return the text form: that of the decision it enacts."""
        return self.schedule.spec

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide the order of the graph's ops and of every loop and branch inside it."""
        return plan_of(self.schedule, _decide, graph, context)

    def memory_bound(self, graph: Graph, context: Context, plan: Plan) -> int | None:
        """Return the bytes of temporaries that the planned order may need."""
        stock_bytes = plan.before.peak_bytes if plan.before else 0
        return self.schedule.limit(stock_bytes, context.room(graph), context.uncut_bytes)

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Return the module with the planned schedule.

        Raises:
            PlanError: if the module is StableHLO, or the plan is another module's.
        """
        if not isinstance(module, ScheduledModule):
            raise PlanError(module.path, "StableHLO has no schedule to edit",
                            "use schedule-dw, and pin-order to make it stick")  # fmt: skip
        plan.check(module.fingerprint)
        if not plan.orders:
            return PassResult(module, False)
        return PassResult(module.reordered(plan.orders), True)


def at_post_scheduler(step: Pass) -> Pass:
    """Return the pass that does to scheduled HLO what `step` does to StableHLO."""
    return ReorderScheduled(step) if isinstance(step, ScheduleDw) else step


def _decide(schedule: ScheduleDw, graph: Graph, context: Context) -> Decision:
    """Order the graph and every loop and branch inside it."""
    orders: dict[str, tuple[int, ...]] = {}
    made = Decision(graph, {}, orders, {}, {}, {})
    spare, is_bound = _spare(graph, context), False
    for computation in reversed({g.name: g for g, _ in graph.walk()}.values()):
        name, is_entry = computation.name, computation is graph
        simulator = made.simulators[name] = Simulator(computation, context.costs, orders)
        problem = simulator.problem
        stock_bytes = problem.buffers.peak(range(problem.size))
        if is_entry:
            problem = replace(problem, uncut_bytes=context.uncut_bytes)
        if spare is not None:
            problem = replace(problem, room=stock_bytes + (spare if is_entry else max(spare, 0)))
        held = schedule.held(problem, computation)
        if held is not None:
            made.held[name], problem = held, held.problem
        chosen = ChosenOrder(*schedule.choose(problem, context.costs.contention))
        made.strategies[name], is_bound = chosen.strategy, is_bound or chosen.is_bound
        made.bounds[name] = float(exposed_bound(simulator.problem))
        if chosen.order is not None:
            orders[name] = chosen.order
            if spare is not None:  # as if all loops were at their peak at once
                spare -= max(problem.buffers.peak(chosen.order) - stock_bytes, 0)
    return replace(made, is_bound=is_bound)


def _spare(graph: Graph, context: Context) -> int | None:
    """Return the bytes by which temporaries may grow; below 0 if the old order does not fit."""
    room = context.room(graph)
    if room is None:
        return None
    return room - Simulator(graph, context.costs).problem.buffers.peak(range(len(graph.ops)))
