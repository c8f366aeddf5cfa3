"""Reasons are true: every one that is printed is held against paths, times and another plan."""

import random
import re
from dataclasses import replace
from functools import cached_property

import pytest

from hlo_passes.base import Context
from hlo_passes.cost.model import Cost, CostSource
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.ir.types import TensorType
from hlo_passes.schedule.problem import Lane
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule_dw import ScheduleDw
from lancet_jax.report.inspection import inspection_of
from lancet_jax.report.inspection_text import why_bare
from tests.problems import backward_like, step_like, unstructured

LEAST = 0.01
_MEMORY = re.compile(
    r"no room in memory: with ([\d.,]+) MB more \((.*)\) ([\d,]+) us of the step's exchanges stay"
    r" exposed, not ([\d,]+)"
)


class Given:
    """A cost model whose prices stand in the graph."""

    name, decide_us = "test", 0.0

    def __init__(self, contention=0.0):
        self.contention = contention

    def for_graph(self, graph):
        return self

    def compute(self, op):
        return Cost(op.flops, CostSource.GIVEN)

    def exchange(self, collective, fraction=1.0):
        return Cost(collective.us, CostSource.GIVEN)


def graph_of(problem, rng, effects=0.0):
    """A graph with the lanes, lengths and paths of a problem; some paths are none of data."""
    ops, values, ordered = [], [], []
    for i, (lane, us) in enumerate(zip(problem.lane, problem.us, strict=True)):
        preds = problem.preds[i]
        start = next((p for p in preds if problem.lane[p] is Lane.EXCHANGE), -1)
        is_done = lane is Lane.COMPUTE and us == 0.0 and start >= 0
        kind, talk = {Lane.FREE: "bitcast"}.get(lane, "add"), None
        if lane in (Lane.EXCHANGE, Lane.BOTH):
            what = "all_to_all" if problem.urgent[i] else "all_reduce"
            kind, talk = f"{what}_start", Collective(what, (), 1, us=us)
        loose = [
            p for p in preds if rng.random() < effects and not is_done and lane is not Lane.FREE
        ]
        ordered += [(p, i) for p in loose]
        read = tuple(p for p in preds if p not in loose)
        size = sum(problem.buffers.sizes[b] for b in problem.buffers.makes[i]) or 1
        values.append(Value(i, i, (TensorType((size << 18,), "f32"),)))
        ops.append(Op(i, "all_to_all_done" if is_done else kind, f"op{i}", f"op{i}", read, (i,),
                      flops=us, collective=talk, start=start if is_done else -1,
                      blocking=lane is Lane.BOTH))  # fmt: skip
    return Graph("main", tuple(ops), tuple(values), (), tuple(ordered), devices=8)


def paths(graph, by_data=False):
    """Per op, the ops from which a path leads to it; the slow way."""
    before = []
    for op in graph.ops:
        preds = graph.preds[op.id]
        if by_data:
            preds = {*op.operands, *([op.start] if op.is_done else [])}
        before.append({p for pred in preds for p in (pred, *before[pred])})
    return before


def drawn(seed):
    rng = random.Random(seed)
    make = rng.choice([backward_like, unstructured, step_like])
    problem = make(rng, {backward_like: rng.choice([1, 2]), unstructured: 14, step_like: 1}[make])
    schedule = ScheduleDw(
        memory_slack=rng.choice([0.0, 0.02, 0.3, 9.0]),
        strategy="greedy" if make is step_like else rng.choice(["list", "greedy"]),
        moves="forward" if seed % 8 == 7 else "all",
    )
    graph = graph_of(problem, rng, rng.choice([0.0, 0.0, 0.4]))
    costs = Given(rng.choice([0.0, 0.2]))
    stock = Simulator(graph, costs).timeline().peak_bytes
    limit = int(stock * 1.01) if seed % 4 == 3 else None
    return graph, schedule, Context(costs=costs, memory_limit=limit)


class Facts:
    """One planned step, and what stands in the reasons worked out another way."""

    def __init__(self, graph, schedule, context):
        self.graph, self.schedule, self.context = graph, schedule, context
        self.plan = schedule.plan(graph, context)
        simulator = Simulator(graph, context.costs, self.plan.orders)
        self.problem = simulator.problem
        self.timeline = simulator.timeline(self.plan.orders.get("main"))
        self.windows = {w.key: w for w in self.timeline.windows}
        self.ends = {s.op: (s.start_us, s.end_us) for s in self.timeline.slots}
        self.before, self.by_data = paths(graph), paths(graph, by_data=True)

    def works(self, op):
        return self.problem.lane[op] is Lane.COMPUTE and self.problem.us[op] > 0

    def beside(self, exchange, before):
        return [
            op for op in range(self.problem.size)
            if self.works(op) and op not in before[exchange] and exchange not in before[op]
        ]  # fmt: skip

    def us(self, ops):
        return sum(self.problem.us[op] for op in ops)

    def runs_beside(self, op, window):
        begin, end = self.ends[op]
        return begin < window.start_us + window.us and end > window.start_us

    def hold(self, reason, w):
        """Check one reason of one exchange."""
        free = self.beside(w.op, self.before)
        here = [op for op in free if self.runs_beside(op, w)]
        others = [v for v in self.timeline.windows if v.op != w.op]
        elsewhere = [op for op in free if op not in here
                     and any(self.runs_beside(op, v) for v in others)]  # fmt: skip
        tied = [op for op in free if op not in here + elsewhere and any(
            (v.op in self.before[op] and v.start_us >= w.start_us)
            or (op in self.before[v.op] and v.start_us <= w.start_us) for v in others)]  # fmt: skip
        little = LEAST * w.us
        unused = self.us(free) - self.us(here)
        if "only splitting would help" in reason:
            assert unused <= little
            assert self.us(free) < w.us
            assert self.us(self.beside(w.op, self.by_data)) <= self.us(free) + little
            assert ("all other work" in reason) == (not free)
        elif "side effects" in reason:
            assert unused <= little
            assert self.us(self.beside(w.op, self.by_data)) > self.us(free) + little
        elif "hides others" in reason:
            assert self.us(elsewhere) >= unused / 3
        elif "starts later" in reason:
            assert self.us(tied) >= unused / 3
        elif "may not move" in reason:
            assert self.schedule.moves == "forward"
            assert unused > little
        elif "synchronous" in reason:
            assert self.graph.ops[w.op].blocking
        elif found := _MEMORY.search(reason):
            self.hold_memory(found, w)
        else:
            assert "no shorter order" in reason
            assert free
            assert unused <= little or self.us(elsewhere + tied) <= unused * 2 / 3

    @cached_property
    def with_all_room(self):
        """The same step with all the memory that there could be."""
        free = replace(self.context, memory_limit=None)
        return Facts(self.graph, replace(self.schedule, memory_slack=1e6), free)

    def has_room(self, key):
        """Whether more memory would not hide more of an exchange."""
        more, w = self.with_all_room, self.windows[key]
        return (
            more.timeline.exposed_us >= self.timeline.exposed_us * (1 - LEAST)
            or more.windows[key].exposed_us >= w.exposed_us - LEAST * w.us
        )

    def hold_memory(self, found, w):
        """Plan with the room that is named, and see that it gives what is named."""
        schedule, context = self.schedule, self.context
        if slack := re.search(r"memory-slack=([\d.]+)", found[2]):
            schedule = replace(schedule, memory_slack=float(slack[1]))
        if lack := re.search(r"memory_limit with ([\d.,]+) MB more", found[2]):
            lifted = self.context.memory_limit + round(float(lack[1].replace(",", "")) * 1e6)
            context = replace(context, memory_limit=lifted)
        assert slack or lack
        more = Facts(self.graph, schedule, context)
        assert more.timeline.exposed_us == pytest.approx(float(found[3].replace(",", "")), abs=0.6)
        assert self.timeline.exposed_us == pytest.approx(float(found[4].replace(",", "")), abs=0.6)
        assert more.timeline.exposed_us < self.timeline.exposed_us * (1 - LEAST)
        assert more.windows[w.key].exposed_us < w.exposed_us
        grown = more.timeline.peak_bytes - self.timeline.peak_bytes
        assert grown / 1e6 == pytest.approx(float(found[1].replace(",", "")), abs=0.06)


@pytest.mark.parametrize("seed", range(64))
def test_every_reason_is_true(seed):
    facts = Facts(*drawn(seed))
    reasons = {refusal.op: refusal.reason for refusal in facts.plan.refusals}
    exposed = {key for key, w in facts.windows.items() if w.exposed_us > LEAST * w.us}
    if not facts.windows:
        assert list(reasons.values()) == ["no exchange between devices: there is nothing to hide"]
        return
    assert set(reasons) == exposed
    for key in exposed:
        w = facts.windows[key]
        assert reasons[key].startswith("exposed:") == (w.exposed_us > (1 - LEAST) * w.us)
        facts.hold(reasons[key], w)
        assert (
            "no room" in reasons[key]
            or "nothing runs beside" in reasons[key]
            or facts.has_room(key)
        )
    simulator = Simulator(facts.graph, facts.context.costs, facts.plan.orders)
    for exchange in inspection_of("step", simulator).exchanges:
        reason = reasons.get(exchange.op, "")
        if "all other work" in reason:
            assert (exchange.could_hide_us, exchange.fillers) == (0, ())
        elif reason and "side effects" not in reason and not exchange.blocking:
            assert exchange.could_hide_us > 0
            assert exchange.fillers
        if not exchange.blocking:
            free = facts.beside(facts.windows[exchange.op].op, facts.by_data)
            assert exchange.by_data_us == pytest.approx(facts.us(free))
            only_split = "only a split helps" in why_bare(exchange)
            assert only_split == (not free)


@pytest.mark.parametrize(
    ("words", "seed"),
    [
        ("all other work needs the exchange or feeds it", 5),
        ("side effects, control dependencies or a donated buffer", 6),
        ("all work that may run beside it does", 36),
        ("another exchange's turn: the work that could hide it hides others", 8),
        ("another exchange's turn: the work that could hide it needs one", 2),
        ("no room in memory", 1),
        ("memory_limit with", 3),
        ("no shorter order was found", 5),
        ("nothing runs beside it until it is started apart", 12),
    ],
)
def test_every_reason_is_drawn(words, seed):
    """What the test above has to tell apart does occur in it."""
    graph, schedule, context = drawn(seed)
    assert any(words in refusal.reason for refusal in schedule.plan(graph, context).refusals)
