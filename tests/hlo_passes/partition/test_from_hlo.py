"""Partitioned HLO back to StableHLO: mended, checked, wrapped, or refused."""

import pytest
from jax.extend.mlir import hlo_to_stablehlo
from jaxlib import _hlo
from jaxlib.mlir import ir

from hlo_passes.errors import InputError
from hlo_passes.ir.hlo.text import read_hlo
from hlo_passes.ir.stablehlo.module import Module, make_context
from hlo_passes.partition.from_hlo import mend
from hlo_passes.partition.put_back import partitioned
from tests.contract.test_partitioner import ADD, TRANSPOSED

STEP = """
module @jit_step attributes {mhlo.num_partitions = 8 : i32, mhlo.num_replicas = 1 : i32} {
  sdy.mesh @mesh = <["a"=8]>
  func.func public @main(%arg0: tensor<16x4xf32> {jax.buffer_donor = true,
      sdy.sharding = #sdy.sharding<@mesh, [{"a"}, {}]>}) -> tensor<16x4xf32> {
    %0 = stablehlo.add %arg0, %arg0 : tensor<16x4xf32>
    return %0 : tensor<16x4xf32>
  }
}
"""
HEAD = """HloModule jit_step, num_partitions=8, \
spmd_parameters_shardings={{mesh['a'=8], [{'a'}, {}]}}, spmd_output_sharding={OUT}

"""


def groups_of(text):
    module = _hlo.hlo_module_from_text(text)
    with make_context():
        body = ir.Module.parse(hlo_to_stablehlo(module.as_serialized_hlo_module_proto()))
        mend(body, read_hlo(module.to_string()))
        return str(body)


def test_groups_of_a_transposed_mesh_come_from_hlo():
    assert "dense<[[0, 1, 2, 3], [4, 5, 6, 7]]>" in groups_of(TRANSPOSED)


def test_groups_that_cannot_be_told_apart_are_refused():
    text = """HloModule m, num_partitions=8

""" + ADD + """
ENTRY %e (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  %q = f32[8] all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, \
use_global_device_ids=true, to_apply=%add
  ROOT %r = f32[8] all-reduce(%q), channel_id=1, replica_groups={{0,1},{2,3},{4,5},{6,7}}, \
use_global_device_ids=true, to_apply=%add
}
"""  # fmt: skip
    with pytest.raises(ValueError, match="who takes part in all_reduce cannot be told"):
        groups_of(text)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ('f32[2,4] custom-call(%p), custom_call_target="mine"', "foreign code"),
        ("f32[2,4] rng(%z, %o), distribution=rng_uniform", "a device's own state"),
    ],
)
def test_what_is_not_known_to_survive_is_refused(op, reason):
    text = f"""HloModule m, num_partitions=8

ENTRY %e (p: f32[2,4]) -> f32[2,4] {{
  %p = f32[2,4] parameter(0)
  %z = f32[] constant(0)
  %o = f32[] constant(1)
  ROOT %r = {op}
}}
"""
    with pytest.raises(ValueError, match=reason):
        groups_of(text)


def test_a_program_without_shardings_is_refused():
    text = """HloModule m, num_partitions=8

ENTRY %e (p: f32[2,4]) -> f32[2,4] {
  %p = f32[2,4] parameter(0)
  ROOT %r = f32[2,4] add(%p, %p)
}
"""
    proto = _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()
    with pytest.raises(InputError, match="does not say how it spread"):
        partitioned(Module.parse(STEP), proto)
