"""XLA:CPU does not run `chlo.scan`, so what is built is read; tests/aot compiles one for CUDA."""

import pytest

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.states import Cut, Spot
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.proofs.engine import NotProved
from tests.hlo_passes.cut.splitting import Variant, the, with_variants


def _scan(
    start: float = 0, reverse: str = "false", adder: str = "add", element: str = "f32"
) -> Module:
    text = f"""func.func @main(%x: tensor<8x4xf32>) -> tensor<8x4xf32> {{
      %c = stablehlo.constant dense<{start:.1f}> : tensor<f32>
      %z = stablehlo.broadcast_in_dim %c, dims = [] : (tensor<f32>) -> tensor<4xf32>
      %0:2 = "chlo.scan"(%x, %z) <{{dimension = 0 : i64, is_reverse = {reverse},
          operandSegmentSizes = array<i32: 1, 1>, resultSegmentSizes = array<i32: 1, 1>}}> ({{
      ^bb0(%a: tensor<4xf32>, %b: tensor<4xf32>):
        %s = stablehlo.{adder} %a, %b : tensor<4xf32>
        stablehlo.return %s, %s : tensor<4xf32>, tensor<4xf32>
      }}) : (tensor<8x4xf32>, tensor<4xf32>) -> (tensor<8x4xf32>, tensor<4xf32>)
      return %0#0 : tensor<8x4xf32>
    }}"""
    return Module.parse(text.replace("f32", element))


@pytest.mark.parametrize("side", ["operand", "result"])
def test_a_scan_goes_on_where_the_part_before_it_ended(side):
    module, spot = _scan(), Spot(side, 0)
    op = the(module, "scan")
    split = rule_of(op).cut(op, spot, Cut(0), 4)
    assert split.carries
    assert split.operands == (Cut(0), None)
    text = with_variants(module, "scan", [Variant(spot, Cut(0), 4, split)]).text()
    assert text.count("(tensor<2x4xf32>, tensor<4xf32>) -> (tensor<2x4xf32>, tensor<4xf32>)") == 4
    assert text.count("stablehlo.add") == 5 + 3


@pytest.mark.parametrize(
    ("module", "spot", "cut", "reason"),
    [
        (_scan(start=3), Spot("operand", 0), Cut(0), "count again"),
        (_scan(reverse="true"), Spot("operand", 0), Cut(0), "order of the parts"),
        (_scan(), Spot("operand", 0), Cut(0, 2), "order of the parts"),
        (_scan(adder="maximum"), Spot("operand", 0), Cut(0), "no prefix sum"),
        (_scan(element="bf16"), Spot("operand", 0), Cut(0), "in 16 bits"),
        (_scan(element="f16"), Spot("operand", 0), Cut(0), "in 16 bits"),
        (_scan(), Spot("operand", 0), Cut(1), "beside the dim"),
        (_scan(), Spot("operand", 1), Cut(0), "beside the dim"),
        (_scan(), Spot("result", 1), Cut(0), "beside the dim"),
    ],
)
def test_a_scan_that_is_refused(module, spot, cut, reason):
    op = the(module, "scan")
    with pytest.raises(NotProved, match=reason):
        rule_of(op).cut(op, spot, cut, 2)
