"""Which rows masks name, what a path hands out, and how exchanges, sorts and pieces may be cut."""

from pathlib import Path

import pytest

from hlo_passes.cut.rules import exchange, ordering, slicing
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.row_exports import find_exports
from hlo_passes.layers.masks.address import Column
from hlo_passes.layers.masks.product_dims import ProductDims
from hlo_passes.layers.masks.products import find_row_products
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.one_hot import OneHot
from hlo_passes.proofs.value_numbers import number_values

ONE_HOT = Path(__file__).parent.parent / "split_region" / "one_hot.mlir"


def one_hot(*changes):
    text = ONE_HOT.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    module = Module.parse(text)
    return module, Body(module.body)


def test_a_mask_of_expert_and_rank_names_one_row_a_token():
    module, body = one_hot()
    found = find_row_products(body, number_values(body))
    (write,), (read,) = found.writes, found.reads
    assert not found.refusals
    assert (write.product.role, write.product.is_one) == ("dispatch", True)
    assert [(r.role, r.is_one) for r in read.readers] == [("combine", False)]
    for address in (write.address, read.address):
        assert (address.shape, address.rows) == ((64, 1), (16, 4))
        expert, rank = address.columns
        assert expert == Column(module.body.arguments[2], (("token", 0),))
        assert body.made_by(rank.index)[1] == "reduce"


def test_a_mask_that_is_not_zero_in_other_places_names_no_row():
    ranks = "compare EQ, %r, %rs"
    _, body = one_hot((ranks, ranks.replace("EQ", "LE")))
    found = find_row_products(body, number_values(body))
    assert not found.writes


def test_dims_of_a_product_are_named_after_its_result():
    _, body = one_hot()
    counting = Counting(body, number_values(body))
    dims = ProductDims(body, OneHot(counting.constants, counting.ranges))
    sent = next(i for i in range(len(body.ops)) if body.kind(i) == "dot_general" and i > 5)
    mask, tokens = dims.names(sent)
    assert mask[1:] == (0, 1)
    assert tokens[1:] == (2,)
    assert mask[0] == tokens[0] < 0  # what is summed up
    assert dims.names(sent) == (mask, tokens)


PATH = """func.func @main(%came: tensor<4x2xf32>, %w: tensor<2x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %0 = stablehlo.dot_general %came, %w, contracting_dims = [1] x [0] : (tensor<4x2xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>
  %1 = stablehlo.AFTER %0 : tensor<4x8xf32>
  %2 = stablehlo.negate %1 : tensor<4x8xf32>
  return %1, %2 : tensor<4x8xf32>, tensor<4x8xf32>
}"""


@pytest.mark.parametrize(
    ("after", "value", "kept"), [("tanh", 1, set()), ("exponential", 0, {1}), ("cosine", 0, {1})]
)
def test_what_is_zero_in_idle_rows_is_put_together_and_the_rest_is_made_of_it(after, value, kept):
    module = Module.parse(PATH.replace("AFTER", after))
    body = Body(module.body)
    found = find_exports(body, module.body.arguments[0], (0, 1), 2)
    assert found.values == (body.ops[value].results[0],)
    assert found.kept == kept
    assert found.bytes == 4 * 8 * 4


def test_what_is_not_zero_in_idle_rows_and_cannot_be_made_again_is_refused():
    deep = PATH.replace("tensor<4x2xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>\n  %1 = stablehlo.AFTER %0",
                        "tensor<4x2xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>\n  %e = stablehlo.exponential %0 : tensor<4x8xf32>\n"
                        "  %1 = stablehlo.dot_general %e, %s, contracting_dims = [1] x [0] : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>\n  %d = stablehlo.negate %1")  # fmt: skip
    deep = deep.replace("%w: tensor<2x8xf32>)", "%w: tensor<2x8xf32>, %s: tensor<8x8xf32>)")
    module = Module.parse(deep)
    body = Body(module.body)
    with pytest.raises(NotProved, match="not zero in rows that nothing came for"):
        find_exports(body, module.body.arguments[0], (0, 1, 2), 4)


OPS = """func.func @main(%x: tensor<8x4xf32>) -> tensor<4x8xf32> {
  %0 = "stablehlo.all_to_all"(%x) <{split_dimension = 0 : i64, concat_dimension = 1 : i64, split_count = 2 : i64, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}> : (tensor<8x4xf32>) -> tensor<4x8xf32>
  %1 = "stablehlo.all_gather"(%x) <{all_gather_dim = 0 : i64, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}> : (tensor<8x4xf32>) -> tensor<16x4xf32>
  %2 = "stablehlo.sort"(%x) <{dimension = 1 : i64}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = stablehlo.compare LT, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %s : tensor<i1>
  }) : (tensor<8x4xf32>) -> tensor<8x4xf32>
  %3, %4 = chlo.top_k(%x, k = 2) : tensor<8x4xf32> -> (tensor<8x2xf32>, tensor<8x2xi32>)
  %5 = stablehlo.slice %x [0:8, 1:3] : (tensor<8x4xf32>) -> tensor<8x2xf32>
  %6 = stablehlo.concatenate %x, %x, dim = 0 : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<16x4xf32>
  return %0 : tensor<4x8xf32>
}"""


def cut(place: int, rules, dim: int, outer: int = 1) -> OpSplit | str:
    module = Module.parse(OPS)
    body = Body(module.body)
    try:
        return rules[body.kind(place)].cut(body.ops[place], Spot("operand", 0), Cut(dim, outer), 2)
    except NotProved as reason:
        return str(reason)


def test_an_all_to_all_turns_blocks_of_one_dim_into_blocks_of_the_other():
    rules = exchange.RULES
    assert cut(0, rules, 1) == OpSplit((Cut(1),), (Cut(1, 2),))
    assert cut(0, rules, 0, 2) == OpSplit((Cut(0, 2),), (Cut(0, 1),))
    assert "dealt out to the devices" in cut(0, rules, 0)
    assert cut(1, rules, 1) == OpSplit((Cut(1),), (Cut(1),))
    assert "the devices share" in cut(1, rules, 0)


def test_what_orders_or_takes_pieces_of_a_dim_is_cut_along_another():
    assert cut(2, ordering.RULES, 0) == OpSplit((Cut(0),), (Cut(0),))
    assert "sorts along the cut dim 1" in cut(2, ordering.RULES, 1)
    assert cut(3, ordering.RULES, 0) == OpSplit((Cut(0),), (Cut(0), Cut(0)))
    assert "takes the largest" in cut(3, ordering.RULES, 1)
    assert cut(4, slicing.RULES, 0) == OpSplit((Cut(0),), (Cut(0),))
    assert "takes a piece" in cut(4, slicing.RULES, 1)
    assert cut(5, slicing.RULES, 1) == OpSplit((Cut(1), Cut(1)), (Cut(1),))
    assert "concatenates along" in cut(5, slicing.RULES, 0)
