"""What became of one compile: the plan, the program it was made for, and what was left alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from hlo_passes.cost.model import CostModel
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Plan
from hlo_passes.schedule.simulate import simulate
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.peers.decided import Entry


@dataclass(frozen=True)
class Outcome:
    """What became of one compile.

    Attributes:
        devices: how many devices the module is for.
        plan: how the schedule was ordered; None if nothing was planned.
        made: plans of the passes on StableHLO, of each.
        salt: hex digits over everything that the rewritten program depends on; "" if it is not.
        graph, costs: what it was decided on.
        stock: the step that no pass has changed, in XLA's own order, where XLA scheduled that as
            well.
        race: the programs that competed, the one that runs first; none if there was no choice.
        phases: seconds by what was done.
        seconds: those of them that XLA did not take.
        partition_seconds: of `seconds`, those in which XLA partitioned the step first, and those in
            which that was converted; zero where it was not.
        notes: what was left alone, and why.
        error: what went wrong; the step then runs as it is.
    """

    devices: int = 0
    plan: Plan | None = None
    made: tuple[Plan, ...] = ()
    salt: str = ""
    graph: Graph | None = field(default=None, repr=False)
    costs: CostModel | None = field(default=None, repr=False)
    stock: Graph | None = field(default=None, repr=False)
    race: tuple[Entry, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    partition_seconds: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def cuts(self) -> tuple[Plan, ...]:
        """The plans that cut the step into parts."""
        return tuple(plan for plan in self.made if plan.splits)

    @property
    def pins(self) -> int:
        """Exchanges that barriers tie to what stands beside them."""
        return sum(len(plan.pins) for plan in self.made)

    @property
    def left(self) -> str:
        """Why a shorter program does not run, and what would let it; "" if none is known."""
        if not self.race:
            return ""
        runs = self.race[0]
        longer = [one for one in self.race[1:] if one.step_us and one.step_us < runs.step_us]
        if not longer:
            return ""
        best = min(longer, key=lambda one: one.step_us)
        return f"{best.name}, {best.step_us:,.0f} us, was left: {best.why}"

    @cached_property
    def before(self) -> Timeline | None:
        """The schedule that XLA made, and would have run."""
        graph = self.graph if self.stock is None else self.stock
        if graph is None or self.costs is None:
            return None
        return simulate(graph, self.costs.for_graph(graph), source="compiled")

    @cached_property
    def after(self) -> Timeline | None:
        """The planned order, by the planner's own simulation."""
        if self.graph is None or self.costs is None or self.plan is None:
            return None
        orders, costs = self.plan.orders, self.costs.for_graph(self.graph)
        return simulate(self.graph, costs, orders.get(self.graph.name), orders=orders)

    @cached_property
    def planned(self) -> dict[str, tuple[str, ...]]:
        """Names of the ops that take time, in the order asked for, per computation."""
        if self.graph is None or self.plan is None:
            return {}
        orders = self.plan.orders
        return {
            inside.name: tuple(
                inside.ops[op].name for op in orders[inside.name] if not inside.ops[op].is_free
            )
            for inside, _ in self.graph.walk()
            if inside.name in orders
        }


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of every compile of one wrapped function, oldest first."""

    all: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> int:
        """Note one more; return its place."""
        self.all.append(outcome)
        return len(self.all) - 1

    def update(self, at: int, change: Callable[[Outcome], Outcome]) -> None:
        """Note that more is known of one: what came of its first call."""
        self.all[at] = change(self.all[at])

    def __iter__(self) -> Iterator[Outcome]:
        return iter(tuple(self.all))

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, at: int) -> Outcome:
        return self.all[at]
