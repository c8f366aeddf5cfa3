"""What partitioning first relies on in XLA, pinned. A failure here names what has changed."""

import jax
import jax.extend.xla as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.mlir import hlo_to_stablehlo
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxlib import _hlo, _jax
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.module import make_context
from lancet_jax.compile.partition import partition_of
from lancet_jax.seams import programs

ADD = """%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}
"""
TRANSPOSED = """HloModule m, num_partitions=8

""" + ADD + """
ENTRY %e (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  ROOT %r = f32[8] all-reduce(%p), channel_id=1, replica_groups=mesh['a'=4,'b'=2], \
device_ids=([2,4]T(1,0)) {'a'}, use_global_device_ids=true, to_apply=%add
}
"""  # fmt: skip


def proto_of(text):
    return _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()


def stablehlo_of(text):
    with make_context():
        return str(ir.Module.parse(hlo_to_stablehlo(proto_of(text))))


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"))


@pytest.fixture
def lowered(mesh):
    def spread(x, *axes):
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*axes)))

    x = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=NamedSharding(mesh, P("a")))
    return jax.jit(lambda x: (spread(spread(x, "a"), None, "a") * 2, x.T @ x)).lower(x)


def test_a_callback_before_scheduling_ends_a_compile_and_the_next_one_works(lowered):
    calls = []

    def stop(proto):
        calls.append(proto)
        raise RuntimeError("far enough")

    stage = jex.PipelineStage.PRE_SCHEDULER
    jex.register_hlo_module_transformation(stop, name="stop", stage=stage, platforms="cpu")
    try:
        with pytest.raises(jax.errors.JaxRuntimeError, match="far enough"):
            programs.uncached(lowered).compile()
    finally:
        jex.clear_hlo_module_transformation("stop", stage=stage, platforms="cpu")
    assert calls
    programs.uncached(lowered).compile()


def test_the_partitioned_program_is_dumped_with_local_shapes_and_shardings(lowered):
    proto = partition_of(lowered)
    text = _hlo.HloModule.from_serialized_hlo_module_proto(proto).to_string()
    assert "all-to-all(" in text
    assert "f32[4,8]" in text
    with make_context():
        module = ir.Module.parse(hlo_to_stablehlo(proto))
        attributes = module.operation.attributes
        given = [ir.StringAttr(a).value for a in attributes["mhlo.spmd_parameters_shardings"]]
        made = ir.StringAttr(attributes["mhlo.spmd_output_sharding"]).value
    assert given == ["{mesh['a'=4,'b'=2], [{'a'}, {}]}"]
    assert made.startswith("{{mesh['a'=4,'b'=2], [{}, {'a'}]}, ")


def test_what_was_partitioned_leaves_no_trace(lowered):
    before = lowered.as_text()
    partition_of(lowered)
    assert lowered.as_text() == before
    assert lowered._lowering._executable is None


def test_a_conversion_drops_the_devices_of_a_transposed_mesh():
    """Why `from_hlo.mend` writes groups anew; if this fails, the conversion can be trusted."""
    assert "device_ids =" not in stablehlo_of(TRANSPOSED)
    assert '"a"=4, "b"=2' in stablehlo_of(TRANSPOSED)


def test_hlo_prints_large_constants_if_asked_to():
    """The check that a conversion is faithful reads text, and refuses what is left out."""
    numbers = ", ".join(map(str, range(5000)))
    text = f"HloModule m\n\nENTRY e {{\n  ROOT c = s32[5000] constant({{{numbers}}})\n}}\n"
    module = _hlo.hlo_module_from_text(text)
    options = _hlo.HloPrintOptions()
    assert "constant({...})" in module.to_string(options)
    options.print_large_constants = True
    assert "4999" in module.to_string(options)


def test_stablehlo_is_converted_back_without_devices():
    text = _jax.mlir.mlir_module_to_xla_computation(stablehlo_of(TRANSPOSED), return_tuple=True)
    assert "all-reduce" in text.as_hlo_text()
