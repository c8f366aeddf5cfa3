"""The facts of a report, before anybody prints them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hlo_passes.analysis.roles import Role, phases_of, roles_of
from hlo_passes.cost.model import CostModel
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph
from hlo_passes.plan.drift import Drift
from hlo_passes.plan.plan import Plan
from hlo_passes.plan.simulate import simulate
from hlo_passes.plan.timeline import Timeline, Window


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
class Report:
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
    seconds: float = 0.0

    @staticmethod
    def of_plan(
        name: str,
        graph: Graph,
        costs: CostModel,
        plan: Plan,
        rewritten: tuple[Graph, Timeline] | None = None,
    ) -> "Report":
        """Report what a plan is predicted to do to `graph`.

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
            return _report(name, rewritten[0], before, rewritten[1], plan, matched=False)
        after = simulate(graph, costs, plan.orders.get(graph.name), orders=plan.orders)
        return _report(name, graph, before, after, plan)

    @staticmethod
    def of_compiled(compiled: Any) -> "Report":
        """Report what a `lancet_jax.Compiled` hides, read back from its final schedule."""
        final = compiled.schedule()
        outcome = compiled.outcome
        return _report(
            compiled.scheduled.name,
            compiled.scheduled.snapshot(),
            outcome.before or final,
            final,
            outcome.plan,
            drift=compiled.drift() if outcome.planned else None,
            notes=tuple(outcome.notes),
            seconds=outcome.seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, times in us and sizes in bytes."""
        return {
            "module": self.name,
            "target": self.after.target,
            "before": _totals(self.before),
            "after": _totals(self.after),
            "bound_exposed_us": self.plan.bound_us if self.plan else None,
            "strategy": self.plan.strategy if self.plan else None,
            "plan": self.plan.hash if self.plan else None,
            "windows": [
                {
                    "op": w.key, "phase": str(w.label), "backward": w.backward, "bytes": w.bytes,
                    "us": w.us, "source": w.source, "exposed_before_us": w.before_us,
                    "exposed_after_us": w.after_us, "times": w.times,
                    "fillers": list(w.fillers[:8]),
                }
                for w in self.windows
            ],
            "roles_us": self.roles,
            "cost_sources": self.sources,
            "drift": None if self.drift is None else {
                "common": self.drift.common, "moved": self.drift.moved,
                "missing": self.drift.missing,
            },
            "refusals": [
                {"op": r.op, "reason": r.reason, "source": r.source}
                for r in (self.plan.refusals if self.plan else ())
            ],
            "notes": list(self.notes),
            "planner_seconds": self.seconds,
        }  # fmt: skip

    def __str__(self) -> str:
        from lancet_jax.report.text import render

        return render(self)


def _report(
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
) -> Report:
    labels = dict(_labels(graph))
    old = {w.key: w for w in before.windows} if matched else {}
    windows = tuple(
        _change(w, old.get(w.key), *labels.get(w.key, (Phase.OTHER, False)))
        for w in sorted(after.windows, key=lambda w: w.start_us)
        if w.is_all_to_all
    )
    return Report(
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


def _change(new: Window, old: Window | None, label: Phase, backward: bool) -> WindowChange:
    before_us = None if old is None else old.exposed_us
    return WindowChange(
        new.key, label, backward, new.bytes, new.us, new.source, before_us, new.exposed_us,
        new.times, new.fillers,
    )  # fmt: skip


def _labels(graph: Graph) -> Iterator[tuple[str, tuple[Phase, bool]]]:
    """Yield phase and direction of every exchange, those in loops included."""
    for inside, _ in graph.walk():
        roles, phases = roles_of(inside), phases_of(inside)
        for op, phase in phases.items():
            yield inside.ops[op].key, (phase, _is_backward(inside, roles, op))


def _is_backward(graph: Graph, roles: Sequence[Role], exchange: int) -> bool:
    """Whether what an exchange sends comes out of the backward pass, or its scope says so."""
    return _has_backward_input(graph, roles, exchange) or "transpose(" in graph.ops[exchange].scope


def _has_backward_input(graph: Graph, roles: Sequence[Role], exchange: int) -> bool:
    makers = {graph.values[v].op for v in graph.ops[exchange].operands}
    return any(roles[m] in (Role.BACKWARD, Role.WEIGHT) for m in makers if m >= 0)


def _time_by_role(graph: Graph, timeline: Timeline) -> dict[str, float]:
    roles = roles_of(graph)
    times: dict[str, float] = defaultdict(float)
    for slot in timeline.slots:
        if slot.lane == "compute":
            times[str(roles[slot.op])] += slot.us
    return {role: times[role] for role in sorted(times, key=lambda r: -times[r])}


def _totals(timeline: Timeline) -> dict[str, Any]:
    return {
        "source": timeline.source,
        "step_us": timeline.makespan_us,
        "compute_us": timeline.compute_us,
        "exchange_us": timeline.exchange_us,
        "exposed_us": timeline.exposed_us,
        "exposed_all_to_all_us": timeline.exposed_all_to_all_us,
        "peak_bytes": timeline.peak_bytes,
    }
