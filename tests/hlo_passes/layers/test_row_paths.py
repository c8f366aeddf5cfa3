"""Which experts can run on the rows of one part, and why others cannot."""

from pathlib import Path

import pytest

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.row_layouts import RowLayout
from hlo_passes.layers.capacity.row_paths import find_row_paths
from hlo_passes.layers.capacity.sites import find_sites

FILE = Path(__file__).parent.parent / "split_region" / "windows.mlir"


def paths_of(*changes):
    """Return the row paths of the file's step, after replacing text."""
    text = FILE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    module = Module.parse(text)
    body = Body(module.body)
    return module, body, find_row_paths(body, find_sites(body))


def test_ops_between_the_all_to_alls_are_a_path():
    module, body, found = paths_of()
    (path,) = found.paths
    assert [body.kind(i) for i in path.ops] == [
        "reshape", "dot_general", "tanh", "transpose", "reshape",
    ]  # fmt: skip
    assert (path.experts, path.capacity, path.tokens) == (2, 4, 64)
    assert module


DW = "    %dw = stablehlo.dot_general %r, "
G = "    %also = stablehlo.dot_general %g, %rows, batching_dims = [0] x [1], contracting_dims = [1, 2] x [0, 2] : (tensor<2x8x4x32xf32>, tensor<8x2x4x32xf32>) -> tensor<2x32x32xf32>\n"
TANH = "    %r = stablehlo.tanh %g : tensor<2x8x4x32xf32>"
MASK = """
    %zeros = stablehlo.constant dense<0.0> : tensor<2x8x4x32xf32>
    %there = stablehlo.constant dense<true> : tensor<2x8x4x32xi1>
    %r = stablehlo.select %there, %g, %zeros : tensor<2x8x4x32xi1>, tensor<2x8x4x32xf32>"""
ONES = MASK.replace("dense<0.0>", "dense<1.0>").replace("dense<true>", "dense<false>")
WIDE = """
    %f = stablehlo.convert %g : (tensor<2x8x4x32xf32>) -> tensor<2x8x4x32xf64>
    %r = stablehlo.convert %f : (tensor<2x8x4x32xf64>) -> tensor<2x8x4x32xf32>
    %dx = stablehlo.dot_general %f, %f, batching_dims = [0] x [0], contracting_dims = [1, 2] x [1, 2] : (tensor<2x8x4x32xf64>, tensor<2x8x4x32xf64>) -> tensor<2x32x32xf64>"""


@pytest.mark.parametrize(
    ("changes", "exported", "again"),
    [
        ((), ["tanh"], {"reshape"}),
        (((DW, G + DW),), ["dot_general"], {"reshape", "tanh"}),
        (((TANH, MASK),), ["select"], {"reshape"}),
        (((TANH, ONES),), ["dot_general"], {"reshape", "select"}),
        (((TANH, WIDE),), ["dot_general"], {"reshape", "convert"}),
    ],
    ids=["what is read", "two are read", "zero elsewhere", "not zero elsewhere", "wider"],
)
def test_what_others_read_is_put_together_or_made_of_what_is(changes, exported, again):
    module, body, found = paths_of(*changes)
    (path,) = found.paths
    assert [body.made_by(v)[1] for v in path.exports] == exported
    assert {body.kind(i) for i in path.on_way - path.dropped} == again
    assert module


def test_layouts_say_where_rows_stand():
    module, body, found = paths_of()
    (path,) = found.paths
    (product,) = path.exports  # [expert, source, place, width]
    assert path.layout_of(product) == RowLayout(source=4, expert=32, width=32)
    came = body.ops[path.put.exchange].results[0]  # [source * expert, place, width]
    assert path.layout_of(came) == RowLayout(source=8, expert=4, width=32)
    assert module


@pytest.mark.parametrize(("tokens", "rows"), [(64, 32), (16, 24), (8, 16)])
def test_windows_have_room_for_chance_and_no_more_than_there_is(tokens, rows):
    module, _, found = paths_of()
    assert found.paths[0].batch_rows(tokens) == rows
    assert module


NORM = """
    %zero_ = stablehlo.constant dense<0.0> : tensor<f32>
    %s = stablehlo.reduce(%g init: %zero_) applies stablehlo.add across dimensions = [2] : (tensor<2x8x4x32xf32>, tensor<f32>) -> tensor<2x8x32xf32>
    %all = stablehlo.broadcast_in_dim %s, dims = [0, 1, 3] : (tensor<2x8x32xf32>) -> tensor<2x8x4x32xf32>
    %r = stablehlo.divide %g, %all : tensor<2x8x4x32xf32>"""
DEEP = """
    %a = stablehlo.exponential %g : tensor<2x8x4x32xf32>
    %r = stablehlo.dot_general %a, %w, batching_dims = [0] x [0], contracting_dims = [3] x [1] : (tensor<2x8x4x32xf32>, tensor<2x32x32xf32>) -> tensor<2x8x4x32xf32>"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((", unique_indices = true", ""), "two tokens may share a row"),
        (('"stablehlo.gather"(%home, %at)', '"stablehlo.gather"(%home, %by)'), "other rows"),
        (
            ("    %r = stablehlo.tanh %g : tensor<2x8x4x32xf32>", NORM),
            "the same for some rows only",
        ),
        (("    %r = stablehlo.tanh %g : tensor<2x8x4x32xf32>", DEEP), "not zero in rows that"),
    ],
)
def test_what_is_not_row_by_row_waits_and_says_why(change, reason):
    argument = ("%at: tensor<64x2xi32>)", "%at: tensor<64x2xi32>, %by: tensor<64x2xi32>)")
    module, _, found = paths_of(argument, change)
    assert not found.paths
    (why,) = found.refusals.values()
    assert reason in why
    assert module
