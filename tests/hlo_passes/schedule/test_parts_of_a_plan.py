"""Windows, streams, orders in the making, timelines and reasons, on steps of a few ops."""

from hlo_passes.cost.model import Cost, CostSource
from hlo_passes.facts.paths import path_between
from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.schedule.decision import Decision, refusals_of
from hlo_passes.schedule.issue import Issuer
from hlo_passes.schedule.overlaps import Overlaps, is_wait
from hlo_passes.schedule.problem import Lane
from hlo_passes.schedule.reasons import Beside, Stop
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.streams import Streams, uncrossed
from hlo_passes.schedule.timeline import Timeline, Window, prediction_of
from tests.problems import Builder


def step():
    """dX -> all-to-all -> next; dW beside it; a gradient sum and its update at the end."""
    b = Builder()
    dx = b.compute(5)
    dw = b.compute(7)
    start = b.exchange(10, dx)
    done = b.done(start)
    after = b.compute(3, done)
    total = b.exchange(4, dw, urgent=False)
    update = b.compute(1, b.done(total))
    return b.problem(), (dx, dw, start, done, after, total, update)


def test_what_has_no_path_may_run_beside():
    problem, (dx, dw, start, done, after, total, update) = step()
    windows = Overlaps.of(problem)
    assert windows.exchanges == (start, total)
    assert [windows.beside(op) for op in (dx, dw, after, update)] == [0b10, 0b01, 0b10, 0b01]
    assert windows.sums == 0b10
    assert windows.late(update)
    assert not windows.late(after)
    assert windows.own(total) == 0b10
    assert is_wait(problem, done)
    assert not is_wait(problem, after)


def test_an_order_in_the_making_stays_legal():
    problem, (dx, dw, start, done, after, *_) = step()
    issuer = Issuer(problem)
    assert issuer.opened == [dx, dw]
    assert issuer.pulled(after) == [dx, start, done, after]
    issuer.pull(start)
    issuer.pull(dw)
    order = issuer.finish()
    assert order[:3] == (dx, start, dw)
    assert sorted(order) == list(range(problem.size))
    assert all(order.index(p) < order.index(op) for op in order for p in problem.preds[op])


def test_what_takes_no_time_and_holds_memory_stands_before_its_reader():
    b = Builder()
    free = b.op(Lane.FREE, 0.0, size=8)
    first, last = b.compute(1), b.compute(1, free)
    issuer = Issuer(b.problem())
    issuer.pull(first)
    issuer.pull(last)
    assert issuer.order == [first, free, last]


def test_what_must_not_be_in_flight_together_is_waited_for():
    """0: start a, 1: start b, 2: wait for a, 3: wait for b; a and b cross."""
    streams = Streams(2, {1: 1}, {0: (1,), 1: (0,)}, {0: 2, 1: 3})
    preds = [(), (), (0,), (1,)]
    assert uncrossed(streams, preds, (0, 1, 2, 3)) == (0, 2, 1, 3)
    assert uncrossed(streams, preds, (1, 0, 3, 2)) == (1, 3, 0, 2)
    assert uncrossed(Streams(), preds, (0, 1, 2, 3)) == (0, 1, 2, 3)


def window(kind: str, us: float, exposed: float, times: int = 1) -> Window:
    return Window(0, kind, kind, kind, 8, 0.0, us, exposed, "given", times)


def test_exposed_time_counts_what_happens_in_every_trip():
    windows = (window("all_to_all", 10, 4, times=3), window("all_reduce", 5, 5))
    timeline = Timeline("predicted", "h100", (), windows, 50.0, 30.0, 7)
    assert (timeline.exchange_us, timeline.exposed_us) == (35, 17)
    assert prediction_of(timeline).exposed_all_to_all_us == 12


def test_a_reason_is_what_most_of_the_unused_work_does():
    def stop(all=0.0, here=0.0, hides=0.0, waits=0.0, data=0.0, free=0.0):
        return Beside(all, here, hides, waits, max(data, all), free or all).stop(10.0)

    assert stop() is Stop.DEPENDENCE
    assert stop(all=4, here=4) is Stop.WORK
    assert stop(data=20) is Stop.EFFECT
    assert stop(all=30, here=5, hides=20, waits=5) is Stop.HIDES
    assert stop(all=30, here=5, hides=5, waits=20) is Stop.WAITS
    assert stop(all=30, here=5, hides=5, waits=5) is Stop.ORDER
    assert stop(all=30, here=5, free=5) is Stop.HELD


def test_the_shortest_path_is_the_evidence():
    reads = [(), (0,), (1,), (0, 2), ()]
    ops = tuple(Op(i, "add", f"op{i}", f"op{i}", read, (i,)) for i, read in enumerate(reads))
    graph = Graph("main", ops, tuple(Value(i, i, ()) for i in range(5)), ordered=((3, 4),))
    assert path_between(graph, 0, 2) == (0, 1, 2)
    assert path_between(graph, 1, 4) == (1, 2, 3, 4)
    assert path_between(graph, 0, 4) == (0, 3, 4)
    assert path_between(graph, 2, 1) == ()


class Given:
    """Prices that stand in the graph."""

    name, decide_us, contention = "test", 0.0, 0.0

    def for_graph(self, graph):
        return self

    def compute(self, op):
        return Cost(op.flops, CostSource.GIVEN)

    def exchange(self, collective, fraction=1.0):
        return Cost(collective.us, CostSource.GIVEN)


def test_a_step_without_exchanges_has_nothing_to_hide():
    ops = tuple(Op(i, "add", f"op{i}", f"op{i}", (), (i,), flops=2.0) for i in range(3))
    graph = Graph("main", ops, tuple(Value(i, i, ()) for i in range(3)))
    made = Decision(graph, {"main": Simulator(graph, Given())}, {}, {}, {"main": 7.0})
    assert (made.bound_us, made.growth, made.timeline.compute_us) == (7.0, 0.0, 6.0)
    (refusal,) = refusals_of(made, lambda slack, more: made, slack=0.0, room=None)
    assert (refusal.op, refusal.reason) == (
        "main",
        "no exchange between devices: there is nothing to hide",
    )
