"""One step before and after: the facts of a report, which its renderings print and draw."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from hlo_passes.cost.model import CostModel
from hlo_passes.facts.exchange_labels import labels_of
from hlo_passes.facts.roles import roles_of
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Plan
from hlo_passes.schedule.drift import Drift
from hlo_passes.schedule.simulate import Simulator, simulate
from hlo_passes.schedule.timeline import Timeline, Window


@dataclass(frozen=True, slots=True)
class WindowChange:
    """One exchange before and after.

    Attributes:
        key: the exchange's key.
        label: `dispatch`, `combine`, `gradient` or `other`.
        backward: whether it is in the backward pass.
        bytes: payload of one device.
        us: its length.
        source: where its length comes from.
        before_us: exposed time before; None if the exchange is there only once the step is cut.
        after_us: exposed time afterwards.
        times: how often it happens per step.
        fillers: keys of what runs beside it afterwards, longest overlap first.
    """

    key: str
    label: Phase
    backward: bool
    bytes: int
    us: float
    source: str
    before_us: float | None
    after_us: float
    times: int = 1
    fillers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What one step exposes before and after, and why.

    Attributes:
        name: the module's name.
        before: the step as XLA alone, or the program's own order, has it.
        after: the step as planned, or as it was compiled.
        plan: what was decided; None if nothing was planned.
        windows: every all-to-all, in order of issue.
        roles: time of compute ops by what they are for, in us.
        sources: how many costs came from where.
        drift: final schedule against plan; None before compiling.
        notes: what was left alone, and why.
        left: why a faster program was left, with figures and the option that would allow it; "" if
            none was.
        seconds: time spent planning and editing.
        cuts: plans of passes that had cut the step before `plan` was made.
        pieces: what ops that come from a cut are called: their keys without ordinals.
        stock, final: what `before` and `after` were simulated from, for those who draw more than
            two timelines.
    """

    name: str
    before: Timeline
    after: Timeline
    plan: Plan | None = None
    windows: tuple[WindowChange, ...] = ()
    roles: dict[str, float] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    drift: Drift | None = None
    notes: tuple[str, ...] = ()
    left: str = ""
    seconds: float = 0.0
    cuts: tuple[Plan, ...] = ()
    pieces: frozenset[str] = frozenset()
    stock: Simulator | None = field(default=None, repr=False, compare=False)
    final: Simulator | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_plan(
        cls,
        name: str,
        graph: Graph,
        costs: CostModel,
        plan: Plan,
        rewritten: tuple[Graph, Timeline] | None = None,
    ) -> Self:
        """Say what a plan is predicted to do to `graph`.

        Args:
            name: the module's name.
            graph: the step as it is.
            costs: prices for the target.
            plan: what was decided.
            rewritten: the step that follows the plan, and its timeline; by default `graph` in the
                planned order.
        """
        before = simulate(graph, costs)
        if rewritten is not None:
            found = cls._of(name, rewritten[0], before, rewritten[1], plan, matched=False)
            return replace(found, stock=Simulator(graph, costs))
        planned = Simulator(graph, costs, plan.orders)
        after = planned.timeline(plan.orders.get(graph.name))
        found = cls._of(name, graph, before, after, plan)
        return replace(found, stock=Simulator(graph, costs), final=planned)

    @classmethod
    def of_steps(
        cls,
        name: str,
        stock: Simulator,
        final: Simulator,
        plans: Sequence[Plan],
        pieces: frozenset[str] = frozenset(),
    ) -> Self:
        """Say what several passes, one after another, are predicted to do.

        Args:
            name: the module's name.
            stock: the step as it is, in its program order.
            final: the step that the last pass left, with its order.
            plans: what each pass decided; the last one is that of `plan`.
            pieces: see the class.
        """
        order = final.orders.get(final.graph.name)
        matched = stock.graph.name == final.graph.name and not any(p.splits for p in plans)
        found = cls._of(name, final.graph, stock.timeline(), final.timeline(order), plans[-1],
                        matched=matched)  # fmt: skip
        cuts = tuple(plan for plan in plans[:-1] if plan.changes or plan.race or plan.refusals)
        return replace(found, cuts=cuts, pieces=pieces, stock=stock, final=final)

    @classmethod
    def of_compiled(cls, compiled: Any) -> Self:
        """Say what a `lancet_jax.Compiled` hides, read back from its final schedule.

        A cut step is held against the uncut one as XLA orders it, where both were compiled.
        """
        final = compiled.schedule()
        outcome, costs = compiled.outcome, compiled.costs
        graph = compiled.scheduled.snapshot()
        found = cls._of(
            compiled.scheduled.name,
            graph,
            outcome.before or final,
            final,
            outcome.plan,
            matched=outcome.stock is None,
            drift=compiled.drift() if outcome.planned else None,
            notes=tuple(outcome.notes),
            seconds=outcome.seconds,
        )
        final = stock = Simulator(graph, costs)
        old = outcome.graph if outcome.stock is None else outcome.stock
        if old is not None and outcome.costs is not None:
            stock = Simulator(old, outcome.costs)
        cuts = tuple(outcome.cuts)
        return replace(found, left=outcome.left, cuts=cuts, stock=stock, final=final)

    @classmethod
    def _of(
        cls,
        name: str,
        graph: Graph,
        before: Timeline,
        after: Timeline,
        plan: Plan | None,
        *,
        matched: bool = True,
        drift: Drift | None = None,
        notes: tuple[str, ...] = (),
        seconds: float = 0.0,
    ) -> Self:
        """Compare two timelines; if they are `matched`, an exchange has one key in both."""
        labels = {key: (label.phase, label.backward) for key, label in labels_of(graph).items()}
        old = {w.key: w for w in before.windows} if matched else {}
        windows = tuple(
            _change(w, old.get(w.key), *labels.get(w.key, (Phase.OTHER, False)))
            for w in sorted(after.windows, key=lambda w: w.start_us)
            if w.is_all_to_all
        )
        return cls(
            name=name,
            before=before,
            after=after,
            plan=plan,
            windows=windows,
            roles=_time_by_role(graph, after),
            sources=dict(Counter(str(s.source) for s in after.slots)),
            drift=drift,
            notes=notes,
            seconds=seconds,
        )

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All plans that the step followed, in the order in which they were made."""
        return (*self.cuts, *([self.plan] if self.plan else []))


def _change(new: Window, old: Window | None, label: Phase, backward: bool) -> WindowChange:
    before_us = None if old is None else old.exposed_us
    return WindowChange(
        new.key, label, backward, new.bytes, new.us, new.source, before_us, new.exposed_us,
        new.times, new.fillers,
    )  # fmt: skip


def _time_by_role(graph: Graph, timeline: Timeline) -> dict[str, float]:
    roles = roles_of(graph)
    times: dict[str, float] = defaultdict(float)
    for slot in timeline.slots:
        if slot.lane == "compute":
            times[str(roles[slot.op])] += slot.us
    return {role: times[role] for role in sorted(times, key=lambda r: -times[r])}
