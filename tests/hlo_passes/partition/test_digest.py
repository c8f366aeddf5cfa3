"""Equal digests mean equal programs: what does not matter is ignored, what does is not."""

import re

import pytest

from hlo_passes.ir.hlo.text import read_hlo
from hlo_passes.partition.digest import digest_of

LOOP = """HloModule m, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%callee (x: f32[4,1,8], s: f32[]) -> f32[4,8] {
  %x = f32[4,1,8] parameter(0)
  %s = f32[] parameter(1)
  %x2 = f32[4,8] reshape(%x)
  %sb = f32[4,8] broadcast(%s), dimensions={}
  ROOT %y = f32[4,8] multiply(%sb, %x2)
}

%body (p: (s32[], f32[4,8], f32[4,8])) -> (s32[], f32[4,8], f32[4,8]) {
  %p = (s32[], f32[4,8], f32[4,8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %v = f32[4,8] get-tuple-element(%p), index=1
  %k = f32[4,8] get-tuple-element(%p), index=2
  %one = s32[] constant(1)
  %j = s32[] add(%i, %one)
  %w = f32[4,8] subtract(%v, %k)
  ROOT %t = (s32[], f32[4,8], f32[4,8]) tuple(%j, %w, %k)
}

%cond (p: (s32[], f32[4,8], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8], f32[4,8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %e (x: f32[4,1,8]) -> (f32[4,8], f32[4,8]) {
  %x = f32[4,1,8] parameter(0)
  %half = f32[] constant(0.5)
  %two = f32[] constant(2)
  %quarter = f32[] divide(%half, %two)
  %y = f32[4,8] call(%x, %quarter), to_apply=%callee
  %z = s32[] constant(0)
  %init = (s32[], f32[4,8], f32[4,8]) tuple(%z, %y, %y)
  %loop = (s32[], f32[4,8], f32[4,8]) while(%init), condition=%cond, body=%body
  %out = f32[4,8] get-tuple-element(%loop), index=1
  %sum = f32[4,8] all-reduce(%out), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, \
use_global_device_ids=true, to_apply=%add, metadata={op_name="sum"}
  ROOT %t = (f32[4,8], f32[4,8]) tuple(%sum, %y)
}
"""

SAME = {
    "names": ("%half", "%a_half"),
    "metadata": ('metadata={op_name="sum"}', 'metadata={op_name="other" stack_frame_id=3}'),
    "channels": ("channel_id=1", "channel_id=7"),
    "groups spelled as a table": ("{{0,1,2,3},{4,5,6,7}}", "[2,4]<=[8]"),
    "groups spelled as axes": ("{{0,1,2,3},{4,5,6,7}}", "mesh['a'=2,'b'=4] {'b'}"),
    "sides of a product": ("multiply(%sb, %x2)", "multiply(%x2, %sb)"),
    "a constant computed": ("divide(%half, %two)", "multiply(%half, %half)"),
    "a copy": ("all-reduce(%out)", "all-reduce(%y3)"),
    "dead code": ("  %z = s32[]", "  %dead = f32[] add(%half, %two)\n  %z = s32[]"),
    "dims of size 1": ("f32[4,1,8]", "f32[1,4,8]"),
}
OTHER = {
    "an opcode": ("subtract(%v, %k)", "multiply(%v, %k)"),
    "sides of a difference": ("subtract(%v, %k)", "subtract(%k, %v)"),
    "a constant": ("constant(0.5)", "constant(0.25)"),
    "trips": ("constant(5)", "constant(6)"),
    "groups": ("{{0,1,2,3},{4,5,6,7}}", "{{0,1,2,4},{3,5,6,7}}"),
    "order within a group": ("{{0,1,2,3},{4,5,6,7}}", "{{1,0,2,3},{4,5,6,7}}"),
    "a mesh in another order": (
        "{{0,1,2,3},{4,5,6,7}}", "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}",
    ),
    "what is summed with": ("f32[] add(%a, %b)", "f32[] maximum(%a, %b)"),
    "which result": ("get-tuple-element(%loop), index=1", "get-tuple-element(%loop), index=2"),
    "what a loop starts from": ("tuple(%z, %y, %y)", "tuple(%z, %y, %x3)"),
    "order of results": ("tuple(%sum, %y)", "tuple(%y, %sum)"),
    "a comparison": ("direction=LT", "direction=LE"),
}  # fmt: skip


def changed(old, new):
    assert old in LOOP
    text = LOOP.replace(old, new)
    if "%y3" in text:
        text = text.replace("  %sum = ", "  %y3 = f32[4,8] copy(%out)\n  %sum = ")
    if "%x3" in text:
        text = text.replace("  %z = s32[]", "  %x3 = f32[4,8] reshape(%x)\n  %z = s32[]")
    return digest_of(read_hlo(text))


@pytest.mark.parametrize("case", SAME)
def test_what_does_not_matter_is_ignored(case):
    old, new = SAME[case]
    if case == "dims of size 1":
        old, new = (
            "%x2 = f32[4,8] reshape(%x)",
            ("%x1 = f32[4,8,1] reshape(%x)\n  %x2 = f32[4,8] reshape(%x1)"),
        )
    assert changed(old, new) == digest_of(read_hlo(LOOP))


@pytest.mark.parametrize("case", OTHER)
def test_what_matters_is_seen(case):
    assert changed(*OTHER[case]) != digest_of(read_hlo(LOOP))


def test_what_no_trip_changes_may_come_from_outside():
    """MLIR takes such values out of a loop's carried ones."""
    text = LOOP.replace("(s32[], f32[4,8], f32[4,8])", "(s32[], f32[4,8], f32[4,8], f32[4,8])")
    text = text.replace("tuple(%z, %y, %y)", "tuple(%z, %y, %y, %y)")
    text = text.replace("tuple(%j, %w, %k)", "tuple(%j, %w, %k, %l)")
    text = re.sub(r"(  %one = )", r"  %l = f32[4,8] get-tuple-element(%p), index=3\n\1", text)
    assert digest_of(read_hlo(text)) == digest_of(read_hlo(LOOP))


ROW = "%i = s32[8] iota(), iota_dimension=0\n %r = s32[4,8] broadcast(%i), dimensions={1}"
NOT_ZERO = """%z = f32[] constant(0)
 %b = f32[1,8] broadcast(%z), dimensions={}
 %r = pred[1,8] compare(%p, %b), direction=NE"""
ALWAYS = """%yes = pred[] constant(true)
 %all = pred[64,8] broadcast(%yes), dimensions={}
 %i = s32[] constant(3)
 %mine = pred[1,8] dynamic-slice(%all, %i, %i), dynamic_slice_sizes={1,8}
 %r = f32[1,8] select(%mine, %p, %q)"""
LONG = """%yes = pred[] constant(true)
 %all = pred[999,8] broadcast(%yes), dimensions={}
 %big = f32[999,8] broadcast(%p), dimensions={0,1}
 %some = pred[999,8] compare(%big, %big), direction=LT
 %r = pred[999,8] and(%all, %some)"""
SIGN = """%two = s32[8] constant({2,2,2,2,2,2,2,2})
 %r = s32[8] sign(%two)"""
PARTS = """%c = f32[2,8] concatenate(%p, %q), dimensions={0}
 %r = f32[1,8] slice(%c), slice={[1:2], [0:8]}"""


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("%r = f32[8,1] reshape(%p)", "%r = f32[8,1] transpose(%p), dimensions={1,0}",
         "%r = f32[8,1] reshape(%q)"),
        ("%r = f32[8,1] reshape(%p)", "%s = f32[8] reshape(%p)\n %r = f32[8,1] reshape(%s)",
         "%r = f32[4,2] reshape(%p)"),
        (ROW, "%r = s32[4,8] iota(), iota_dimension=1", ROW.replace("{1}", "{0}").replace("8", "4")),
        (NOT_ZERO, "%r = pred[1,8] convert(%p)", NOT_ZERO.replace("NE", "EQ")),
        (ALWAYS, "%r = f32[1,8] copy(%p)", ALWAYS.replace("true", "false")),
        (LONG, LONG.replace("and(%all, %some)", "copy(%some)"), LONG.replace("true", "false")),
        (SIGN, "%r = s32[8] constant({1,1,1,1,1,1,1,1})", SIGN.replace("2,2}", "2,-2}")),
        (PARTS, "%r = f32[1,8] copy(%q)", PARTS.replace("1:2", "0:1")),
        ("%r = f32[1,8] copy(%q)", "%z = f32[1,8] subtract(%q, %q)\n %r = f32[1,8] copy(%q)",
         "%r = f32[1,8] subtract(%q, %q)"),
    ],
)  # fmt: skip
def test_two_ways_to_write_the_same(one, same, other):
    def digest(lines):
        head = "HloModule m\n\nENTRY e {\n p = f32[1,8] parameter(0)\n q = f32[1,8] parameter(1)\n "
        return digest_of(read_hlo(head + lines.replace("%r =", "ROOT %r =") + "\n}\n"))

    assert digest(one) == digest(same)
    assert digest(one) != digest(other)


def test_a_constant_that_is_not_printed_whole_is_refused():
    text = "HloModule m\n\nENTRY e {\n ROOT c = s32[5000] constant({...})\n}\n"
    with pytest.raises(ValueError, match="not printed whole"):
        digest_of(read_hlo(text))
