"""What the rewrites build with: dims by name, parts of values, programs of some ops."""

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.cut.rules.dot import dot_factors
from hlo_passes.cut.spread import spread_cuts
from hlo_passes.cut.states import Cut
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import shape_of, update_of
from hlo_passes.split.arrange import arrange
from hlo_passes.split.block import cut_block
from hlo_passes.split.program import program_of
from hlo_passes.split.rows import one_hot, ranks
from hlo_passes.split.values import PartValues
from tests.hlo_passes.cut.splitting import returning, run

PLAIN = """func.func @main(%x: tensor<2x1x4xf32>) -> tensor<2x1x4xf32> {
  return %x : tensor<2x1x4xf32>
}"""
X = np.arange(8, dtype=np.float32).reshape(2, 1, 4)


def test_dims_are_put_in_order_by_their_names_and_repeated_where_there_are_none():
    module = Module.parse(PLAIN)
    with module.ir.context, ir.Location.unknown():
        end = module.body.operations[0]
        with ir.InsertionPoint(end):
            made = arrange(
                module.body.arguments[0],
                ["t", None, "e"],
                ["e", "k", "t"],
                {"e": 4, "k": 3, "t": 2},
            )
        returning(module, [made])
        (came,) = run(module, [X])
    np.testing.assert_array_equal(came, np.broadcast_to(X[:, 0].T[:, None], (4, 3, 2)))


def test_parts_are_taken_and_put_together_once():
    module = Module.parse(PLAIN)
    with module.ir.context, ir.Location.unknown():
        value, end = module.body.arguments[0], module.body.operations[0]
        with ir.InsertionPoint(end):
            part_values = PartValues(2)
            halves = part_values.parts(value, Cut(2))
            assert part_values.parts(value, Cut(2)) is halves
            assert [shape_of(half) for half in halves] == [(2, 1, 2)] * 2
            part_values.give_parts(value, Cut(2), halves[::-1])
            whole = part_values.whole(value)
            assert part_values.whole(value) == whole
        returning(module, [whole])
        (came,) = run(module, [X])
    np.testing.assert_array_equal(came, X[..., [2, 3, 0, 1]])


SOME = """func.func @main(%x: tensor<3xf32>, %y: tensor<3xf32>) -> tensor<3xf32> {
  %0 = stablehlo.add %x, %y : tensor<3xf32>
  %1 = stablehlo.multiply %0, %y : tensor<3xf32>
  %2 = stablehlo.subtract %1, %0 : tensor<3xf32>
  return %2 : tensor<3xf32>
}"""


def test_some_ops_are_a_program_of_their_own():
    module = Module.parse(SOME)
    body = Body(module.body)
    with module.ir.context, ir.Location.unknown():
        made = [op.results[0] for op in body.ops[:-1]]
        text = program_of(body, [1, 2], [made[0], module.body.arguments[1]], [made[2], made[1]])
    (less, product) = run(Module.parse(text), [np.float32([1, 2, 3]), np.float32([5, 6, 7])])
    np.testing.assert_array_equal(product, [5, 12, 21])
    np.testing.assert_array_equal(less, [4, 10, 18])


DOT = """func.func @main(%x: tensor<5x2x3xf32>, %y: tensor<3x5x4xf32>) -> tensor<5x2x4xf32> {
  %0 = stablehlo.dot_general %x, %y, batching_dims = [0] x [1], contracting_dims = [2] x [0] : (tensor<5x2x3xf32>, tensor<3x5x4xf32>) -> tensor<5x2x4xf32>
  return %0 : tensor<5x2x4xf32>
}"""


def test_a_product_runs_over_batches_rows_columns_and_what_is_summed():
    module = Module.parse(DOT)
    loops = [(f.operands, f.results) for f in dot_factors(module.body.operations[0].operation)]
    assert loops == [((0, 1), (0,)), ((1, None), (1,)), ((None, 2), (2,)), ((2, 0), (None,))]


SCATTER = """func.func @main(%x: tensor<4xf32>, %i: tensor<2x1xi32>, %u: tensor<2xf32>) -> tensor<4xf32> {
  %0 = "stablehlo.scatter"(%x, %i, %u) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    BODY
  }) : (tensor<4xf32>, tensor<2x1xi32>, tensor<2xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}"""


def test_what_a_scatter_does_with_what_is_there():
    def update(body: str) -> str | None:
        module = Module.parse(SCATTER.replace("BODY", body))
        return update_of(module.body.operations[0].operation)

    assert update("stablehlo.return %b : tensor<f32>") == "set"
    assert update("stablehlo.return %a : tensor<f32>") is None
    add = "%s = stablehlo.add %{}, %{} : tensor<f32>\n stablehlo.return %s : tensor<f32>"
    assert update(add.format("b", "a")) == "add"
    assert update(add.format("b", "b")) is None


LABELS = """func.func @main(%x: tensor<6xi32>) -> tensor<6xi32> {
  return %x : tensor<6xi32>
}"""


def test_ranks_count_the_rows_before_of_the_same_label():
    module = Module.parse(LABELS)
    with module.ir.context, ir.Location.unknown():
        with ir.InsertionPoint(module.body.operations[0]):
            hot = one_hot(module.body.arguments[0], 2)
            returning(module, [hot, ranks(hot, build.prefix_sum)])
        labels, counted = run(module, [np.int32([1, 0, 1, 2, 1, -1])])
    np.testing.assert_array_equal(labels, [[0, 1], [1, 0], [0, 1], [0, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(counted, [0, 0, 1, -1, 2, -1])


BLOCK = """func.func @main(%x: tensor<4x3xf32>, %w: tensor<3x3xf32>) -> (tensor<4x3xf32>, tensor<3x3xf32>, tensor<4x3xf32>) {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<4x3xf32>, tensor<3x3xf32>) -> tensor<4x3xf32>
  %1 = stablehlo.negate %0 : tensor<4x3xf32>
  %2 = stablehlo.dot_general %x, %1, contracting_dims = [0] x [0] : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<3x3xf32>
  %3 = stablehlo.reverse %1, dims = [0] : tensor<4x3xf32>
  return %1, %2, %3 : tensor<4x3xf32>, tensor<3x3xf32>, tensor<4x3xf32>
}"""


def test_a_block_is_cut_as_far_as_its_ops_can_be():
    x, w = np.arange(12, dtype=np.float32).reshape(4, 3), np.float32(np.eye(3)[::-1])
    module = Module.parse(BLOCK)
    want = run(module, [x, w])
    with module.ir.context:
        body = Body(module.body)
        cut_block(body, spread_cuts(body, [(module.body.arguments[0], Cut(0))], 2))
    text = module.text()
    assert text.count("stablehlo.negate") == 2
    assert text.count("(tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<3x3xf32>") == 2
    assert text.count("stablehlo.reverse") == 1  # it needs all rows, and gets them put together
    for one, other in zip(want, run(module, [x, w]), strict=True):
        np.testing.assert_array_equal(one, other)
