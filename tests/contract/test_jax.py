"""What lancet-jax relies on in JAX and XLA, pinned. A failure here names what has changed."""

import io

import jax
import jax.extend.xla as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src import compiler, xla_bridge
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxlib import _hlo
from jaxlib.mlir import ir

from hlo_passes.ir.hlo.stack_frames import frames_of_ops
from lancet_jax.seams import compiling
from lancet_jax.seams.step_module import copied, mark


def test_the_compile_function_is_where_it_was():
    import inspect

    names = list(inspect.signature(compiler.compile_or_get_cached).parameters)
    assert names[:4] == ["backend", "computation", "devices", "compile_options"]


def test_a_lowering_keeps_module_devices_and_executable_where_they_were():
    lowered = jax.jit(jnp.sin).lower(jnp.ones(3))
    assert isinstance(lowered._lowering._hlo, ir.Module)
    assert lowered._lowering._executable is None
    assert len(lowered._lowering._device_list) == 1


def test_jit_hands_out_its_cached_module():
    """Why a module is copied before it is edited."""
    step = jax.jit(lambda x: x * 3)
    first = step.lower(jnp.ones(3)).compiler_ir()
    assert step.lower(jnp.ones(3)).compiler_ir() == first


def test_user_contexts_are_part_of_the_jit_key():
    context = jax.make_user_context(None)
    traces = []

    @jax.jit
    def f(x):
        traces.append(context.value)
        return x

    f(1.0)
    with context("a"):
        f(1.0)
        f(2.0)
    f(3.0)
    assert traces == [None, "a"]


def test_bytecode_keeps_a_module_and_its_locations():
    module = jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((3, 3))).compiler_ir()
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    with module.context:
        again = ir.Module.parse(buffer.getvalue())
    assert str(again) == str(module)
    assert 'dot_general"' in again.operation.get_asm(enable_debug_info=True)


@pytest.fixture
def seen():
    """Modules that XLA hands to a post-scheduler callback on CPU."""
    found = []
    stage = jex.PipelineStage.POST_SCHEDULER
    jex.register_hlo_module_transformation(
        lambda proto: found.append(proto), name="contract", stage=stage, platforms="cpu"
    )
    yield found
    jex.clear_hlo_module_transformation("contract", stage=stage, platforms="cpu")


def test_the_post_scheduler_stage_hands_out_a_schedule(seen):
    jax.jit(lambda x: jnp.sin(x) @ x + 1).lower(jnp.ones((4, 4))).compile()
    module = _hlo.HloModule.from_serialized_hlo_module_proto(seen[-1])
    assert "is_scheduled=true" in module.to_string()
    module.schedule().verify()


def test_a_module_that_is_handed_back_loses_its_frames():
    """Why `keep_frames` asks XLA for its numbers, in turn with callbacks that are called in order.

    If this fails, XLA has learned to take frames along, and `keep_frames` may go.
    """
    called, stage = [], jex.PipelineStage.POST_SCHEDULER

    def f(x):
        y = jnp.sin(x)
        unused = y * 3
        return jnp.cos(y) @ x, unused[:0]

    def hand_back(name):
        def callback(proto):
            called.append((name, frames_of_ops(proto)))
            return proto

        return callback

    for name in ("first", "second"):
        jex.register_hlo_module_transformation(
            hand_back(name), name=name, stage=stage, platforms="cpu"
        )
    try:
        jax.jit(f).lower(jnp.ones((4, 4))).compile()
    finally:
        for name in ("first", "second"):
            jex.clear_hlo_module_transformation(name, stage=stage, platforms="cpu")
    (_, before), (_, after) = called[-2:]
    assert [name for name, _ in called[-2:]] == ["first", "second"]
    assert before.keys() == after.keys()
    assert before != after


def test_module_attributes_reach_the_post_scheduler_stage(seen):
    class Marker(compiling.Rewriter):
        def compile(self, request, xla):
            clone = copied(request.module)
            mark(clone, "contract-salt")
            return xla.compile(clone)

    with compiling.rewriting(Marker()):
        jax.jit(lambda x: x - 5).lower(jnp.ones(4)).compile()
    assert b"contract-salt" in seen[-1]


def test_shard_map_lowers_to_one_manual_region_with_explicit_exchanges():
    mesh = Mesh(np.array(jax.devices()), ("ep",))
    step = jax.shard_map(
        lambda x: lax.all_to_all(x, "ep", 0, 0, tiled=True), mesh=mesh, in_specs=P("ep"),
        out_specs=P("ep"),
    )  # fmt: skip
    text = jax.jit(step).lower(jnp.ones((64, 2))).as_text()
    assert text.count("sdy.manual_computation") == 1
    assert text.count("stablehlo.all_to_all") == 1


def test_mlirs_own_inliner_does_nothing():
    """Why `edit.inline_calls` does it; if this fails, MLIR's pass can take over."""
    from jaxlib.mlir.passmanager import PassManager

    outer = jax.jit(lambda x: jax.jit(jnp.sinc)(x) + 1)
    module = copied(outer.lower(jnp.ones(3)).compiler_ir())
    assert "call @" in str(module)
    with module.context:
        PassManager.parse("builtin.module(inline)").run(module.operation)
    assert "call @" in str(module)


def test_plugins_register_topologies_by_name():
    assert isinstance(xla_bridge._topology_factories, dict)
