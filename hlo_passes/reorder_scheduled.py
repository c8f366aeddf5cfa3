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

from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import ClassVar

from msgspec.structs import replace

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.errors import PlanError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.plan.bound import exposed_bound
from hlo_passes.plan.plan import Plan
from hlo_passes.plan.simulate import Simulator
from hlo_passes.schedule_dw import ScheduleDw, plan_of


@dataclass(frozen=True)
class ReorderScheduled(Pass):
    """Order every computation of a scheduled module.

    Attributes:
        schedule: how an order is decided.
    """

    tier: ClassVar[Tier] = Tier.EXACT

    schedule: ScheduleDw = field(default_factory=ScheduleDw)

    @property
    def spec(self) -> str:
        """Return the text form: that of the decision it enacts."""
        return self.schedule.spec

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide the order of the graph's ops and of every loop and branch inside it."""
        orders: dict[str, tuple[int, ...]] = {}
        strategies: dict[str, str] = {}
        bounds: dict[str, float] = {}
        simulator = Simulator(graph, context.costs)
        spare = _spare(simulator, context)
        for computation in reversed({g.name: g for g, _ in graph.walk()}.values()):
            simulator = Simulator(computation, context.costs, orders)
            problem = simulator.problem
            stock_bytes = problem.buffers.peak(range(problem.size))
            if computation is graph:
                problem = replace_fields(problem, uncut_bytes=context.uncut_bytes)
            if spare is not None:
                room = stock_bytes + (spare if computation is graph else max(spare, 0))
                problem = replace_fields(problem, room=room)
            problem = self.schedule.limited(problem, computation)
            strategy, order = self.schedule.choose(problem, context.costs.contention)
            strategies[computation.name] = strategy
            bounds[computation.name] = float(exposed_bound(simulator.problem))
            if order is not None:
                orders[computation.name] = order
                if spare is not None:  # as if all loops were at their peak at once
                    spare -= max(problem.buffers.peak(order) - stock_bytes, 0)
        stock = simulator if len(strategies) == 1 else Simulator(graph, context.costs)
        plan = plan_of(graph, stock.timeline(), simulator.timeline(orders.get(graph.name)))
        return replace(
            plan,
            module=context.fingerprint,
            passes=(self.spec,),
            strategy=_winner(strategies, graph.name),
            orders=orders,
            bound_us=round(sum(bounds[g.name] * trips for g, trips in graph.walk()), 3),
        )

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


def _spare(simulator: Simulator, context: Context) -> int | None:
    """Return the bytes by which temporaries may grow; below 0 if the old order does not fit."""
    room, problem = context.room(simulator.graph), simulator.problem
    return None if room is None else room - problem.buffers.peak(range(problem.size))


def _winner(strategies: dict[str, str], entry: str) -> str:
    """Name the strategy of the entry, or of a loop if only loops were re-ordered."""
    return next((s for s in (strategies[entry], *strategies.values()) if s != "stock"), "stock")
