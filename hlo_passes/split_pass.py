"""What passes that cut a step share: they try cut modules by simulating the whole step."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import ClassVar

from msgspec.structs import replace

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.errors import OptionError, PlanError
from hlo_passes.facts.barriers import without_barriers
from hlo_passes.facts.footprint import footprint_of
from hlo_passes.facts.liveness import buffers_of
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan, Prediction, Refusal, Split
from hlo_passes.schedule.list.policies import list_order
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Timeline, prediction_of
from hlo_passes.split.known import keep_cut, take_cut
from hlo_passes.split.module import cut_module

_WORTH = 1e-3
"""A gain below this share of the step does not pay for another program."""

_CLOSE = 0.1
"""A cut step that is predicted to be longer by less than this share may be the shorter one once XLA
has fused both; it is cut where that will be checked. Of twelve steps the cut that was best of all
was never predicted to be longer by more than 8.3% (`docs/race.md`)."""

MARGIN = 0.1
"""By default a cut may need this share more of temporary memory than the step does uncut. What XLA
makes of cut GPT2s on 16 to 64 devices (`docs/results.json`) needs 5% less to 3% more."""

_MORE = 1e-2
"""Another way to cut has to beat the one before, with fewer parts, by this share: XLA will fuse the
program, and order it within the memory that there is, and then closer predictions are a lottery."""

ASKED_FOR = "was asked for"
NO_ROOM = "is taken: uncut it does not fit into memory"
CLOSE = "is close enough to be compiled as well: XLA's own schedules decide"
"""Why a cut is chosen that is not predicted to be shortest."""

NO_GAIN = "no cut makes the step shorter"

_FAR = 5e-2
_LOST = 2
"""So many cuts in a row, each longer than the one before with fewer parts, and all by this share
longer than the best: then still more parts are not tried."""


@dataclass(frozen=True)
class CutVariant:
    """One way to cut a step.

    Attributes:
        splits: what is cut; nothing if nothing can be.
        refusals: what is not cut although it might, and why.
    """

    splits: tuple[Split, ...]
    refusals: tuple[Refusal, ...] = ()

    @property
    def name(self) -> str:
        """How many parts, and of how many stretches if they differ: `k=4`, `k=2,4`."""
        return f"k={','.join(map(str, sorted({split.k for split in self.splits})))}"


@dataclass(frozen=True)
class SplitPass(Pass):
    """Base of the passes that cut a step: the shortest step wins, and no cut competes.

    Attributes:
        rho: most parts (the paper's name and default).
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
        memory_slack: share by which that may grow over the uncut step's; none for any. The default
            counts where predictions decide and no number of parts is given: where XLA's own
            modules decide, the device's memory does.
    """

    tier: ClassVar[Tier] = Tier.REASSOCIATES
    answers: ClassVar[frozenset[str]] = frozenset({"cut"})
    per_device: ClassVar[bool] = True

    rho: int = 8
    memory_limit: int | None = None
    memory_slack: float | None = MARGIN

    @property
    def margin(self) -> float | None:
        """The share by which a cut may need more memory than the uncut step; none for any.

        Where XLA compiles both, that is held against what they need then. Before fusion a step
        seems to need two or three times as much, and orders that fit are longer than need be.
        """
        return self.memory_slack

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide what is cut.

        Raises:
            OptionError: if an option makes no sense.
            PlanError: if there is no StableHLO module to try cuts on.
        """
        if self.margin is not None and not context.checked:
            context = _bounded(graph, context, self.margin)
        return self.decide(graph, context, ordered_timeline(graph, context))

    @property
    def is_settled(self) -> bool:
        """Whether the options say how to cut, so that nothing is left to choose."""
        return False

    def rivals(self, graph: Graph, context: Context) -> Iterator[Plan]:
        """Yield the plan of the best cut, even if it is predicted to be somewhat longer than none.

        Args:
            graph: what is planned on.
            context: what it may know besides.
        """
        yield from self.rivals_of(graph, context, ordered_timeline(graph, context))

    def rivals_of(self, graph: Graph, context: Context, before: Timeline) -> Iterator[Plan]:
        """Yield the plans that are worth compiling, given the step as it is in its best order.

        Args:
            graph: what is planned on.
            context: what it may know besides.
            before: the step as it is.
        """
        yield self.decide(graph, context, before)

    def smaller(self, plan: Plan) -> "SplitPass | None":
        """Return the pass that cuts into fewer parts than a plan of it does; None if none does."""
        parts = max((split.k for split in plan.splits), default=0)
        return replace_fields(self, rho=parts - 1) if parts > 2 and not self.is_settled else None

    def limit(self, graph: Graph, context: Context) -> int | None:
        """Return the bytes of temporary memory that a step may need; None for no limit."""
        room = None if context.checked else context.room(graph)
        limits = [n for n in (self.memory_limit, room) if n is not None]
        return min(limits, default=None)

    @abstractmethod
    def decide(self, graph: Graph, context: Context, before: Timeline) -> Plan:
        """Decide what is cut, given the step as it is in its best order."""

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Cut the module as planned.

        Raises:
            PlanError: if the plan is another module's.
        """
        plan.check(module.fingerprint)
        if not plan.splits:
            return PassResult(module, False)
        assert isinstance(module, Module)
        return PassResult(take_cut(module, plan.splits) or cut_module(module, plan.splits), True)


@dataclass(frozen=True)
class PartsPass(SplitPass):
    """Base of the passes that cut in one way, into a number of parts.

    Attributes:
        k: number of parts; none to try every number up to `rho`.
    """

    k: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether a number of parts is given: it wins even over no cut."""
        return self.k is not None

    @property
    def margin(self) -> float | None:
        """As given; by default none if a number of parts is asked for."""
        is_asked_for = self.k is not None and self.memory_slack == MARGIN
        return None if is_asked_for else self.memory_slack

    @property
    def parts(self) -> Sequence[int]:
        """The numbers of parts to try."""
        return (self.k,) if self.k is not None else range(2, self.rho + 1)

    @abstractmethod
    def candidates(self, module: Module, graph: Graph, context: Context) -> Iterator[CutVariant]:
        """Yield the ways to cut a module, at least one; the module's context is active."""

    def decide(self, graph: Graph, context: Context, before: Timeline) -> Plan:
        """Try every candidate; a given `k` wins even over no cut."""
        if min([*self.parts, self.rho]) < 2:
            raise OptionError(self.spec, "a split has at least 2 parts", "give k=2 or more")
        if context.module is None:
            raise PlanError(self.spec, "only StableHLO can be cut, not a schedule",
                            "pass the module before XLA: lower(...).as_text()")  # fmt: skip
        with context.module.ir.context:
            found = list(self.candidates(context.module, graph, context))
        plan = self._best(graph, context, before, [c for c in found if c.splits])
        told = next((c for c in found if plan.splits and c.splits == plan.splits), found[0])
        return replace(plan, passes=(self.spec,), refusals=(*plan.refusals, *told.refusals))

    def _best(
        self, graph: Graph, context: Context, before: Timeline, candidates: Sequence[CutVariant]
    ) -> Plan:
        """Return the plan for the candidate that makes the shortest step."""
        search = _Search(self, graph, context, before, before)
        for candidate in candidates:
            search.attempt(candidate)
            if search.is_over:
                break
        return search.plan()


@dataclass
class _Search:
    """The cuts of one kind that were tried, and the best of them.

    Attributes:
        step: the pass.
        graph, context: of the step that is cut.
        before: that step in its best order.
        after: the same, or the best cut of it.
        best, made: that cut, and what it made; None for no cut.
        race: what every cut gives.
        refusals: cuts that lost by memory.
    """

    step: PartsPass
    graph: Graph
    context: Context
    before: Timeline
    after: Timeline
    best: CutVariant | None = None
    made: Module | None = None
    race: dict[str, Prediction] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the step fits into memory uncut."""
        limit = self.step.limit(self.graph, self.context)
        return limit is None or self.before.peak_bytes <= limit

    def attempt(self, variant: CutVariant) -> None:
        """Cut a copy, order and simulate it, and take it if it is the best so far."""
        assert self.context.module is not None
        made = cut_module(self.context.module, variant.splits)
        graph = made.snapshot()
        timeline = ordered_timeline(graph, replace_fields(self.context, memory_limit=None))
        wins, limit = self._wins(timeline), self.step.limit(graph, self.context)
        if wins and limit is not None and timeline.peak_bytes > limit:
            # Orders that fit are dear to make: only for what would win with any.
            timeline = ordered_timeline(graph, self.context)
            wins = self._wins(timeline)
            if wins and timeline.peak_bytes > limit:
                needs, wins = timeline.peak_bytes, False
                self.refusals.append(_too_large(self.graph.name, variant.name, needs, limit))
        self.race[variant.name] = prediction_of(timeline)
        if wins:
            self.best, self.made, self.after = variant, made, timeline

    def _wins(self, timeline: Timeline) -> bool:
        """Whether a cut is better than the best so far; the first one wins where one has to."""
        if self.best is None and (self.step.k is not None or not self.fits):
            return True
        worth = worth_of(self.context) if self.best is None else _MORE
        return timeline.makespan_us < self.after.makespan_us * (1 - worth)

    @property
    def is_over(self) -> bool:
        """Whether more parts are not worth a try."""
        steps_us = [run.step_us for run in self.race.values()]
        if not self.fits and self.best is None:
            return False
        is_longer = len(steps_us) > 1 and steps_us[-1] > steps_us[-2]
        return (self.context.checked and is_longer) or _is_over(steps_us, self.after.makespan_us)

    def plan(self) -> Plan:
        """Return the plan for the best cut."""
        best, context = self.best, self.context
        if best is not None and self.made is not None and context.module is not None:
            keep_cut(context.module, best.splits, self.made)
        return Plan(
            module=context.fingerprint,
            target=context.costs.name,
            strategy=best.name if best else "stock",
            edits=best.splits if best else (),
            race=self.race,
            because=self._because() if best else "",
            refusals=(*self.refusals, *self._no_gain()),
            before=prediction_of(self.before),
            after=prediction_of(self.after),
        )

    def _no_gain(self) -> Iterator[Refusal]:
        """Say that nothing that was tried is worth it, where memory is not the reason."""
        if self.race and self.best is None and not self.refusals:
            gains = min(run.step_us for run in self.race.values()) < self.before.makespan_us
            reason = f"{NO_GAIN} by {_WORTH:.1%}" if gains else NO_GAIN
            yield Refusal(op=self.graph.name, reason=reason)

    def _because(self) -> str:
        """Return why a cut was chosen, where that is not that it is shortest."""
        if self.step.k is not None:
            return ASKED_FOR
        if not self.fits:
            return NO_ROOM
        return CLOSE if self.after.makespan_us > self.before.makespan_us else ""


def worth_of(context: Context) -> float:
    """Return the share by which a cut step has to be predicted shorter than the uncut one."""
    return -_CLOSE if context.checked else _WORTH


def _is_over(steps_us: Sequence[float], best_us: float) -> bool:
    """Whether more parts make a step longer and longer, far from the best of all."""
    last = steps_us[-_LOST:]
    return len(last) == _LOST and last == sorted(last) and last[0] > best_us * (1 + _FAR)


def _too_large(op: str, cut: str, needs: int, limit: int) -> Refusal:
    """Say that a cut loses by memory, and what would lift that."""
    reason = (
        f"{cut} needs {needs / 1e6:,.1f} MB of temporaries (estimated), and {limit / 1e6:,.1f} MB"
        " are allowed: a larger memory-slack, or memory-slack=none, lifts the margin over the"
        " uncut step, and a larger memory_limit the rest"
    )
    return Refusal(op=op, reason=reason)


def _bounded(graph: Graph, context: Context, slack: float) -> Context:
    """Return a context with a limit that lets temporaries grow by a share and no more."""
    buffers = buffers_of(graph)
    stock = buffers.peak(range(len(graph.ops)))
    limit = footprint_of(graph).resident + int(stock * (1 + slack))
    given = context.memory_limit
    return replace_fields(context, memory_limit=limit if given is None else min(limit, given))


def ordered_timeline(graph: Graph, context: Context) -> Timeline:
    """Simulate a step in the best order that a list scheduler finds for it and for its loops."""
    return ordered(graph, context)[1]


def ordered(graph: Graph, context: Context) -> tuple[Simulator, Timeline]:
    """Return the best order that a list scheduler finds for a step and its loops, and its run."""
    graph = without_barriers(graph)
    costs = context.costs.for_graph(graph)
    orders: dict[str, tuple[int, ...]] = {}
    inside_out = reversed({inside.name: inside for inside, _ in graph.walk()}.values())
    room = None if context.checked else context.room(graph)
    found = [
        _ordered(
            Simulator(inside, costs, orders),
            orders,
            room if inside is graph else None,
            is_quick=context.checked,
        )
        for inside in inside_out
    ]
    return found[-1]


def _ordered(
    simulator: Simulator,
    orders: dict[str, tuple[int, ...]],
    limit: int | None = None,
    *,
    is_quick: bool = False,
) -> tuple[Simulator, Timeline]:
    """Enter the order of one computation into `orders`, if a new one is shorter."""
    timeline = simulator.timeline()
    if simulator.problem.exchanges:
        order = list_order(
            simulator.problem, memory_limit=limit, contention=simulator.costs.contention,
            is_quick=is_quick,
        )  # fmt: skip
        listed = simulator.timeline(order)
        too_large = limit is not None and listed.peak_bytes <= limit < timeline.peak_bytes
        if listed.makespan_us < timeline.makespan_us or too_large:
            orders[simulator.graph.name], timeline = order, listed
    return simulator, timeline
