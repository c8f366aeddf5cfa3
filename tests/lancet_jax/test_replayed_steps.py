"""Replays against plain jit: two processes' worth of players, here in two threads."""

import dataclasses
import socket
import threading
import time

import jax
import numpy as np
import pytest

from hlo_passes.base import Job
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import InputError
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import parse_pipeline
from lancet_jax import nn
from lancet_jax.replay import Echo, PeerError, Player, Score, SocketLink, predict, score_of
from lancet_jax.replay.score import Launch, Segment, Wait
from tests.lancet_jax.test_split import BOUND, distance

RANKS = 2


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def step_of(gate="switch", capacity_factor=1.0):
    config = dataclasses.replace(nn.preset("tiny"), gate=gate, capacity_factor=capacity_factor)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:RANKS]), ("expert",))
    optimizer = nn.sgd_momentum()
    state = nn.init_state(config, mesh, optimizer, 0)
    shape = nn.batch_shape(config, mesh)
    tokens = next(iter(nn.batches(nn.sample_text(), *shape, 0)))
    return jax.jit(nn.make_train_step(config, mesh, optimizer)), (state, tokens)


def module_of(step, arguments, pipeline):
    module = Module.copy_of(step.lower(*arguments).compiler_ir())
    costs = TargetCosts(parse_target(f"cpu:1x{RANKS}"))
    return parse_pipeline(pipeline).run(module, Job(costs=costs, ragged=True))[0]


def shards_of(lowered, arguments, rank):
    """Return one process's shards of a step's arguments, on the first device."""
    shardings = jax.tree.leaves(lowered.compile().input_shardings)
    leaves = jax.tree.leaves(arguments)
    placed = [jax.device_put(x, s) for x, s in zip(leaves, shardings, strict=True)]
    here = jax.devices()[0]
    return [jax.device_put(x.addressable_shards[rank].data, here) for x in placed]


def play(scores, inputs, ports):
    """Run one player a rank, each in a thread, and return their outputs or errors."""
    found = {}

    def run(rank):
        link = SocketLink(rank, RANKS, ports, timeout_s=20)
        try:
            link.connect()
            found[rank] = Player(scores[rank], link).run(inputs[rank])[0]
        except Exception as error:
            found[rank] = error
        finally:
            link.close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in scores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize(
    ("gate", "pipeline"),
    [
        ("switch", "off"),
        ("switch", "split-region{k=2},schedule-dw"),
        ("top_k", "split-exchange{k=2},schedule-dw"),
    ],
)
def test_a_replayed_step_gives_what_jit_gives(gate, pipeline):
    step, arguments = step_of(gate)
    lowered = step.lower(*arguments)
    score = score_of(module_of(step, arguments, pipeline))
    inputs = [shards_of(lowered, arguments, rank) for rank in range(RANKS)]
    got = play(dict.fromkeys(range(RANKS), score), inputs, free_ports(RANKS))
    expected = jax.tree.leaves(step(*arguments))
    for rank in range(RANKS):
        mine = [x.addressable_shards[rank].data for x in expected]
        assert not isinstance(got[rank], Exception), got[rank]
        assert distance(mine, got[rank]) <= BOUND


def test_alone_a_replay_gives_results_of_the_right_shape():
    step, arguments = step_of()
    score = score_of(module_of(step, arguments, "split-region{k=2},schedule-dw"))
    outputs, times = Player(score, Echo(0, RANKS)).run(
        shards_of(step.lower(*arguments), arguments, 0)
    )
    expected = [x.addressable_shards[0].data.shape for x in jax.tree.leaves(step(*arguments))]
    assert [x.shape for x in outputs] == expected
    assert 0 < times.compute <= times.step
    assert len(times.exchanges) == len(times.waits) == len(score.exchanges)
    assert len(times.segments) == sum(isinstance(step, Segment) for step in score.steps)


def test_an_absent_process_ends_the_replay_and_is_named():
    step, arguments = step_of()
    score = score_of(module_of(step, arguments, "off"))
    link = SocketLink(0, RANKS, free_ports(RANKS), timeout_s=0.5)
    with pytest.raises(PeerError, match="process 1 .* never came"):
        link.connect()
    assert score.exchanges


@pytest.fixture
def pair():
    """Two connected links."""
    ports = free_ports(RANKS)
    links = [SocketLink(rank, RANKS, ports, timeout_s=0.5) for rank in range(RANKS)]
    threads = [threading.Thread(target=link.connect) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield links
    for link in links:
        link.close()


def test_a_process_that_dies_ends_the_replay_and_is_named(pair):
    pair[1].close()
    with pytest.raises(PeerError, match="process 1 "):
        pair[0].swap({1: memoryview(bytes(1 << 24))})


def test_a_silent_process_ends_the_replay_in_time(pair):
    with pytest.raises(PeerError, match="was silent for"):
        pair[0].swap({1: memoryview(b"hello")})


def test_exchanges_among_some_devices_are_refused():
    text = """
    func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = "stablehlo.all_to_all"(%x) <{concat_dimension = 0 : i64, split_dimension = 0 : i64,
        replica_groups = dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>, split_count = 2 : i64}>
        : (tensor<4x8xf32>) -> tensor<4x8xf32>
      return %y : tensor<4x8xf32>
    }"""
    with pytest.raises(InputError, match="among some devices"):
        score_of(Module.parse(text))


def test_a_predicted_step_waits_where_its_score_waits():
    compute, send = Segment((), (), (), 0), Launch("all_reduce", (), ())
    hidden = Score((), (), (compute, send, compute, Wait(0), compute), ())
    assert predict(hidden, [1, 2, 3], [1.5]) == 1 + 2 + 3
    assert predict(hidden, [1, 2, 3], [5]) == 1 + 5 + 3
    assert predict(hidden, [1, 2, 3], [5], handling=0.5) == 1 + 5 + 0.5 + 3
    assert predict(hidden, [1, 2, 3], [1], contention=0.5) == 1 + 2 + 0.5 + 3
    in_turn = Score((), (), (send, send, Wait(1), compute, Wait(0)), ())
    assert predict(in_turn, [1], [2, 3]) == 6


FOLDED = """
module @step attributes {mhlo.num_partitions = 2 : i32} {
  func.func @main(%x: tensor<2x4xf32>, %s: tensor<f32>) -> (tensor<8xf32>, tensor<8xf32>) {
    %b = stablehlo.broadcast_in_dim %s, dims = [] : (tensor<f32>) -> tensor<8xf32>
    %u = stablehlo.add %b, %b : tensor<8xf32>
    %y = "stablehlo.all_to_all"(%x) <{concat_dimension = 0 : i64, split_dimension = 0 : i64,
      replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, split_count = 2 : i64}>
      : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %r = stablehlo.reshape %y : (tensor<2x4xf32>) -> tensor<8xf32>
    %h:2 = stablehlo.optimization_barrier %u, %r : tensor<8xf32>, tensor<8xf32>
    %v = stablehlo.multiply %h#0, %b : tensor<8xf32>
    %w = stablehlo.add %h#1, %v : tensor<8xf32>
    return %v, %w : tensor<8xf32>, tensor<8xf32>
  }
}"""


def test_what_xla_folds_into_its_readers_neither_waits_nor_is_written_to_memory():
    score = score_of(Module.parse(FOLDED))
    before, _, beside, _, after = score.steps
    kinds = [type(step) for step in score.steps]
    assert kinds == [Segment, Launch, Segment, Wait, Segment]
    _, scalar = score.inputs
    assert before.inputs == (scalar,)
    assert beside.inputs == (*before.outputs, scalar)
    assert (len(before.outputs), len(beside.outputs)) == (1, 1)
    assert beside.outputs[0] in after.inputs
    x, s = np.arange(8, dtype=np.float32).reshape(2, 4), np.float32(3)
    v, w = Player(score, Echo(0, RANKS)).run([jax.device_put(x), jax.device_put(s)])[0]
    np.testing.assert_array_equal(v, np.full(8, 18))
    np.testing.assert_array_equal(w, 18 + x.reshape(-1))


def test_a_late_process_makes_a_paced_exchange_end_late(pair):
    rate, late, data = 1e6, 0.05, bytes(50_000)
    ended = {}

    def run(rank):
        link = pair[rank]
        link.bytes_per_s = rate
        since = time.perf_counter()
        link.swap({1 - rank: memoryview(data)})
        link.settle(since)
        ended[rank] = time.perf_counter()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(RANKS)]
    began = time.perf_counter()
    threads[0].start()
    time.sleep(late)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert min(ended.values()) >= began + late + len(data) / rate
