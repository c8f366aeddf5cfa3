"""How often counted loops run, whatever they start at, step by and compare with."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_passes.ir.files import parse
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.trips import Counter
from hlo_passes.split.loops import unroll

LOOP = """
func.func @main(%x: tensor<8xf32>, %n: tensor<i32>) -> tensor<8xf32> {{
  %first = stablehlo.constant dense<{first}> : tensor<{t}>
  %limit = stablehlo.constant dense<{limit}> : tensor<{t}>
  %by = stablehlo.constant dense<{step}> : tensor<{t}>
  %r:3 = stablehlo.while(%i = %first, %v = %x, %l = %limit) : tensor<{t}>, tensor<8xf32>, tensor<{t}>
  cond {{
    %go = stablehlo.compare {compare} : (tensor<{t}>, tensor<{t}>) -> tensor<i1>
    stablehlo.return %go : tensor<i1>
  }} do {{
    %w = stablehlo.tanh %v : tensor<8xf32>
    %next = {move} : tensor<{t}>
    stablehlo.return %next, %w, %l : tensor<{t}>, tensor<8xf32>, tensor<{t}>
  }}
  return %r#1 : tensor<8xf32>
}}
"""
ADD = "stablehlo.add %i, %by"


def loop_of(first=0, limit=12, step=1, compare="LT, %i, %limit", move=ADD, t="i32"):
    return Module.parse(LOOP.format(**locals()))


def trips(module):
    (loop,) = [op for op in module.snapshot().ops if op.kind == "while"]
    return loop.trips


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, 12),
        ({"step": 3}, 4),
        ({"step": 5}, 3),
        ({"first": 8}, 4),
        ({"first": -3, "limit": 3, "step": 2}, 3),
        ({"compare": "LE, %i, %limit"}, 13),
        ({"compare": "NE, %i, %limit", "step": 4}, 3),
        ({"compare": "GT, %limit, %i"}, 12),
        ({"compare": "LT, %i, %l"}, 12),
        ({"compare": "GT, %l, %i"}, 12),
        ({"first": 12, "limit": 0, "compare": "GT, %i, %limit", "step": -3}, 4),
        ({"first": 11, "limit": 0, "compare": "GE, %i, %limit",
          "move": "stablehlo.subtract %i, %by"}, 12),
        ({"move": "stablehlo.add %by, %i"}, 12),
        ({"first": 100, "limit": 120, "step": 5, "t": "i8"}, 4),
        ({"limit": 250, "step": 2, "t": "ui8"}, 125),
    ],
)  # fmt: skip
def test_a_counted_loop_has_its_trips(facts, expected):
    assert trips(loop_of(**facts)) == expected


@pytest.mark.parametrize(
    "facts",
    [
        {"step": 0},
        {"step": -1},
        {"compare": "NE, %i, %limit", "step": 5},
        {"compare": "EQ, %i, %limit"},
        {"move": "stablehlo.multiply %i, %by", "step": 2, "first": 1},
        {"move": "stablehlo.add %i, %i"},
        {"first": 100, "limit": 127, "step": 5, "t": "i8"},  # 130 is -126
        {"first": "0.0", "limit": "5.5", "step": "1.0", "t": "f32"},
    ],
)
def test_other_loops_have_none_that_is_known(facts):
    assert trips(loop_of(**facts)) == 0


def test_an_unrolled_loop_runs_as_often_as_is_left():
    module = loop_of()
    with module.ir.context:
        (loop,) = [op.operation for op in module.body.operations if len(op.operation.regions) == 2]
        unroll(loop, 3)
    assert trips(module) == 4


HLO = """HloModule m{scheduled}

%body (b: ({t}[], f32[8], {t}[])) -> ({t}[], f32[8], {t}[]) {{
  %b = ({t}[], f32[8]{{0}}, {t}[]) parameter(0)
  %i = {t}[] get-tuple-element(%b), index=0
  %v = f32[8]{{0}} get-tuple-element(%b), index=1
  %l = {t}[] get-tuple-element(%b), index=2
  %by = {t}[] constant({step})
  %next = {t}[] {move}
  %w = f32[8]{{0}} tanh(%v)
  ROOT %r = ({t}[], f32[8]{{0}}, {t}[]) tuple(%next, %w, %l)
}}

%cond (c: ({t}[], f32[8], {t}[])) -> pred[] {{
  %c = ({t}[], f32[8]{{0}}, {t}[]) parameter(0)
  %j = {t}[] get-tuple-element(%c), index=0
  %m = {t}[] get-tuple-element(%c), index=2
  %limit = {t}[] constant({limit})
  ROOT %go = pred[] compare({compare}), direction={way}
}}

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %first = {t}[] constant({first})
  %last = {t}[] constant({limit})
  %start = ({t}[], f32[8]{{0}}, {t}[]) tuple(%first, %x, %last)
  %loop = ({t}[], f32[8]{{0}}, {t}[]) while(%start), condition=%cond, body=%body
  ROOT %y = f32[8]{{0}} get-tuple-element(%loop), index=1
}}
"""


def hlo(first=0, limit=12, step=1, compare="%j, %limit", way="LT", move="add(%i, %by)", t="s32",
        scheduled=""):  # fmt: skip
    return parse(HLO.format(**locals()).encode(), "m")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, 12),
        ({"step": 3}, 4),
        ({"first": 8}, 4),
        ({"first": -3, "limit": 3, "step": 2}, 3),
        ({"way": "LE"}, 13),
        ({"way": "GT", "compare": "%limit, %j"}, 12),
        ({"compare": "%j, %m"}, 12),
        ({"way": "GT", "compare": "%m, %j"}, 12),
        ({"first": 11, "limit": 0, "way": "GE", "move": "subtract(%i, %by)"}, 12),
        ({"move": "add(%by, %i)", "t": "u8"}, 12),
        ({"step": 0}, 0),
        ({"way": "EQ"}, 0),
        ({"move": "multiply(%i, %by)", "step": 2, "first": 1}, 0),
        ({"first": 100, "limit": 127, "step": 5, "t": "s8"}, 0),
        ({"first": "0.0", "limit": "5.5", "step": "1.0", "t": "f32"}, 0),
        ({"scheduled": ", is_scheduled=true"}, 0),  # XLA has counted what it could
    ],
)
def test_loops_of_hlo_that_xla_has_not_counted_yet_count_themselves(facts, expected):
    assert trips(hlo(**facts)) == expected


def test_stablehlo_and_what_jax_makes_of_it_have_the_same_trips():
    lowered = jax.jit(
        lambda x: jax.lax.fori_loop(3, 11, lambda i, c: c * i, jax.lax.scan(
            lambda c, _: (jnp.tanh(c), None), x, None, length=7)[0])
    ).lower(jnp.ones(8))  # fmt: skip
    for module in (
        Module.parse(lowered.as_text()),
        parse(lowered.as_text("hlo").encode(), "m"),
    ):
        loops = [op for op in module.snapshot().ops if op.kind == "while"]
        assert [op.trips for op in loops] == [7, 8]


@given(
    st.integers(-20, 20), st.integers(-6, 6), st.integers(-20, 20),
    st.sampled_from(["LT", "LE", "GT", "GE", "NE"]),
)  # fmt: skip
def test_trips_are_those_of_counting(first, step, limit, direction):
    goes_on = {"LT": int.__lt__, "LE": int.__le__, "GT": int.__gt__, "GE": int.__ge__,
               "NE": int.__ne__}[direction]  # fmt: skip
    counter, ran = first, 0
    while goes_on(counter, limit) and ran < 100:
        counter, ran = counter + step, ran + 1
    assert Counter(first, step, limit, direction).trips == (ran if ran < 100 else 0)
