"""Equal numbers mean equal values: what must share one, and what must not."""

import pytest

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.proofs.value_numbers import number_values


def numbers(*lines):
    """Return the number of the first result of every op, by its name in the text."""
    text = "\n".join(lines)
    module = Module.parse(
        "func.func @main(%a: tensor<8xf32>, %b: tensor<8xf32>) -> tensor<8xf32> {\n"
        f"{text}\n return %a : tensor<8xf32>\n}}"
    )
    body = Body(module.body)
    found = number_values(body)
    return [found[op.results[0]] for op in body.ops[:-1]]


def same(*lines):
    *_, one, other = numbers(*lines)
    return one == other


ADD = "%{} = stablehlo.add %{}, %{} : tensor<8xf32>"


def test_the_same_op_twice_is_one_value():
    assert same(ADD.format("x", "a", "b"), ADD.format("y", "a", "b"))


def test_other_operands_make_another_value():
    assert not same(ADD.format("x", "a", "b"), ADD.format("y", "b", "b"))


def test_a_barrier_is_transparent():
    barrier = "%t = stablehlo.optimization_barrier %a : tensor<8xf32>"
    one, _, other = numbers(ADD.format("x", "a", "b"), barrier, ADD.format("y", "t", "b"))
    assert one == other


@pytest.mark.parametrize(
    "pair",
    [
        ("stablehlo.slice %a [0:4] : (tensor<8xf32>) -> tensor<4xf32>",
         "stablehlo.slice %a [4:8] : (tensor<8xf32>) -> tensor<4xf32>"),
        ("stablehlo.compare LT, %a, %b : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xi1>",
         "stablehlo.compare GT, %a, %b : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xi1>"),
        ("stablehlo.constant dense<1.0> : tensor<8xf32>",
         "stablehlo.constant dense<2.0> : tensor<8xf32>"),
    ],
)  # fmt: skip
def test_other_attributes_make_another_value(pair):
    assert not same(f"%x = {pair[0]}", f"%y = {pair[1]}")


def reduction(name, kind):
    return (f"%z{name} = stablehlo.constant dense<0.0> : tensor<f32>\n"
            f"%{name} = stablehlo.reduce(%a init: %z{name}) applies stablehlo.{kind} across "
            "dimensions = [0] : (tensor<8xf32>, tensor<f32>) -> tensor<f32>")  # fmt: skip


def test_small_regions_are_compared():
    *_, one, _, other = numbers(reduction("x", "add"), reduction("y", "add"))
    assert one == other
    *_, one, _, other = numbers(reduction("x", "add"), reduction("y", "maximum"))
    assert one != other


def test_what_draws_or_talks_is_like_no_other():
    call = "%{} = stablehlo.custom_call @f(%a) : (tensor<8xf32>) -> tensor<8xf32>"
    assert not same(call.format("x"), call.format("y"))
