"""What loops cost: all their trips, and what the host needs to see that there is no other."""

import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.schedule.simulate import simulate

TARGET = parse_target("h100:1x8")
LOOP = """
func.func @main(%x: tensor<1048576xf32>, %n: tensor<i32>) -> tensor<1048576xf32> {{
  %zero = stablehlo.constant dense<0> : tensor<i32>
  {limit}
  %r:2 = stablehlo.while(%i = %zero, %v = %x) : tensor<i32>, tensor<1048576xf32>
  cond {{
    {inside}
    %go = stablehlo.compare LT, %i, {trips} : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %go : tensor<i1>
  }} do {{
    %w = stablehlo.tanh %v : tensor<1048576xf32>
    %one = stablehlo.constant dense<1> : tensor<i32>
    %next = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %next, %w : tensor<i32>, tensor<1048576xf32>
  }}
  return %r#1 : tensor<1048576xf32>
}}
"""


def length(trips=None):
    constant = f"%c = stablehlo.constant dense<{trips}> : tensor<i32>"
    text = LOOP.format(limit="", inside=constant if trips else "", trips="%c" if trips else "%n")
    return simulate(Module.parse(text).snapshot(), TargetCosts(TARGET)).makespan_us


def test_counted_loops_take_all_their_trips():
    assert length(4) == pytest.approx(4 * length(1))


def test_other_loops_take_one_trip_and_ask_the_host_twice():
    assert length() == pytest.approx(length(1) + 2 * TARGET.profile.decide_us)
    assert TARGET.profile.decide_us > 0
