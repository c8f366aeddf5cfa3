"""Who may overwrite a buffer only after everybody has read it."""

import pytest

from hlo_passes.ir.hlo.scheduled import ScheduledModule
from tests.hlo import scheduled

DONATED = ", input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_layout={...}"


def order_of(text):
    """Return the orders of a module that data does not show, as pairs of names."""
    graph = ScheduledModule(text).snapshot()
    return {(graph.ops[a].name, graph.ops[b].name) for a, b in graph.ordered}


def test_readers_of_a_donated_weight_stay_before_the_update():
    text = scheduled(
        """  %w = f32[8]{0} parameter(0)
  %g = f32[8]{0} parameter(1)
  %dx = f32[8]{0} multiply(%w, %g)
  %new = f32[8]{0} subtract(%w, %g)
  ROOT %out = (f32[8], f32[8]) tuple(%new, %dx)""",
        header=DONATED,
    )
    assert order_of(text) == {("dx", "new")}


def test_reads_through_other_names_count():
    text = scheduled(
        """  %w = f32[8]{0} parameter(0)
  %g = f32[2,4]{1,0} parameter(1)
  %view = f32[2,4]{1,0} bitcast(%w)
  %dx = f32[2,4]{1,0} multiply(%view, %g)
  %flat = f32[8]{0} bitcast(%g)
  %new = f32[8]{0} subtract(%w, %flat)
  ROOT %out = (f32[8], f32[2,4]) tuple(%new, %dx)""",
        header=DONATED,
    )
    assert order_of(text) == {("dx", "new")}


def test_nothing_is_ordered_without_donation():
    text = scheduled(
        """  %w = f32[8]{0} parameter(0)
  %g = f32[8]{0} parameter(1)
  %dx = f32[8]{0} multiply(%w, %g)
  %new = f32[8]{0} subtract(%w, %g)
  ROOT %out = (f32[8], f32[8]) tuple(%new, %dx)"""
    )
    assert order_of(text) == set()


@pytest.mark.parametrize(
    "writer",
    [
        "custom-call(%b, %c, %a), output_to_operand_aliasing={{}: (2, {})}",
        "dynamic-update-slice(%a, %b, %i)",
        "fusion(%c, %a, %b, %i), kind=kLoop, calls=%update",
    ],
)
def test_in_place_updates_wait_for_other_readers(writer):
    update = """%update (p0: f32[8], p1: f32[8], p2: f32[1], p3: s32[]) -> f32[8] {
  %p0 = f32[8]{0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %p2 = f32[1]{0} parameter(2)
  %p3 = s32[] parameter(3)
  ROOT %u = f32[8]{0} dynamic-update-slice(%p1, %p2, %p3)
}"""
    text = scheduled(
        f"""  %x = f32[8]{{0}} parameter(0)
  %b = f32[1]{{0}} parameter(1)
  %i = s32[] parameter(2)
  %c = f32[8]{{0}} parameter(3)
  %a = f32[8]{{0}} copy(%x)
  %reader = f32[8]{{0}} negate(%a)
  %writer = f32[8]{{0}} {writer}
  ROOT %out = (f32[8], f32[8]) tuple(%writer, %reader)""",
        update,
    )
    assert ("reader", "writer") in order_of(text)


def test_a_loop_writes_where_its_state_lies():
    text = scheduled(
        """  %w = f32[8]{0} parameter(0)
  %n = s32[] constant(0)
  %dx = f32[8]{0} negate(%w)
  %init = (s32[], f32[8]) tuple(%n, %w)
  %loop = (s32[], f32[8]) while(%init), condition=%cond, body=%body
  %new = f32[8]{0} get-tuple-element(%loop), index=1
  ROOT %out = (f32[8], f32[8]) tuple(%new, %dx)""",
        """%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %p = (s32[], f32[8]) parameter(0)
}
%cond (q: (s32[], f32[8])) -> pred[] {
  %q = (s32[], f32[8]) parameter(0)
  ROOT %c = pred[] constant(true)
}""",
        header=DONATED,
    )
    assert ("dx", "loop") in order_of(text)


def test_side_effects_keep_their_order():
    text = scheduled(
        """  %a = f32[8]{0} parameter(0)
  %p = f32[8]{0} custom-call(%a), custom_call_target="x", custom_call_has_side_effect=true
  %q = f32[8]{0} custom-call(%a), custom_call_target="y", custom_call_has_side_effect=true
  ROOT %out = (f32[8], f32[8]) tuple(%p, %q)"""
    )
    assert order_of(text) == {("p", "q")}


def test_control_dependencies_are_kept():
    text = scheduled(
        """  %a = f32[8]{0} parameter(0)
  %p = f32[8]{0} negate(%a)
  %q = f32[8]{0} exponential(%a), control-predecessors={%p}
  ROOT %out = (f32[8], f32[8]) tuple(%p, %q)"""
    )
    assert order_of(text) == {("p", "q")}


LOOP = """%body (p: (s32[], f32[8], f32[8])) -> (s32[], f32[8], f32[8]) {
  %p = (s32[], f32[8], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %sum = f32[8]{0} get-tuple-element(%p), index=1
  %same = f32[8]{0} get-tuple-element(%p), index=2
  %more = f32[8]{0} add(%sum, %same)
  ROOT %out = (s32[], f32[8], f32[8]) tuple(%i, %more, %same)
}

%going (p: (s32[], f32[8], f32[8])) -> pred[] {
  %p = (s32[], f32[8], f32[8]) parameter(0)
  ROOT %yes = pred[] constant(true)
}"""


def test_a_loop_overwrites_only_what_it_changes():
    text = scheduled(
        """  %n = s32[] parameter(0)
  %a = f32[8]{0} parameter(1)
  %b = f32[8]{0} parameter(2)
  %ra = f32[8]{0} negate(%a)
  %rb = f32[8]{0} negate(%b)
  %t = (s32[], f32[8], f32[8]) tuple(%n, %a, %b)
  %loop = (s32[], f32[8], f32[8]) while(%t), condition=%going, body=%body
  %kept = f32[8]{0} get-tuple-element(%loop), index=2
  ROOT %r = (f32[8], f32[8], f32[8]) tuple(%ra, %rb, %kept)""",
        LOOP,
    )
    assert order_of(text) == {("ra", "loop")}


def test_what_a_loop_hands_on_is_still_the_same_memory():
    text = scheduled(
        """  %n = s32[] parameter(0)
  %a = f32[8]{0} parameter(1)
  %b = f32[8]{0} parameter(2)
  %one = f32[1]{0} parameter(3)
  %t = (s32[], f32[8], f32[8]) tuple(%n, %a, %b)
  %loop = (s32[], f32[8], f32[8]) while(%t), condition=%going, body=%body
  %kept = f32[8]{0} get-tuple-element(%loop), index=2
  %read = f32[8]{0} negate(%kept)
  %new = f32[8]{0} dynamic-update-slice(%b, %one, %n)
  ROOT %r = (f32[8], f32[8]) tuple(%read, %new)""",
        LOOP,
    )
    assert order_of(text) == {("loop", "new"), ("read", "new")}


def test_leaves_of_one_tuple_are_memories_of_their_own():
    zeros = """%zeros () -> (f32[8], f32[8]) {
  %z = f32[] constant(0)
  %x = f32[8]{0} broadcast(%z), dimensions={}
  ROOT %r = (f32[8], f32[8]) tuple(%x, %x)
}"""
    text = scheduled(
        """  %n = s32[] parameter(0)
  %one = f32[1]{0} parameter(1)
  %both = (f32[8], f32[8]) fusion(), kind=kLoop, calls=%zeros
  %x = f32[8]{0} get-tuple-element(%both), index=0
  %y = f32[8]{0} get-tuple-element(%both), index=1
  %rx = f32[8]{0} negate(%x)
  %ry = f32[8]{0} negate(%y)
  %new = f32[8]{0} dynamic-update-slice(%y, %one, %n)
  ROOT %r = (f32[8], f32[8], f32[8]) tuple(%rx, %ry, %new)""",
        zeros,
    )
    assert order_of(text) == {("ry", "new")}
