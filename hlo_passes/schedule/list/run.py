"""One pass of list scheduling over a whole step: two lanes, one policy, one order."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

from hlo_passes.schedule.issue import Issuer
from hlo_passes.schedule.list.budget import Budget, Foresight
from hlo_passes.schedule.memory import Ledger, Rest
from hlo_passes.schedule.problem import Lane


@dataclass(frozen=True, slots=True)
class Policy:
    """What the scheduler prefers where it has a choice.

    Attributes:
        sum_weight: how much of a gradient sum's length counts in the priority of what feeds it.
        save: compute that a later urgent exchange could use is kept until only this multiple of
            what those exchanges need is left; 0 keeps nothing.
        sum_delay: a gradient sum may be predicted to delay the next urgent exchange by this share
            of its own length.
        ranked: exchanges go by priority alone, urgent or not.
        staged: what the earliest exchange waits for goes first, as in a pipeline of parts.
        fit: while the compute lane would wait, take the op that fits the wait best, not the first.
    """

    sum_weight: float = 1.0
    save: float = 1.0
    sum_delay: float = 0.0
    ranked: bool = False
    fit: bool = False
    staged: bool = False


def list_schedule(
    facts: Foresight,
    policy: Policy,
    *,
    priority: Sequence[float] | None = None,
    memory_limit: int | None = None,
) -> tuple[int, ...]:
    """Make one order, a decision at a time.

    O((ops + edges) log ops), and one look at the ops held back per urgent exchange.

    Args:
        facts: of the problem.
        policy: what to prefer.
        priority: per op, the higher the sooner; by default what the policy says.
        memory_limit: bytes; ops after which the rest would not fit any more, even in program
            order, are put off. Where program order fits, the order made does too.
    """
    own = facts.by_stage if policy.staged else facts.priority(policy.sum_weight)
    chosen = own if priority is None else priority
    return _ListPass(facts, policy, chosen, memory_limit).run()


_LOOK = 16
"""How far into a queue a choice looks: for a better fit, into memory, a gap or a wait."""


class _ListPass:
    """The state of one pass.

    Queues are sorted lists of (key, op), so that ties go to program order. The key is the negative
    priority; for `waiting` it is the time in us from which the op waits no longer.
    """

    def __init__(
        self,
        facts: Foresight,
        policy: Policy,
        priority: Sequence[float],
        memory_limit: int | None,
    ) -> None:
        problem = facts.problem
        self.facts, self.policy, self.priority = facts, policy, priority
        self.problem, self.us, self.lane_of = problem, problem.us, problem.lane
        self.limit = math.inf if memory_limit is None else memory_limit
        self.issuer = Issuer(problem)
        self.ledger, self.rest = Ledger(problem.buffers), Rest(problem.buffers)
        self.finish = [0.0] * problem.size
        self.compute = 0.0
        self.ends = [0.0] * problem.streams.count
        self.first = self.seen = self.entered = 0
        self.ready: list[tuple[float, int]] = []
        self.kept: list[tuple[float, int]] = []
        self.waiting: list[tuple[float, int]] = []
        self.urgent: list[tuple[float, int]] = []
        self.sums: list[tuple[float, int]] = []
        self.when = [0.0] * problem.size
        self.budget = Budget(facts)

    def run(self) -> tuple[int, ...]:
        """Issue everything."""
        self._absorb()
        while True:
            op = self._next_compute()
            exchange = self._next_exchange(op)
            if exchange is not None:
                self._issue(exchange)
            elif op is not None:
                self._issue(op)
            elif (forced := self._forced()) is not None:
                self._issue(forced)
            else:
                return self.issuer.finish()

    # --- what has become ready

    def _absorb(self) -> None:
        """Sort what has become ready into the queues."""
        opened = self.issuer.opened
        while self.seen < len(opened):
            op = opened[self.seen]
            self.seen += 1
            if self.lane_of[op] is Lane.FREE:
                self.finish[op] = self._ready_us(op)
            else:
                self._queue(op)

    def _queue(self, op: int) -> None:
        if self.lane_of[op] is Lane.EXCHANGE:
            insort(self.urgent if self.problem.urgent[op] else self.sums, (-self.priority[op], op))
        else:
            self._wait_until(self._ready_us(op), op)

    def _wait_until(self, us: float, op: int) -> None:
        self.when[op] = us
        insort(self.waiting, (us, op))

    def _ready_us(self, op: int) -> float:
        finish = self.finish
        return max((finish[p] for p in self.problem.preds[op]), default=0.0)

    def _wake(self) -> None:
        """Move what waits no longer from `waiting` to `ready` or `kept`."""
        while self.waiting and self.waiting[0][0] <= self.compute:
            _, op = self.waiting.pop(0)
            if self.lane_of[op] is Lane.BOTH and self._free(op) > self.compute:
                self._wait_until(self._free(op), op)
            elif self.policy.save and self.facts.wanted[op] & self.budget.pending:
                insort(self.kept, (-self.priority[op], op))
            else:
                insort(self.ready, (-self.priority[op], op))

    # --- what comes next

    def _next_compute(self) -> int | None:
        """Return the op that the compute lane should run now; None if it should wait."""
        self._wake()
        first = self._first_fitting(self.ready)
        kept = self._first_fitting(self.kept)
        if first is None:
            return None if kept is None else self._filler(kept)
        if kept is None or self.us[first] == 0.0:
            return first
        spare = self.budget.spare(self.policy.save) >= self.us[kept]
        return kept if spare and self.priority[kept] > self.priority[first] else first

    def _filler(self, kept: int) -> int:
        """Choose among the ops held back one to run while the compute lane would wait."""
        if not (self.policy.fit and self.waiting):
            return kept
        wait = self.waiting[0][0] - self.compute
        fitting = [op for _, op in self.kept[:_LOOK] if self._fits(op)] or [kept]
        return min(fitting, key=lambda op: (abs(self.us[op] - wait), op))

    def _next_exchange(self, op: int | None) -> int | None:
        """Return the exchange to start before `op` runs; None if there is time to decide later."""
        horizon = self._horizon(op)
        if max(self.compute, min(self.ends)) >= horizon:
            return None
        holds_both = op is not None and self.lane_of[op] is Lane.BOTH
        bar = self.priority[op] if op is not None and holds_both else -math.inf
        for goes, queue in self._queues():
            for _, exchange in queue[:_LOOK]:
                if self.priority[exchange] <= bar:
                    break
                if self._free(exchange) >= horizon:
                    continue
                if (goes or self._in_gap(exchange)) and self._fits(exchange):
                    return exchange
        return None

    def _horizon(self, op: int | None) -> float:
        """Return when there is something to decide again: `op` has run, or an op waits no more."""
        if op is not None:
            return self.compute + self.us[op]
        return self.waiting[0][0] if self.waiting else math.inf

    def _queues(self) -> list[tuple[bool, list[tuple[float, int]]]]:
        """Return (whether it may go in any gap, queue) of the exchanges, first choices first."""
        if self.policy.ranked:
            return [(True, sorted(self.urgent[:_LOOK] + self.sums[:_LOOK]))]
        return [(True, self.urgent), (False, self.sums)]

    def _in_gap(self, exchange: int) -> bool:
        """Whether a sum, started now, is predicted to end before an urgent exchange is ready."""
        ahead = self.budget.next_urgent()
        if ahead is None:
            return True
        us = self.us[exchange]
        begin = max(self.compute, self._free(exchange), self._ready_us(exchange))
        waits_for_lane = self.facts.overlaps.before[ahead] & self.budget.flying
        free = self._free(exchange)
        base = max(self.compute, free) if waits_for_lane else self.compute
        return begin + us * (1 - self.policy.sum_delay) <= base + self.budget.work_before(ahead)

    def _forced(self) -> int | None:
        """Return what to issue if nothing is to be preferred: whoever waits least, of those that
        fit; otherwise what is next in program order, which always does.
        """
        for _, op in self.waiting[:_LOOK]:
            if self._fits(op):
                return op
        for queue in (self.urgent, self.sums):
            for _, op in queue[:_LOOK]:
                if self._fits(op):
                    return op
        return self.first if self.first < self.problem.size else None

    def _fits(self, op: int) -> bool:
        """Whether `op`, with what it drags along, fits now and leaves the rest a way on."""
        if self.limit == math.inf:
            return True
        ops = self.issuer.pulled(op)
        return self.ledger.need(ops) <= self.limit and self.rest.fits(ops, self.first, self.limit)

    def _first_fitting(self, queue: list[tuple[float, int]]) -> int | None:
        """Return the first op of a queue that fits into memory."""
        if not queue or self._fits(queue[0][1]):
            return queue[0][1] if queue else None
        return next((op for _, op in queue[:_LOOK] if self._fits(op)), None)

    # --- what happens then

    def _issue(self, op: int) -> None:
        """Run `op` on its lanes and put what it sets free into the queues."""
        if self.lane_of[op] is not Lane.FREE:
            self._unqueue(op)
            self._occupy(op)
        self.issuer.pull(op)
        if self.limit < math.inf:
            entered = self.issuer.order[self.entered :]
            self.ledger.issue(entered)
            self.rest.issue(entered)
            self.entered = len(self.issuer.order)
        if self.budget.issue(op):
            self._let_go()
        self._advance()
        self._absorb()

    def _occupy(self, op: int) -> None:
        """Keep the lanes of `op` busy while it runs."""
        lane, us = self.lane_of[op], self.us[op]
        begin = max(self._ready_us(op), self.compute)
        if lane is not Lane.COMPUTE:
            begin = max(begin, self._free(op))
        self.finish[op] = begin + us
        if lane is not Lane.EXCHANGE:
            self.compute = begin + us
        if lane is not Lane.COMPUTE:
            self.problem.hold(op, self.ends, begin + us)

    def _free(self, op: int) -> float:
        """Return when the stream of an exchange is free, and all that it must not cross is done."""
        apart = self.problem.streams.apart.get(op, ())
        return max(self.problem.free_us(op, self.ends), *(self.finish[e] for e in apart), 0.0)

    def _unqueue(self, op: int) -> None:
        """Take an op out of the queue that it is in."""
        for queue in (self.ready, self.kept, self.urgent, self.sums, self.waiting):
            key = self.when[op] if queue is self.waiting else -self.priority[op]
            at = bisect_left(queue, (key, op))
            if at < len(queue) and queue[at][1] == op:
                del queue[at]
                return

    def _let_go(self) -> None:
        """Stop holding back what no urgent exchange still to come could use."""
        pending, wanted = self.budget.pending, self.facts.wanted
        for item in [item for item in self.kept if not wanted[item[1]] & pending]:
            self.kept.remove(item)
            insort(self.ready, item)

    def _advance(self) -> None:
        """Move on to the first op in program order that is not issued."""
        while self.first < self.problem.size and self.issuer.has(self.first):
            self.first += 1
