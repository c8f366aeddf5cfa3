"""What became of one compile: the plan, the program it was made for, and what was left alone."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jax

from hlo_passes.cost.model import CostModel
from hlo_passes.errors import LancetError
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Plan
from hlo_passes.schedule.simulate import simulate
from hlo_passes.schedule.timeline import Timeline


@dataclass
class Outcome:
    """What became of one compile.

    Attributes:
        devices: how many devices the module is for.
        plan: what was decided; None if nothing was planned.
        made: plans of the passes on StableHLO, of each.
        cuts: those of them that cut the step into parts.
        salt: hex digits over everything that the rewritten program depends on; "" if it is not.
        graph, costs: what it was decided on.
        pins: exchanges that barriers tie to what stands beside them.
        seconds: time spent in Python, planning and editing.
        partition_seconds: of `seconds`, those in which XLA partitioned the step first, and those in
            which that was converted; zero where it was not.
        notes: what was left alone, and why.
        error: what went wrong; the step then runs as it is.
        rival: what became of the same step uncut, where XLA compiled that as well.
    """

    devices: int = 0
    plan: Plan | None = None
    made: tuple[Plan, ...] = ()
    cuts: tuple[Plan, ...] = ()
    salt: str = ""
    graph: Graph | None = None
    costs: CostModel | None = None
    pins: int = 0
    seconds: float = 0.0
    partition_seconds: tuple[float, float] = (0.0, 0.0)
    notes: list[str] = field(default_factory=list)
    error: Exception | None = None
    rival: "Outcome | None" = None

    def facts(self) -> dict[str, str]:
        """Return what other processes have to have decided as well, before XLA compiles."""
        return {
            "plans": ",".join(plan.hash for plan in self.made) or "none",
            "program": self.salt if self.salt and self.error is None else "as it was",
            "why": str(self.error or ""),
        }

    def become(self, other: "Outcome") -> None:
        """Take over what became of another compile of the same step."""
        vars(self).clear()
        vars(self).update(vars(other))

    @cached_property
    def before(self) -> Timeline | None:
        """The schedule that XLA made, and would have run."""
        if self.graph is None or self.costs is None:
            return None
        return simulate(self.graph, self.costs, source="compiled")

    @cached_property
    def after(self) -> Timeline | None:
        """The planned order, by the planner's own simulation."""
        if self.graph is None or self.costs is None or self.plan is None:
            return None
        orders = self.plan.orders
        return simulate(self.graph, self.costs, orders.get(self.graph.name), orders=orders)

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


def remember(plan: Plan, salt: str) -> None:
    """Keep a plan beside the executable in JAX's persistent cache, if there is one."""
    place = _place(salt)
    if place is not None and place.parent.is_dir():
        try:
            plan.save(place)
        except LancetError:
            return  # a cache that cannot be written costs a report, not a step


def recall(salt: str) -> Plan | None:
    """Return the plan of an executable that came out of JAX's persistent cache."""
    place = _place(salt)
    try:
        return Plan.load(place) if place is not None else None
    except LancetError:
        return None


def _place(salt: str) -> Path | None:
    """Name the file of a plan; the salt stands for module, passes, target and versions."""
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:
        return None
    return Path(folder) / f"lancet-plan-{salt}.json"
