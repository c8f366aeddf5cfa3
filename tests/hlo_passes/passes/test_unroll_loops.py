"""Microbatches side by side: when loops are unrolled, and when not."""

from pathlib import Path

import jax
import numpy as np
import pytest

import lancet_jax
from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.unroll_loops import UnrollLoops
from tests.steps import CASES

FILE = Path(__file__).parent.parent / "unroll_loops" / "twice.mlir"


def plan_of(text, k=2):
    module = Module.parse(text)
    context = Context(costs=TargetCosts(parse_target("h100:1x8")), module=module)
    return UnrollLoops(k=k).plan(module.snapshot(), context)


@pytest.mark.parametrize(
    ("old", "new", "k", "reason"),
    [
        ("dense<4>", "dense<4>", 3, "its 4 trips are no multiple of 3"),
        ("%one = stablehlo.constant dense<1>", "%one = stablehlo.constant dense<2>", 2, "count"),
        ("compare LT, %i", "compare LE, %i", 2, "count from 0"),
        ("%zero = stablehlo.constant dense<0>", "%zero = stablehlo.constant dense<2>", 2, "count"),
    ],
)
def test_other_loops_are_left_and_say_why(old, new, k, reason):
    text = FILE.read_text()
    assert old in text
    plan = plan_of(text.replace(old, new), k)
    assert not plan.splits
    assert any(reason in refusal.reason for refusal in plan.refusals)


def test_two_trips_at_once_are_half_as_many():
    plan = plan_of(FILE.read_text())
    twice, once = plan.race["k=2"], plan.before
    assert twice.exchange_us == pytest.approx(once.exchange_us)
    assert twice.compute_us <= once.compute_us
    assert twice.step_us < once.step_us


def test_a_step_without_loops_has_nothing_to_say():
    (first, _, rest) = FILE.read_text().partition("%r:2 =")
    del rest
    text = first[: first.index("%zero")] + "return %w : tensor<32x32xf32>\n  }\n}\n"
    plan = plan_of(text.replace("-> tensor<16x32xf32> {", "-> tensor<32x32xf32> {"))
    assert not plan.splits
    assert not plan.refusals


@pytest.mark.parametrize(("name", "k"), [("accumulation", 2), ("scan_layers", 3)])
def test_unrolled_steps_are_bit_identical(name, k):
    case = CASES[name](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline=f"unroll-loops{{k={k}}},schedule-dw",
                          on_unsupported="raise", **case.jit_kwargs)  # fmt: skip
    got = step(*case.args)
    assert step.outcomes[-1].cuts
    case = CASES[name](jax.devices()[:8])
    expected = jax.jit(case.step, **case.jit_kwargs)(*case.args)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))
