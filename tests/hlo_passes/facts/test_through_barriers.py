"""Barriers are gone in XLA's final schedule: nothing waits for more than it reads."""

from hlo_passes.facts.barriers import without_barriers
from hlo_passes.ir.stablehlo.module import Module

TEXT = """
func.func @main(%a: tensor<8xf32>, %b: tensor<8xf32>) -> (tensor<8xf32>, tensor<8xf32>) {
  %x = stablehlo.tanh %a : tensor<8xf32>
  %y = stablehlo.sine %b : tensor<8xf32>
  %p:2 = stablehlo.optimization_barrier %x, %y : tensor<8xf32>, tensor<8xf32>
  %q:2 = stablehlo.optimization_barrier %p#1, %p#0 : tensor<8xf32>, tensor<8xf32>
  %u = stablehlo.negate %q#0 : tensor<8xf32>
  return %u, %q#1 : tensor<8xf32>, tensor<8xf32>
}
"""


def test_readers_wait_for_what_they_read_alone():
    graph = Module.parse(TEXT).snapshot()
    kinds = {op.kind: op.id for op in graph.ops}
    assert graph.preds[kinds["negate"]] == (3,)
    seen = without_barriers(graph)
    assert seen.preds[kinds["negate"]] == (kinds["sine"],)
    assert [seen.values[v].op for v in seen.returns] == [kinds["negate"], kinds["tanh"]]
    assert [op.kind for op in seen.ops] == [op.kind for op in graph.ops]
