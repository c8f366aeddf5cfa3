"""Cut blocks on several devices beside the same blocks whole: what parts send, compute and answer."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.extend import backend
from jax.sharding import NamedSharding, PartitionSpec
from jaxlib import _jax, xla_client
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.blocks import ragged_exchanges_of
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Split
from hlo_passes.split.dense_ragged import dense_exchange
from hlo_passes.split.dropless_parts import DroplessParts
from hlo_passes.split.module import cut_module
from hlo_passes.split.row_batches import RowBatches

FILES = Path(__file__).parent.parent / "split_region"


def run(module, arguments):
    """Run a module on as many devices as arguments are for: `[devices, ...]` each.

    They are replicas then: of partitions XLA would want to know how everything is sharded.
    """
    text = module.text().replace("partition_id", "replica_id")
    text = text.replace("mhlo.num_partitions", "mhlo.num_replicas")
    channel = r"channel_handle = #stablehlo.channel_handle<[^>]*>,? ?"
    text = re.sub(rf'(stablehlo.all_to_all"[^\n]*?){channel}', r"\1", text)
    devices = len(arguments[0])
    mesh = jax.make_mesh((devices,), ("d",), devices=jax.devices()[:devices])
    sharding = NamedSharding(mesh, PartitionSpec("d"))
    options = xla_client.CompileOptions()
    options.num_replicas = options.executable_build_options.num_replicas = devices
    options.executable_build_options.device_assignment = xla_client.DeviceAssignment.create(
        np.arange(devices)[:, None]
    )
    local = _jax.DeviceList(tuple(jax.devices()[:devices]))
    executable = backend.get_backend().compile_and_load(text.encode(), local, options)
    placed = [jax.device_put(np.concatenate(list(each)), sharding) for each in arguments]
    came = executable.execute_sharded(placed).disassemble_into_single_device_arrays()
    return [np.stack([np.asarray(shard) for shard in shards]) for shards in came]


def without_ragged(module):
    """Return a copy whose ragged exchanges are dense ones."""
    copy = module.copy()
    with copy.ir.context:
        body = Body(copy.body)
        for place in ragged_exchanges_of(body):
            op = body.ops[place]
            with ir.InsertionPoint(op), op.location:
                made = dense_exchange(op, list(op.operands), [range(module.devices)])
            op.results[0].replace_all_uses_with(made)
            op.erase()
    return copy


def cut(module, k, monkeypatch, cls):
    """Cut a module's entry, and see that a class built some of it."""
    built = []
    name = {RowBatches: "run", DroplessParts: "build"}[cls]
    original = getattr(cls, name)
    monkeypatch.setattr(cls, name, lambda self, *a: (built.append(self), original(self, *a))[1])
    last = len(Body(module.body).ops) - 1
    made = cut_module(
        module, [Split(by="split-region", block="main", first=0, last=last, k=k, ragged=False)]
    )
    assert built
    return made


TEXT = """
module @m attributes {mhlo.num_partitions = 2 : i32} {
  func.func public @main(%rows: tensor<3x1xf32>, %into: tensor<4x1xf32>, %b: tensor<2xi32>, %s: tensor<2xi32>, %o: tensor<2xi32>, %r: tensor<2xi32>) -> tensor<4x1xf32> {
    %0 = stablehlo.custom_call @ragged_all_to_all(%rows, %into, %b, %s, %o, %r) {api_version = 4 : i32, backend_config = {channel_id = 1 : i64, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}} : (tensor<3x1xf32>, tensor<4x1xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<4x1xf32>
    return %0 : tensor<4x1xf32>
  }
}
"""


def test_a_dense_exchange_brings_rows_where_senders_say():
    rows = np.array([[[1], [2], [3]], [[4], [5], [6]]], np.float32)
    into = np.full((2, 4, 1), -1, np.float32)
    begin, size = np.array([[0, 1], [2, 0]], np.int32), np.array([[1, 2], [1, 2]], np.int32)
    # Device 0 keeps row 1 and sends 2, 3; device 1 sends 6 to device 0 and keeps 4, 5.
    to, received = np.array([[3, 0], [0, 2]], np.int32), np.array([[1, 1], [2, 2]], np.int32)
    module = without_ragged(Module.parse(TEXT))
    (came,) = run(module, [rows, into, begin, size, to, received])
    np.testing.assert_array_equal(came[:, :, 0], [[6, -1, -1, 1], [2, 3, 4, 5]])


@pytest.mark.parametrize("k", [2, 4])
def test_windows_of_parts_are_the_whole_experts(k, monkeypatch):
    module = Module.parse((FILES / "windows.mlir").read_text())
    random = np.random.default_rng(k)
    x = random.normal(size=(8, 64, 32)).astype(np.float32)
    w = random.normal(size=(8, 2, 32, 32)).astype(np.float32)
    # Every device fills all its rows but a few, which go beyond the buffer.
    order = np.stack([random.permutation(64) for _ in range(8)])
    at = np.stack([order // 4, order % 4], -1).astype(np.int32)
    at[:, ::9] = 99
    want = run(module, [x, w, at])
    got = run(cut(module, k, monkeypatch, RowBatches), [x, w, at])
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(a).max())


def test_parts_of_a_dropless_layer_answer_as_the_whole(monkeypatch):
    module = Module.parse((FILES / "dropless.mlir").read_text())
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 8, 4)).astype(np.float32)
    w = random.normal(size=(2, 4, 4)).astype(np.float32)
    r = np.repeat(random.normal(size=(1, 4, 2)), 2, 0).astype(np.float32)
    (want,) = run(without_ragged(module), [x, w, r])
    (got,) = run(cut(module, 2, monkeypatch, DroplessParts), [x, w, r])
    np.testing.assert_allclose(want, got, atol=2e-6)
    assert np.abs(want).max() > 0.1
