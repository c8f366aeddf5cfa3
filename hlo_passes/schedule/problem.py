"""A graph reduced to what scheduling needs: lanes, durations, precedence, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise

from hlo_passes.cost.model import CostModel, CostSource
from hlo_passes.facts.liveness import Buffers, buffers_of
from hlo_passes.ir.graph import Graph, Op, successors
from hlo_passes.schedule.streams import ONE, Streams, streams_of


class Lane(IntEnum):
    """Which resource an op holds while it runs."""

    FREE = 0
    COMPUTE = 1
    EXCHANGE = 2
    BOTH = 3


@dataclass(frozen=True)
class Problem:
    """What has to be ordered.

    An order is executed as a GPU does it: the host issues ops in that order; compute ops run one
    after another; an exchange runs on its own lane, not before anything issued earlier on the
    compute lane has finished, one exchange of a stream at a time, in order of issue (there is one
    stream, as a rule; see `Streams`). An op starts when its
    predecessors have finished. The done half of an exchange is a compute op of no length: it
    makes the compute lane wait.

    Attributes:
        lane: per op.
        us: per op, time that it holds its lane.
        preds: per op, ops that must be issued, and have finished, before it.
        urgent: per op, whether it is an exchange that more work waits for; gradient sums are not.
        buffers: memory per op.
        sources: per op, where `us` comes from.
        blocking: exchanges on both lanes: nothing runs beside them whatever the order.
        room: bytes of temporary memory that there are; None for no limit.
        uncut_bytes: temporary memory of the same step uncut; 0 if that is not known.
        streams: of the exchanges.
        slack_us: of ops with exchanges inside, how long the exchange lane may stay busy after they
            begin without making them longer: their first exchange is not due before.
    """

    lane: tuple[Lane, ...]
    us: tuple[float, ...]
    preds: tuple[tuple[int, ...], ...]
    urgent: tuple[bool, ...]
    buffers: Buffers
    sources: tuple[str, ...]
    blocking: frozenset[int] = frozenset()
    room: int | None = None
    uncut_bytes: int = 0
    streams: Streams = ONE
    slack_us: Mapping[int, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of ops."""
        return len(self.lane)

    @cached_property
    def succs(self) -> tuple[tuple[int, ...], ...]:
        """Per op, ops that wait for it, ascending."""
        return successors(self.preds)

    @cached_property
    def tail_us(self) -> tuple[float, ...]:
        """Per op, the longest path from its start to the end of the step, exchanges included."""
        tail = [0.0] * self.size
        for op in reversed(range(self.size)):
            tail[op] = self.us[op] + max((tail[s] for s in self.succs[op]), default=0.0)
        return tuple(tail)

    @cached_property
    def head_us(self) -> tuple[float, ...]:
        """Per op, the longest path from the begin of the step to its start."""
        head = [0.0] * self.size
        for op in range(self.size):
            head[op] = max((head[p] + self.us[p] for p in self.preds[op]), default=0.0)
        return tuple(head)

    @cached_property
    def exchanges(self) -> tuple[int, ...]:
        """Ops on the exchange lane, in program order."""
        return tuple(op for op in range(self.size) if self.lane[op] is Lane.EXCHANGE)

    @cached_property
    def compute_us(self) -> float:
        """Time that the compute lane works, whatever the order; blocking exchanges are none."""
        return sum(
            us
            for op, (us, lane) in enumerate(zip(self.us, self.lane, strict=True))
            if lane in (Lane.COMPUTE, Lane.BOTH) and op not in self.blocking
        )

    def covers_us(self, op: int) -> float:
        """Return how much of an exchange in flight an op can hide: all of it, or its slack."""
        if self.lane[op] is Lane.COMPUTE:
            return self.us[op]
        return min(self.us[op], self.slack_us.get(op, 0.0))

    def free_us(self, op: int, ends: Sequence[float]) -> float:
        """Return when the stream of an exchange is free, given when each stream is."""
        own = self.streams.of.get(op, 0)
        return (ends[own] if own >= 0 else max(ends)) - self.slack_us.get(op, 0.0)

    def hold(self, op: int, ends: list[float], until: float) -> None:
        """Enter that an exchange holds its stream, or all of them, until then.

        Args:
            op: the exchange.
            ends: when each stream is free; changed here.
            until: us from the begin of the step.
        """
        own = self.streams.of.get(op, 0)
        for stream in range(len(ends)) if own < 0 else (own,):
            ends[stream] = until

    def in_a_row(self, ops: Sequence[int] | None = None) -> "Problem":
        """Return the problem in which each of some ops, or of all, waits for the one before it."""
        chain = dict(pairwise(reversed(range(self.size) if ops is None else ops)))
        preds = tuple(
            tuple(sorted({*before, chain[op]})) if op in chain else before
            for op, before in enumerate(self.preds)
        )
        return replace(self, preds=preds)

    def is_order(self, order: Sequence[int]) -> bool:
        """Whether `order` names every op once and keeps every precedence."""
        if sorted(order) != list(range(self.size)):
            return False
        place = {op: i for i, op in enumerate(order)}
        return all(place[p] < place[op] for op in order for p in self.preds[op])


def problem_of(graph: Graph, costs: CostModel, loops: dict[int, float] | None = None) -> Problem:
    """Reduce `graph` to a scheduling problem.

    Args:
        graph: of StableHLO or of HLO.
        costs: prices for the target.
        loops: us of every op with a body of its own, where the caller has worked them out.
    """
    lanes, times, sources = [], [], []
    for op in graph.ops:
        lane, us, source = _price(op, costs, (loops or {}).get(op.id, 0.0))
        lanes.append(lane)
        times.append(float(us))
        sources.append(source)
    return Problem(
        lane=tuple(lanes),
        us=tuple(times),
        preds=graph.preds,
        urgent=_urgent(graph),
        buffers=buffers_of(graph),
        sources=tuple(sources),
        blocking=frozenset(op.id for op in graph.ops if op.collective and op.blocking),
        streams=streams_of(graph),
    )


def _price(op: Op, costs: CostModel, loop_us: float) -> tuple[Lane, float, str]:
    """Return lane, duration and the duration's source."""
    if op.inner:
        talks = any(g.exchanges for inner in op.inner for g, _ in inner.walk())
        return (Lane.BOTH if talks else Lane.COMPUTE), loop_us, CostSource.ROOFLINE
    if op.collective is not None:
        cost = costs.exchange(op.collective)
        return (Lane.BOTH if op.blocking else Lane.EXCHANGE), cost.us, cost.source
    if op.is_done:
        return Lane.COMPUTE, 0.0, CostSource.NONE
    if op.is_free:
        return Lane.FREE, 0.0, CostSource.NONE
    cost = costs.compute(op)
    return Lane.COMPUTE, cost.us, cost.source


def _urgent(graph: Graph) -> tuple[bool, ...]:
    """Mark exchanges that a matrix product, a loop or another exchange waits for."""
    heavy = [False] * len(graph.ops)
    for op in reversed(graph.ops):
        heavy[op.id] = any(
            heavy[s] or graph.ops[s].matmul or graph.ops[s].inner or graph.ops[s].collective
            for s in graph.succs[op.id]
        )
    return tuple(
        op.collective is not None and (heavy[op.id] or not op.collective.reduces)
        for op in graph.ops
    )
