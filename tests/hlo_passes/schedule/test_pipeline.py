"""What a cut range is predicted to take, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_passes.cost.model import Cost, CostSource
from hlo_passes.cut.spread import States
from hlo_passes.cut.states import Cut, OpSplit
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.ir.types import TensorType
from hlo_passes.layers.capacity.row_paths import RowPath
from hlo_passes.layers.capacity.sites import RowBuffer, Site
from hlo_passes.schedule.paper.pipeline import PartPrices, Unrolled, _greedy, _Node

ROWS = RowBuffer((8,), (0,), (1,), 2, 1)
ALONG = OpSplit((Cut(0),), (Cut(0),))


class Costs:
    """100 us for every product, 60 for an exchange, messages for nothing."""

    name, contention, decide_us = "test:1x2", 0.0, 0.0

    def for_graph(self, graph):
        return self

    def compute(self, op):
        return Cost(100.0 if op.kind == "dot_general" else 0.0, CostSource.NONE)

    def exchange(self, collective, fraction=1.0):
        return Cost(60.0 * fraction if fraction > 0.01 else 0.0, CostSource.NONE)


def chain(*kinds):
    """Return a graph in which every op reads the one before; scatters and gathers index too."""
    tensor = (TensorType((8, 1), "f32"),)
    values = [Value(0, -1, tensor), Value(1, -1, tensor)]
    ops = []
    for i, kind in enumerate(kinds):
        last = len(values) - 1 if i else 0
        operands = {"scatter": (0, 1, last), "gather": (last, 1)}.get(kind, (last,))
        values.append(Value(len(values), i, tensor))
        exchange = Collective("all_to_all", (), 32) if kind == "all_to_all" else None
        ops.append(Op(i, kind, f"%{i}", f"{kind}{i}", operands, (len(values) - 1,),
                      collective=exchange))  # fmt: skip
    return Graph("main", tuple(ops), tuple(values), (len(values) - 1,))


def length(graph, splits, puts=(), fetches=(), k=2, ops=None, launch_us=0.0, paths=()):
    prices = PartPrices(launch_us, 1e30)
    places = ops or range(len(graph.ops))
    return Unrolled(
        graph, places, splits, {s.exchange: s for s in puts}, {s.access: s for s in fetches}, paths,
        k, Costs(), prices,
    ).us()  # fmt: skip


def test_a_dispatch_hides_behind_what_comes_before_it():
    graph = chain("dot_general", "scatter", "all_to_all", "dot_general")
    put = Site(1, 2, (), ROWS, True)
    assert length(graph, {0: ALONG}, [put]) == 230  # 50, 50 | 30, 30 behind the first 50, then 100


def test_a_combine_hides_behind_what_comes_after_it():
    graph = chain("dot_general", "all_to_all", "gather", "dot_general")
    fetch = Site(2, 1, (), ROWS, True)
    assert length(graph, {3: ALONG}, (), [fetch]) == 230  # 100, 30 | 50 beside 30, 50


def test_experts_in_windows_wait_for_their_own_rows_only():
    graph = chain(
        "dot_general", "scatter", "all_to_all", "dot_general", "all_to_all", "gather", "dot_general"
    )
    put, fetch = Site(1, 2, (), ROWS, True), Site(5, 4, (), ROWS, True)
    by_place = States(4096, {3: ALONG}, {}, {})
    path = RowPath(put, fetch, (3,), frozenset({3}), (), (), States(8, {}, {}, {}), by_place,
                   None, frozenset({3}), experts=1, capacity=4096, tokens=32768)  # fmt: skip
    window = 100 * path.batch_rows(16384) / path.rows
    assert 50 < window < 55
    splits = {0: ALONG, 6: ALONG}
    assert length(graph, splits, [put], [fetch]) == 360  # 50, 50, 30 | 100, 30 | 50, 50
    together = length(graph, splits, [put], [fetch], paths=[path])
    assert together == pytest.approx(200 + 2 * window)  # all exchanges hide


def test_more_parts_hide_more():
    graph = chain("dot_general", "scatter", "all_to_all", "dot_general")
    put = Site(1, 2, (), ROWS, True)
    assert length(graph, {0: ALONG}, [put], k=4) == 215


def test_every_part_is_launched():
    graph = chain("dot_general", "dot_general")
    assert length(graph, {0: ALONG, 1: ALONG}, k=4, launch_us=20.0) == pytest.approx(320)


def test_what_is_read_outside_is_joined():
    graph = chain("dot_general", "dot_general")
    inside = Unrolled(graph, range(1), {0: ALONG}, {}, {}, (), 2, Costs(), PartPrices(7.0, 1e30))
    assert inside.us() == pytest.approx(93 + 14 + 7)


def test_a_sum_waits_for_the_part_before_it():
    carried = OpSplit((Cut(0),), (Cut(0),), carries=True)
    graph = chain("dot_general")
    assert length(graph, {0: carried}, k=4) == 100


@st.composite
def _nodes(draw):
    """Nodes that wait for earlier ones."""
    count = draw(st.integers(1, 14))
    return [
        _Node(
            float(draw(st.integers(0, 3))),
            draw(st.booleans()),
            draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else [],
            0,
            draw(st.integers(-1, 2)),
        )
        for i in range(count)
    ]


def _ran_greedily(nodes):
    """Return the end of the last node, by looking at every node that is ready each time."""
    end, free = {}, [0.0, 0.0]
    while len(end) < len(nodes):
        ready = [
            (max([free[node.talks], *(end[p] for p in node.preds)]), node.part, i)
            for i, node in enumerate(nodes)
            if i not in end and all(p in end for p in node.preds)
        ]
        start, _, i = min(ready)
        end[i] = free[nodes[i].talks] = start + nodes[i].us
    return max(end.values())


@given(_nodes())
def test_whatever_is_ready_first_runs_first(nodes):
    assert _greedy(nodes) == _ran_greedily(nodes)
