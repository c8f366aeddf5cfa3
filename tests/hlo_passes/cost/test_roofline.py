"""Prices of ops and exchanges: by hand, by source, and by graph."""

import msgspec
import pytest

from hlo_passes.cost.fusion import fused_work
from hlo_passes.cost.links import Topology
from hlo_passes.cost.model import CostModel, CostSource
from hlo_passes.cost.roofline import TargetCosts, xla_exchange_table
from hlo_passes.cost.table import CostTable, ExchangeTimes, OpTime
from hlo_passes.cost.target import Cluster, parse_target
from hlo_passes.errors import OptionError
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.types import TensorType
from hlo_passes.ir.work import moves_lines
from tests.hlo_passes.cost.graphs import GraphBuilder

H100 = parse_target("h100:1x8")
COSTS = TargetCosts(target=H100)
MIB = 2**20


def one_op(kind="add", shape=(2**20,), operands=2, **fields):
    """Return a graph of one op, and the op."""
    g = GraphBuilder()
    arguments = [g.argument(*shape) for _ in range(operands)]
    graph = g.build(g.op(kind, arguments, shape, **fields))
    return graph, graph.ops[0]


def measured(**fields):
    given = {"source": "measured", "target": "h100:1x8", "date": "2026-11-24"}
    return CostTable(**(given | fields))


def a2a(size, groups=(), kind="all_to_all"):
    return Collective(kind, groups, size)


def test_it_is_a_cost_model():
    model: CostModel = COSTS
    assert model.name == "h100:1x8"
    assert model.contention == 0
    assert TargetCosts(target=H100, contention=0.1).contention == 0.1
    with pytest.raises(OptionError, match="below 0"):
        TargetCosts(target=H100, contention=-0.1)


@pytest.mark.parametrize(
    ("fields", "us"),
    [
        # 1e12 operations at 70% of 989.4 TFLOP/s outweigh the bytes.
        ({"flops": 1e12, "bytes": 1e6, "matmul": True, "dtype": "bf16"}, 1e6 / 692.58 + 2),
        ({"flops": 1e12, "bytes": 1e6, "matmul": True, "dtype": "f32"}, 1e6 / 346.29 + 2),
        # 1 GB at 85% of 3352.32 GB/s outweighs the operations.
        ({"flops": 1e6, "bytes": 1e9, "matmul": True, "dtype": "bf16"}, 1e6 / 2849.472 + 2),
        ({"flops": 1e6, "bytes": 1e9, "dtype": "f32"}, 1e6 / 2849.472 + 2),
        ({"flops": 1e12, "bytes": 1e6, "dtype": "bf16"}, 1e6 / 33.45 + 2),
        ({"flops": 0.0, "bytes": 0.0}, 0),
    ],
)
def test_rooflines_by_hand(fields, us):
    _, op = one_op(**fields)
    cost = COSTS.compute(op)
    assert cost.us == pytest.approx(us)
    assert cost.source is CostSource.ROOFLINE


def test_tf32_is_a_choice():
    _, op = one_op(flops=1e12, bytes=1e6, matmul=True, dtype="f32")
    exact = TargetCosts(target=H100, tf32=False).compute(op)
    assert exact.us == pytest.approx(1e6 / (66.9 * 0.7) + 2)


def test_kinds_with_irregular_access_take_longer():
    plain, sort = (COSTS.compute(one_op(kind, bytes=1e9)[1]).us for kind in ("add", "sort"))
    assert sort > 10 * plain


def test_xlas_estimate_wins_unless_it_is_of_another_device():
    _, op = one_op(xla_us=3.5, bytes=1e9)
    assert COSTS.compute(op).us == 3.5
    assert COSTS.compute(op).source is CostSource.XLA
    other = TargetCosts(target=H100, xla_compute=False).compute(op)
    assert other.us == pytest.approx(1e6 / 2849.472 + 2)
    assert other.source is CostSource.ROOFLINE


def test_measured_ops_win_where_the_graph_is_known():
    graph, op = one_op(shape=(8, 4), xla_us=3.5)
    table = measured(ops=(OpTime(kind="add", operands=("f32[8,4]",) * 2, dtype="f32", us=9.0),))
    costs = TargetCosts(target=H100, measured=table)
    assert costs.compute(op).source is CostSource.XLA
    assert (costs.for_graph(graph).compute(op).us, costs.for_graph(graph).compute(op).source) == (
        9.0,
        CostSource.MEASURED,
    )
    _, larger = one_op(shape=(8, 5), xla_us=3.5)
    assert costs.for_graph(graph).compute(larger).us == 3.5


@pytest.mark.parametrize("kind", ["fusion", "custom_call"])
def test_types_do_not_tell_what_a_fusion_does(kind):
    graph, op = one_op(kind, shape=(8, 4))
    table = measured(ops=(OpTime(kind=kind, operands=("f32[8,4]",) * 2, dtype="f32", us=9.0),))
    cost = TargetCosts(target=H100, measured=table).for_graph(graph).compute(op)
    assert cost.source is CostSource.ROOFLINE


def test_a_known_graph_is_charged_after_fusion():
    g = GraphBuilder()
    x = g.argument(2**20)
    a = g.op("tanh", [x], [2**20])
    b = g.op("negate", [a], [2**20])
    graph = g.build(b)
    costs = COSTS.for_graph(graph)
    alone, fused = ([model.compute(op).us for op in graph.ops] for model in (COSTS, costs))
    assert alone[0] == alone[1] > 0
    assert fused[0] == 0
    assert fused[1] == alone[1]
    # The same ops in a schedule of XLA's are what runs.
    scheduled = g.build(b, scheduled=True)
    assert [COSTS.for_graph(scheduled).compute(op).us for op in graph.ops] == alone


def test_loops_inside_a_graph_are_known_too():
    body = GraphBuilder("main/while.0/1")
    x = body.argument(N := 2**20)
    inside = body.build(body.op("negate", [body.op("tanh", [x], [N])], [N]))
    g = GraphBuilder()
    loop = g.op("while", [g.argument(N)], [N], inner=(inside,), trips=3, bytes=0.0, flops=0.0)
    costs = COSTS.for_graph(g.build(loop))
    assert costs.compute(inside.ops[0]).us == 0
    assert costs.compute(inside.ops[1]).us > 0


def test_for_another_graph_it_is_bound_anew():
    one, op = one_op("tanh", operands=1)
    g = GraphBuilder()
    x = g.argument(2**20)
    other = g.build(g.op("abs", [g.op("sine", [x], [2**20])], [2**20]))
    twice = COSTS.for_graph(one).for_graph(other)
    assert twice.compute(other.ops[0]).us == 0
    assert twice.compute(op) == COSTS.compute(op)
    assert twice == COSTS


def test_exchanges_inside_a_node_are_priced_by_xla():
    cost = COSTS.exchange(a2a(16 * MIB))
    assert (round(cost.us), cost.source) == (106, CostSource.XLA)
    assert COSTS.exchange(a2a(16 * MIB), 0.5) == COSTS.exchange(a2a(8 * MIB))
    by_links = TargetCosts(target=H100, xla_exchanges=False).exchange(a2a(16 * MIB))
    assert by_links.source is CostSource.LINK
    assert by_links.us == H100.topology.time_us("all_to_all", 16 * MIB)


def test_nodes_of_a_cluster_are_nodes_and_what_crosses_them_is_not():
    cluster = TargetCosts(target=parse_target("h100:2x8"))
    inside = tuple(tuple(range(i, i + 8)) for i in (0, 8))
    across = tuple((i, i + 8) for i in range(8))
    assert cluster.exchange(a2a(16 * MIB, inside)) == COSTS.exchange(a2a(16 * MIB))
    assert cluster.exchange(a2a(16 * MIB, across)).source is CostSource.LINK
    assert cluster.exchange(a2a(16 * MIB)).source is CostSource.LINK
    assert TargetCosts(target=parse_target("a100")).exchange(a2a(MIB)).source is CostSource.LINK


def test_what_xla_has_no_time_for_is_priced_by_links():
    pairs = Collective("collective_permute", ((0, 1), (1, 0)), MIB)
    odd = a2a(MIB, ((0, 1, 2),))
    assert [COSTS.exchange(c).source for c in (pairs, odd)] == [CostSource.LINK, CostSource.LINK]
    ragged = COSTS.exchange(a2a(16 * MIB, kind="ragged_all_to_all"))
    assert ragged == COSTS.exchange(a2a(16 * MIB))


def test_a_ragged_exchange_is_priced_by_what_it_sends():
    ragged = Collective("ragged_all_to_all", (), 64 * MIB, fill=0.25)
    assert COSTS.exchange(ragged) == COSTS.exchange(a2a(16 * MIB))
    assert COSTS.exchange(ragged, 0.5) == COSTS.exchange(a2a(8 * MIB))
    by_links = TargetCosts(target=parse_target("h100:2x8"))
    assert by_links.exchange(ragged) == by_links.exchange(a2a(16 * MIB))
    nothing = Collective("ragged_all_to_all", (), 64 * MIB, fill=0.0)
    assert COSTS.exchange(nothing).us == 0


def test_a_skewed_exchange_takes_as_long_as_its_busiest_device():
    skewed = Collective("ragged_all_to_all", (), 64 * MIB, fill=0.25, skew=2.0)
    assert COSTS.exchange(skewed) == COSTS.exchange(a2a(32 * MIB))


def test_measured_exchanges_win():
    times = ExchangeTimes(kind="all_to_all", group_size=8, points=((MIB, 10.0), (3 * MIB, 30.0)))
    costs = TargetCosts(target=H100, measured=measured(exchanges=(times,)))
    cost = costs.exchange(a2a(2 * MIB))
    assert (cost.us, cost.source) == (pytest.approx(20), CostSource.MEASURED)
    assert costs.exchange(a2a(MIB, kind="all_reduce")).source is CostSource.XLA
    same = msgspec.structs.replace(costs.measured, source="xla")
    estimate = TargetCosts(target=H100, measured=same).exchange(a2a(2 * MIB))
    assert estimate.source is CostSource.XLA


def test_nothing_to_exchange_costs_nothing():
    assert COSTS.exchange(a2a(MIB), 0.0).us == 0
    assert COSTS.exchange(a2a(MIB, ((0,), (1,)))).us == 0


def test_the_fingerprint_is_of_every_figure_and_of_nothing_else():
    graph, _ = one_op()
    assert TargetCosts(target=parse_target("h100")).fingerprint == COSTS.fingerprint
    assert COSTS.for_graph(graph).fingerprint == COSTS.fingerprint
    slower = msgspec.structs.replace(H100.profile, launch_us=3.0)
    others = [
        TargetCosts(target=parse_target("h100:2x4")),
        TargetCosts(target=Cluster(slower, H100.topology)),
        TargetCosts(target=Cluster(H100.profile, Topology(1, 8, H100.profile.tiers[:1]))),
        TargetCosts(target=H100, tf32=False),
        TargetCosts(target=H100, contention=0.1),
        TargetCosts(target=H100, xla_compute=False),
        TargetCosts(target=H100, xla_exchanges=False),
        TargetCosts(target=H100, measured=measured()),
    ]
    prints = {model.fingerprint for model in [COSTS, *others]}
    assert len(prints) == 1 + len(others)


@pytest.mark.parametrize("device", ["h100", "h200", "b200"])
def test_the_shipped_tables_are_whole_and_not_called_measured(device):
    table = xla_exchange_table(device)
    assert table.cost_source is CostSource.XLA
    assert table.target == f"{device}:1x8"
    assert set(table.versions) == {"jax", "jaxlib", "jax-cuda12-pjrt"}
    kinds = ("all_to_all", "all_reduce", "all_gather", "reduce_scatter")
    assert set(table.curves) == {(kind, size, 1) for kind in kinds for size in (2, 4, 8)}
    for curve in table.curves.values():
        assert [size for size, _ in curve.knots] == [2**k for k in range(16, 30)]
        # Its noise is in small payloads: from 32 MiB on more bytes take longer.
        assert not [size for size in curve.dips() if size > 32 * MIB]


def test_xlas_all_to_all_times_on_8_h100():
    curve = xla_exchange_table("h100").curves["all_to_all", 8, 1]
    times = {size: round(curve.at(size * MIB)) for size in (2, 4, 8, 16, 32, 64, 128)}
    assert times == {2: 25, 4: 37, 8: 71, 16: 106, 32: 133, 64: 219, 128: 413}


def test_other_devices_ship_no_table():
    assert xla_exchange_table("a100") is None


@pytest.mark.parametrize(("width", "share"), [(64, "hbm"), (8, "gather")])
def test_rows_as_wide_as_a_memory_line_are_read_as_fast_as_any(width, share):
    """A row of 64 floats is 256 bytes, one of 8 floats less than the 128 that are read at once."""
    g = GraphBuilder()
    buffer, places = g.argument(2**20, width), g.argument(2**20, dtype="i32")
    graph = g.build(g.op("gather", [buffer, places], (2**20, width)))
    profile, (work,) = H100.profile, fused_work(graph)
    us = work.bytes / (profile.hbm_bytes_per_s * profile.efficiency[share]) * 1e6
    cost = COSTS.for_graph(graph).compute(graph.ops[0])
    assert cost.us == pytest.approx(us + profile.launch_us)


@pytest.mark.parametrize(("width", "moves"), [(64, True), (8, False)])
def test_what_moves_memory_lines(width, moves):
    rows, at = TensorType((1024, width), "f32"), TensorType((1024, 1), "i32")
    buffer = TensorType((2**20, width), "f32")
    assert moves_lines("scatter", (buffer, at, rows), buffer.bytes) is moves
    assert moves_lines("gather", (buffer, at), rows.bytes) is moves
    assert not moves_lines("add", (rows, rows), rows.bytes)
