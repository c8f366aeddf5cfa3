"""Fusion on hand-made graphs: which op is charged, and for which bytes."""

import time

import pytest

from hlo_passes.cost.fusion import fused_bytes, fused_work, is_fused
from hlo_passes.ir.collectives import Collective
from tests.hlo_passes.cost.graphs import GraphBuilder

N = 1000
KB = 4.0 * N
"""Bytes of the f32 vectors below."""


def test_a_chain_is_charged_at_its_end():
    g = GraphBuilder()
    x, y = g.argument(N), g.argument(N)
    a = g.op("multiply", [x, y], [N])
    b = g.op("tanh", [a], [N])
    c = g.op("add", [b, y], [N])
    work = fused_work(g.build(c))
    assert [w.bytes for w in work] == [0, 0, 3 * KB]
    assert [w.flops for w in work] == [0, 0, 3 * N]


def test_a_returned_value_is_written():
    g = GraphBuilder()
    x = g.argument(N)
    a = g.op("tanh", [x], [N])
    b = g.op("negate", [a], [N])
    assert fused_bytes(g.build(b, a)) == (2 * KB, 2 * KB)


def test_a_value_that_a_product_or_an_exchange_reads_is_written():
    g = GraphBuilder()
    x, w = g.argument(10, 100), g.argument(100, 100)
    a = g.op("tanh", [x], [10, 100])
    b = g.op("dot_general", [a, w], [10, 100], matmul=True)
    c = g.op("negate", [b], [10, 100])
    everybody = Collective("all_to_all", (), 4000)
    d = g.op("all_to_all", [c], [10, 100], bytes=0.0, flops=0.0, collective=everybody)
    dot = 2 * KB + 40_000
    assert fused_bytes(g.build(d)) == (2 * KB, dot, 2 * KB, 0)
    assert fused_work(g.build(d))[1].matmul


def test_a_reduction_takes_its_operand_in_and_ends_the_kernel():
    g = GraphBuilder()
    x = g.argument(10, 100)
    a = g.op("multiply", [x, x], [10, 100])
    s = g.op("reduce", [a], [10])
    out = g.op("rsqrt", [s], [10])
    # x is read once although it is an operand twice.
    assert fused_bytes(g.build(out)) == (0, KB + 40, 80)


def test_several_readers_compute_it_again_if_that_moves_less():
    g = GraphBuilder()
    x = g.argument(N)
    a = g.op("tanh", [x], [N])
    b, c = g.op("negate", [a], [N]), g.op("abs", [a], [N])
    assert fused_bytes(g.build(b, c)) == (0, 2 * KB, 2 * KB)


def test_several_readers_share_what_would_be_dear_to_compute_again():
    g = GraphBuilder()
    inputs = [g.argument(N) for _ in range(4)]
    a = inputs[0]
    for other in inputs[1:]:
        a = g.op("add", [a, other], [N])
    b, c = g.op("negate", [a], [N]), g.op("abs", [a], [N])
    # 4 inputs for each of two readers are more than one write and two reads.
    assert fused_bytes(g.build(b, c)) == (0, 0, 5 * KB, 2 * KB, 2 * KB)


def test_one_reader_that_cannot_makes_it_written_for_all():
    g = GraphBuilder()
    x, w = g.argument(10, 100), g.argument(100, 100)
    a = g.op("tanh", [x], [10, 100])
    b = g.op("negate", [a], [10, 100])
    d = g.op("dot_general", [a, w], [10, 100], matmul=True)
    assert fused_bytes(g.build(b, d))[:2] == (2 * KB, 2 * KB)


def test_reshapes_cost_nothing_and_hide_nothing():
    g = GraphBuilder()
    x, w = g.argument(10, 100), g.argument(100, 100)
    a = g.op("tanh", [x], [10, 100])
    r = g.op("reshape", [a], [N])
    b = g.op("negate", [r], [N])
    assert fused_bytes(g.build(b)) == (0, 0, 2 * KB)
    flat = g.op("reshape", [b], [10, 100])
    d = g.op("dot_general", [flat, w], [10, 100], matmul=True)
    assert fused_bytes(g.build(d))[:4] == (0, 0, 2 * KB, 0)


def test_transposes_beside_products_are_folded_in_and_others_are_not():
    g = GraphBuilder()
    x, w = g.argument(10, 100), g.argument(100, 100)
    before = g.op("transpose", [w], [100, 100])
    d = g.op("dot_general", [x, before], [10, 100], matmul=True)
    after = g.op("transpose", [d], [100, 10])
    plain = g.op("transpose", [x], [100, 10])
    assert fused_bytes(g.build(after, plain)) == (0, 2 * KB + 40_000, 0, 2 * KB)


def test_a_broadcast_is_written_only_where_it_is_read_from_memory():
    g = GraphBuilder()
    bias, x, w = g.argument(100), g.argument(10, 100), g.argument(100, 100)
    spread = g.op("broadcast_in_dim", [bias], [10, 100])
    a = g.op("add", [spread, x], [10, 100])
    ones = g.op("broadcast_in_dim", [bias], [10, 100])
    d = g.op("dot_general", [ones, w], [10, 100], matmul=True)
    assert fused_bytes(g.build(a, d))[:3] == (0, 400 + 2 * KB, 400 + KB)


def test_a_slice_needs_a_share_of_what_it_is_cut_from():
    g = GraphBuilder()
    x = g.argument(N)
    a = g.op("tanh", [x], [N])
    first = g.op("slice", [a], [N // 4])
    work = fused_work(g.build(first))
    assert [w.bytes for w in work] == [0, KB / 2]
    assert work[1].flops == N / 4


def test_updates_are_made_in_place():
    g = GraphBuilder()
    cache, x, at = g.argument(N), g.argument(10), g.argument(1, dtype="i32")
    a = g.op("tanh", [x], [10])
    u = g.op("dynamic_update_slice", [cache, a, at], [N])
    assert fused_bytes(g.build(u)) == (0, 40 + 4 + 40)
    rows = g.op("scatter", [u, at, a], [N])
    # It reads indices and updates (x again), and reads and writes the rows that it adds to.
    assert fused_bytes(g.build(rows))[2] == 4 + 40 + 80


def test_a_table_that_is_gathered_from_is_in_memory():
    g = GraphBuilder()
    table, at = g.argument(N), g.argument(10, dtype="i32")
    a = g.op("tanh", [table], [N])
    rows = g.op("gather", [a, at], [10])
    out = g.op("negate", [rows], [10])
    assert fused_bytes(g.build(out)) == (2 * KB, 0, 40 + 40 + 40)


def test_what_cannot_fuse_keeps_its_own_figures():
    g = GraphBuilder()
    x = g.argument(N)
    s = g.op("sort", [x], [N])
    c = g.op("custom_call", [s], [N], bytes=123.0)
    assert fused_bytes(g.build(c)) == (2 * KB, 123)


def test_dead_ops_cost_nothing():
    g = GraphBuilder()
    x = g.argument(N)
    g.op("tanh", [x], [N])
    kept = g.op("negate", [x], [N])
    assert fused_bytes(g.build(kept)) == (0, 2 * KB)


def test_fused_traffic_is_never_more_than_unfused():
    g = GraphBuilder()
    x = g.argument(64, 64)
    values = [x]
    for i in range(60):
        kind = ("add", "tanh", "multiply", "negate")[i % 4]
        operands = [values[-1], values[i // 2]][: 1 + (i % 4 in (0, 2))]
        values.append(g.op(kind, operands, [64, 64]))
    graph = g.build(values[-1])
    assert sum(fused_bytes(graph)) < 0.7 * sum(op.bytes for op in graph.ops)


@pytest.mark.parametrize("count", [4000])
def test_long_chains_and_wide_fans_stay_quick(count):
    g = GraphBuilder()
    chain = x = g.argument(N)
    for _ in range(count):
        chain = g.op("add", [chain, chain], [N])
    fan = [g.op("add", [chain, x], [N]) for _ in range(count)]
    graph = g.build(*fan)
    started = time.process_time()
    fused_work(graph)
    assert time.process_time() - started < 5


def test_what_xla_made_is_recognised():
    g = GraphBuilder()
    x = g.argument(N)
    g.op("add", [x, x], [N])
    assert not is_fused(g.build())
    assert is_fused(g.build(scheduled=True))
    g.op("fusion", [x], [N])
    assert is_fused(g.build())
