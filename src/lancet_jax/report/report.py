"""The facts of a report, before anybody prints them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hlo_passes.cost.model import CostModel
from hlo_passes.facts.exchange_labels import labels_of
from hlo_passes.facts.roles import roles_of
from hlo_passes.files import write_atomically
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Plan, Split
from hlo_passes.schedule.drift import Drift
from hlo_passes.schedule.pareto import Point
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
    seconds: float = 0.0
    cuts: tuple[Plan, ...] = ()
    pieces: frozenset[str] = frozenset()
    stock: Simulator | None = field(default=None, repr=False, compare=False)
    final: Simulator | None = field(default=None, repr=False, compare=False)

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
            report = _report(name, rewritten[0], before, rewritten[1], plan, matched=False)
            return replace(report, stock=Simulator(graph, costs))
        planned = Simulator(graph, costs, plan.orders)
        after = planned.timeline(plan.orders.get(graph.name))
        report = _report(name, graph, before, after, plan)
        return replace(report, stock=Simulator(graph, costs), final=planned)

    @staticmethod
    def of_steps(
        name: str,
        stock: Simulator,
        final: Simulator,
        plans: Sequence[Plan],
        pieces: frozenset[str] = frozenset(),
    ) -> "Report":
        """Report what several passes, one after another, are predicted to do.

        Args:
            name: the module's name.
            stock: the step as it is, in its program order.
            final: the step that the last pass left, with its order.
            plans: what each pass decided; the last one is the report's own.
            pieces: see `Report`.
        """
        order = final.orders.get(final.graph.name)
        matched = stock.graph.name == final.graph.name and not any(p.splits for p in plans)
        report = _report(name, final.graph, stock.timeline(), final.timeline(order), plans[-1],
                         matched=matched)  # fmt: skip
        cuts = tuple(plan for plan in plans[:-1] if plan.changes or plan.race or plan.refusals)
        return replace(report, cuts=cuts, pieces=pieces, stock=stock, final=final)

    @staticmethod
    def of_compiled(compiled: Any) -> "Report":
        """Report what a `lancet_jax.Compiled` hides, read back from its final schedule.

        A cut step is held against the uncut one as XLA orders it, where both were compiled.
        """
        final = compiled.schedule()
        outcome, costs = compiled.outcome, compiled.costs
        old = outcome.rival or outcome
        graph = compiled.scheduled.snapshot()
        report = _report(
            compiled.scheduled.name,
            graph,
            old.before or final,
            final,
            outcome.plan,
            matched=outcome.rival is None,
            drift=compiled.drift() if outcome.planned else None,
            notes=tuple(outcome.notes),
            seconds=outcome.seconds,
        )
        final = stock = Simulator(graph, costs)
        if old.graph is not None and old.costs is not None:
            stock = Simulator(old.graph, old.costs)
        return replace(report, cuts=tuple(outcome.cuts), stock=stock, final=final)

    def pareto(self) -> tuple[Point, ...]:
        """Return step time against temporary memory, of all that is worth having.

        Orders the step under several limits of memory: as long again as planning took.

        Raises:
            UnsupportedError: if the report was made without the step's graph.
        """
        from lancet_jax.report.pareto import pareto_of

        return pareto_of(self)

    def to_html(self) -> str:
        """Return the report as one HTML page that needs nothing else, neither files nor network.

        Raises:
            UnsupportedError: if the report was made without the step's graph.
        """
        from lancet_jax.report.html import page

        return page(self)

    def save_html(self, path: str | Path) -> None:
        """Write the report's page to `path`, whole or not at all.

        Raises:
            InputError: if it cannot be written there.
        """
        write_atomically(Path(path), self.to_html().encode())

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame that the notebook's own style cannot reach."""
        from lancet_jax.report.html import frame

        return frame(self)

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
    labels = {key: (label.phase, label.backward) for key, label in labels_of(graph).items()}
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


def pieces_of(graph: Graph, splits: Sequence[Split]) -> frozenset[str]:
    """Return what the ops that `splits` cut are called, without ordinals: parts keep their scope.

    Args:
        graph: the step that the splits were planned for.
        splits: what is cut.
    """
    blocks = {inside.name: inside for inside, _ in graph.walk()}
    found = set()
    for split in splits:
        block = blocks.get(split.block)
        if block is not None:
            # With one-hot products become rows, a block has more ops than it had.
            last = min(split.last, len(block.ops) - 1)
            places = split.only or range(split.first, last + 1)
            found |= {stem_of(block.ops[p].key) for p in places if not block.ops[p].is_free}
    return frozenset(found)


def stem_of(key: str) -> str:
    """Return an op's key without its ordinal."""
    return key.rpartition("#")[0]


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
