"""Small facts about blocks: exchanges, pairs, dims that move, and what an engine knows of values."""

from hlo_passes.ir.stablehlo.blocks import exchanges_of, ragged_exchanges_of, walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import kind_of, maker_of, same_operand
from hlo_passes.layers.capacity.exchange_pairs import pairs_of
from hlo_passes.partition.regions import is_one_region
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.element_moves import root_of, unit_places
from hlo_passes.proofs.one_hot import ANYTHING, OneHot
from hlo_passes.proofs.ranges import Range, Ranges

A2A = (
    '"stablehlo.all_to_all"({0}) <{{split_dimension = 0 : i64, concat_dimension = 0 : i64, split_count = 2 : i64,'
    " replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}}> : (tensor<4x4xf32>) -> tensor<4x4xf32>"
)
DOT = "stablehlo.dot_general {0}, %w, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>"
LAYER = f"""func.func @main(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>) -> tensor<4x4xf32> {{
  %0 = {A2A.format("%x")}
  %1 = stablehlo.tanh %x : tensor<4x4xf32>
  %2 = {DOT.format("%0")}
  %3 = stablehlo.add %2, %1 : tensor<4x4xf32>
  %4 = {A2A.format("%3")}
  %5 = {A2A.format("%4")}
  return %5 : tensor<4x4xf32>
}}"""


def test_a_pair_brings_rows_through_a_product_and_takes_them_away():
    module = Module.parse(LAYER)
    body = Body(module.body)
    assert exchanges_of(body) == (0, 4, 5)
    assert ragged_exchanges_of(body) == ()
    (pair,) = pairs_of(body)  # 4 -> 5 has no product between
    assert (pair.first, pair.second, pair.ops) == (0, 4, (0, 2, 3, 4))


LOOP = """func.func @main(%n: tensor<i32>, %z: tensor<i32>, %s: tensor<i8>) -> (tensor<i32>, tensor<i16>) {
  %w = stablehlo.convert %s : (tensor<i8>) -> tensor<i16>
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %0:3 = stablehlo.while(%i = %zero, %step = %one, %same = %w) : tensor<i32>, tensor<i32>, tensor<i16>
    cond {
      %c = stablehlo.compare LT, %i, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %c : tensor<i1>
    } do {
      %j = stablehlo.add %i, %step : tensor<i32>
      stablehlo.return %j, %step, %same : tensor<i32>, tensor<i32>, tensor<i16>
    }
  return %0#0, %0#2 : tensor<i32>, tensor<i16>
}"""


def test_what_no_trip_changes_is_what_the_loop_was_given():
    module = Module.parse(LOOP)
    (inner, block), (outer, _) = walk_blocks(module.body)
    assert (inner, outer) == ("main/while.3/1", "main")
    counted, step, same = block.arguments
    constants = Constants()
    assert constants.number(step) == 1
    assert constants.of(counted) is None
    assert Ranges(constants).of(same) == Range(-128, 127)
    assert "input" in constants.blame(counted)


def test_a_fact_that_names_values_stays_in_their_block():
    module = Module.parse("""func.func @main(%expert: tensor<4xi32>) -> tensor<4x2xi1> {
      %zero = stablehlo.constant dense<0> : tensor<i32>
      %each = stablehlo.iota dim = 1 : tensor<4x2xi32>
      %chosen = stablehlo.broadcast_in_dim %expert, dims = [0] : (tensor<4xi32>) -> tensor<4x2xi32>
      %hot = stablehlo.compare EQ, %chosen, %each : (tensor<4x2xi32>, tensor<4x2xi32>) -> tensor<4x2xi1>
      %0:2 = stablehlo.while(%i = %zero, %mask = %hot) : tensor<i32>, tensor<4x2xi1>
        cond {
          %few = stablehlo.compare LT, %i, %zero : (tensor<i32>, tensor<i32>) -> tensor<i1>
          stablehlo.return %few : tensor<i1>
        } do {
          stablehlo.return %i, %mask : tensor<i32>, tensor<4x2xi1>
        }
      return %0#1 : tensor<4x2xi1>
    }""")
    (_, block), (_, outside) = walk_blocks(module.body)
    constants = Constants()
    one_hot = OneHot(constants, Ranges(constants))
    hot = outside.operations[3].operation.results[0]
    assert [len(term.hots) for term in one_hot.terms(hot)] == [1]
    assert one_hot.terms(block.arguments[1]) == ANYTHING
    assert Ranges(constants).of(block.arguments[1]) == Range(0, 1)


def test_a_barrier_hands_every_operand_to_the_result_in_its_place():
    module = Module.parse("""func.func @main(%x: tensor<2xi32>, %y: tensor<3xi32>) -> tensor<3xi32> {
      %0:2 = stablehlo.optimization_barrier %x, %y : tensor<2xi32>, tensor<3xi32>
      return %0#1 : tensor<3xi32>
    }""")
    second = module.body.operations[0].results[1]
    op = maker_of(second)
    assert kind_of(op) == "optimization_barrier"
    assert same_operand(op, second) == module.body.arguments[1]
    assert maker_of(module.body.arguments[1]) is None


MOVES = """func.func @main(%x: tensor<2x3xf32>) -> tensor<3x4x2x1xf32> {
  %0 = stablehlo.transpose %x, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [0, 2] : (tensor<3x2xf32>) -> tensor<3x4x2xf32>
  %2 = stablehlo.reshape %1 : (tensor<3x4x2xf32>) -> tensor<3x4x2x1xf32>
  return %2 : tensor<3x4x2x1xf32>
}"""


def test_dims_are_found_behind_moves():
    module = Module.parse(MOVES)
    value = module.body.operations[2].results[0]
    root, at = root_of(value)
    assert root == module.body.arguments[0]
    assert at == (2, 0)  # its rows are dim 2 by now, its columns dim 0


def test_a_reshape_leaves_dims_where_it_only_adds_and_drops_ones():
    assert unit_places((2, 1, 3), (1, 2, 3)) == (1, None, 2)
    assert unit_places((2, 3), (3, 2)) is None
    assert unit_places((2, 3), (6,)) is None


MANUAL = """
sdy.mesh @mesh = <["a"=2, "b"=SIZE]>
func.func @main(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = sdy.manual_computation(%x) in_shardings=[<@mesh, [{"a"}, {}]>] out_shardings=[<@mesh, [{"a"}, {}]>] manual_axes={"a"} (%y: tensor<2x4xf32>) {
    %2 = stablehlo.tanh %y : tensor<2x4xf32>
    sdy.return %2 : tensor<2x4xf32>
  } : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = AROUND
  return %1 : tensor<4x4xf32>
}"""
ADD = "stablehlo.add %0, %w : tensor<4x4xf32>"


def test_one_region_is_manual_over_every_axis_that_is_larger_than_one():
    def is_one(size: int, around: str) -> bool:
        return is_one_region(
            Module.parse(MANUAL.replace("SIZE", str(size)).replace("AROUND", around))
        )

    assert is_one(1, ADD)
    assert not is_one(2, ADD)
    assert not is_one(1, DOT.format("%0"))
