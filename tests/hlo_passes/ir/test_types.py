"""Element types as StableHLO and HLO spell them, and what a tensor of them takes."""

import pytest

from hlo_passes.ir.files import parse
from hlo_passes.ir.stablehlo.module import Module

STABLEHLO = """func.func @main(%x: tensor<{kind}>) -> tensor<{kind}> {{
  %y = stablehlo.optimization_barrier %x : tensor<{kind}>
  return %y : tensor<{kind}>
}}"""


def leaf(kind):
    (value, *_) = Module.parse(STABLEHLO.format(kind=kind)).snapshot().values
    return value.leaves[0]


@pytest.mark.parametrize(
    ("kind", "name", "bytes"),
    [
        ("4xcomplex<f32>", "c64[4]", 32),
        ("4xcomplex<f64>", "c128[4]", 64),
        ("?x2xf32, #stablehlo.bounds<3, ?>", "f32[3,2]", 24),
        ("4xf8E4M3FN", "f8E4M3FN[4]", 4),
    ],
)
def test_stablehlo_spells_types_that_have_a_size(kind, name, bytes):
    found = leaf(kind)
    assert (str(found), found.bytes) == (name, bytes)


def test_both_forms_name_complex_numbers_alike():
    hlo = """HloModule m, is_scheduled=true

ENTRY %main (x: c64[4]) -> c64[4] {
  ROOT %x = c64[4]{0} parameter(0)
}
"""
    assert parse(hlo.encode(), "m").snapshot().values[0].leaves == (leaf("4xcomplex<f32>"),)


def test_a_dim_without_a_bound_is_named():
    with pytest.raises(ValueError, match=r"unbounded dimension: tensor<\?xf32>"):
        leaf("?xf32")
