"""What a step holds whatever its order, and orders that keep within a limit for the whole."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import OptionError
from hlo_passes.facts.footprint import Footprint, describe_room, footprint_of, parse_bytes
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule.list.policies import list_order
from hlo_passes.schedule_dw import ScheduleDw
from tests.hlo import scheduled
from tests.problems import problems

COSTS = TargetCosts(parse_target("h100:1x8"))


@pytest.mark.parametrize(
    ("text", "size"),
    [("70GiB", 70 * 2**30), ("70 gb", 70 * 10**9), ("1.5MiB", 3 * 2**19), ("12", 12), (12, 12)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", "70 gigs", "1e9", "0.1b", -3, "70i"])
def test_bad_sizes(text):
    with pytest.raises(OptionError, match="70GiB"):
        parse_bytes(text)


DONATING = scheduled(
    """  %x = f32[16] parameter(0)
  %g = f32[4] parameter(1)
  %y = f32[16] add(%x, %x)
  %z = f32[4] add(%g, %g)
  ROOT %out = (f32[16], f32[4]) tuple(%y, %z)""",
    header=", input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_layout={()}",
)


def test_donated_memory_counts_once():
    found = footprint_of(ScheduledModule(DONATING).snapshot())
    assert found == Footprint(arguments=80, results=80, shared=64)
    assert (found.resident, found.room(100), found.room(10)) == (96, 4, 0)


STABLE = """module @jit_step attributes {mhlo.num_partitions = 2 : i32} {
  sdy.mesh @mesh = <["d"=2]>
  func.func public @main(%x: tensor<16xf32> {tf.aliasing_output = 0 : i32}, %g: tensor<4xf32>)
      -> tensor<16xf32> {
    %y = sdy.manual_computation(%x, %g) in_shardings=[<@mesh, [{"d"}]>, <@mesh, [{}]>]
      out_shardings=[<@mesh, [{"d"}]>] manual_axes={"d"}
      (%a: tensor<8xf32>, %b: tensor<4xf32>) {
      %c = stablehlo.add %a, %a : tensor<8xf32>
      sdy.return %c : tensor<8xf32>
    } : (tensor<16xf32>, tensor<4xf32>) -> tensor<16xf32>
    return %y : tensor<16xf32>
  }
}
"""


def test_stablehlo_counts_what_one_device_holds():
    module = Module.parse(STABLE)
    assert module.is_local
    assert footprint_of(module.snapshot()) == Footprint(arguments=48, results=32, shared=32)
    assert module.copy().snapshot().donated == 32


def test_a_step_to_be_partitioned_is_not_local():
    text = """module attributes {mhlo.num_partitions = 2 : i32} {
      func.func @main(%x: tensor<16xf32>) -> tensor<16xf32> { return %x : tensor<16xf32> } }"""
    assert not Module.parse(text).is_local
    assert Module.parse(text.replace("2 : i32", "1 : i32")).is_local


def greedy_step(wide):
    """A weight gradient whose input is small and whose result is large, ready from the start."""
    return scheduled(f"""  %x = f32[8,{wide}] parameter(0)
  %g = f32[8,{wide}] parameter(1)
  %s = ((f32[8,{wide}]), f32[8,{wide}]) all-to-all-start(%x), replica_groups={{}}, dimensions={{0}}
  %got = f32[8,{wide}] all-to-all-done(%s)
  %t = f32[8,{wide}] tanh(%got)
  %u = f32[8,{wide}] tanh(%t)
  %dw = f32[{wide},{wide}] dot(%x, %g), lhs_contracting_dims={{0}}, rhs_contracting_dims={{0}}
  %n = f32[{wide}] reduce-like(%dw)
  ROOT %out = (f32[8,{wide}], f32[{wide}]) tuple(%u, %n)""").replace("reduce-like", "custom-call")


def planned(text, limit, slack=0.02, uncut=0):
    module = ScheduledModule(text)
    context = Context(
        costs=COSTS, fingerprint=module.fingerprint, memory_limit=limit, uncut_bytes=uncut
    )
    return ReorderScheduled(ScheduleDw(memory_slack=slack)).plan(module.snapshot(), context)


def test_a_limit_is_for_arguments_results_and_temporaries():
    """Of two limits one byte apart the larger allows the order that the smaller forbids."""
    text = greedy_step(4096)
    free = planned(text, None, slack=1.0)
    assert free.after.peak_bytes > free.before.peak_bytes
    assert free.after.step_us < free.before.step_us
    held = footprint_of(ScheduledModule(text).snapshot()).resident
    same = planned(text, held + free.after.peak_bytes, slack=1.0)
    assert same.orders == free.orders
    less = planned(text, held + free.after.peak_bytes - 1, slack=1.0)
    assert less.after.peak_bytes < free.after.peak_bytes
    assert planned(text, None, slack=0.0).after.peak_bytes <= free.before.peak_bytes


def test_a_cut_step_may_hold_what_the_uncut_one_holds():
    text = greedy_step(4096)
    free = planned(text, None, slack=1.0)
    need = free.after.peak_bytes
    assert planned(text, None, slack=0.0, uncut=need).orders == free.orders
    assert planned(text, None, slack=0.0, uncut=need - 1).after.peak_bytes < need
    held = footprint_of(ScheduledModule(text).snapshot()).resident
    assert planned(text, held + need - 1, slack=0.0, uncut=need).after.peak_bytes < need


@given(problem=problems, share=st.floats(0.5, 1.5), slack=st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_every_order_fits(problem, share, slack):
    """Whatever the room, what is chosen fits it and the margin, or is what was there."""
    stock = problem.buffers.peak(range(problem.size))
    room = int(stock * share)
    order = ScheduleDw(memory_slack=slack).choose(replace(problem, room=room), 0.0).order
    if order is not None:
        assert problem.is_order(order)
        assert problem.buffers.peak(order) <= min(room, int(stock * (1 + slack)))


@given(problem=problems, share=st.floats(0.3, 0.99))
@settings(max_examples=60, deadline=None)
def test_an_order_that_fits_wins_over_one_that_does_not(problem, share):
    """A list order under a limit below program order's fits, or program order is returned."""
    stock = tuple(range(problem.size))
    limit = int(problem.buffers.peak(stock) * share)
    order = list_order(problem, memory_limit=limit)
    assert order == stock or problem.buffers.peak(order) <= limit


def test_in_words():
    line = describe_room(Footprint(10**9, 2 * 10**8, 10**8), 2 * 10**9, 10**8, 2 * 10**9)
    assert "leaves 900.0 MB" in line
    assert "no order is known that fits" in line
    assert "100.0 MB in donated memory" in line
