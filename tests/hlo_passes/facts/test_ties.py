"""Kernels whose results wait for different exchanges are ties, others are not."""

import pytest

from hlo_passes.facts.ties import find_ties
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from tests.hlo import scheduled

STEP = """
  %x = f32[8,64]{1,0} parameter(0)
  %y = f32[8,64]{1,0} parameter(1)
  %start.1 = ((f32[8,64]{1,0}), f32[8,64]{1,0}) all-to-all-start(%x), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %first = f32[8,64]{1,0} all-to-all-done(%start.1)
  %start.2 = ((f32[8,64]{1,0}), f32[8,64]{1,0}) all-to-all-start(%y), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %second = f32[8,64]{1,0} all-to-all-done(%start.2)
  %both = (f32[8,64]{1,0}, f32[8,64]{1,0}) fusion(OPERANDS), kind=kLoop, calls=%fused
  %u = f32[8,64]{1,0} get-tuple-element(%both), index=0
  %v = f32[8,64]{1,0} get-tuple-element(%both), index=1
  ROOT %out = (f32[8,64]{1,0}, f32[8,64]{1,0}) tuple(%u, %v)"""

FUSED = """%fused (p: f32[8,64], q: f32[8,64]) -> (f32[8,64], f32[8,64]) {
  %p = f32[8,64]{1,0} parameter(0)
  %q = f32[8,64]{1,0} parameter(1)
  %a = f32[8,64]{1,0} negate(%p)
  %b = f32[8,64]{1,0} OTHER
  ROOT %t = (f32[8,64]{1,0}, f32[8,64]{1,0}) tuple(%a, %b)
}"""


@pytest.mark.parametrize(
    ("operands", "other", "ties"),
    [
        ("%first, %second", "negate(%q)", ("both",)),
        ("%first, %second", "add(%p, %q)", ("both",)),
        ("%first, %x", "add(%p, %q)", ()),
        ("%first, %x", "negate(%q)", ("both",)),
        ("%x, %y", "negate(%q)", ()),
        ("%second, %second", "negate(%q)", ()),
    ],
)
def test_what_ties_exchanges_together(operands, other, ties):
    text = scheduled(STEP.replace("OPERANDS", operands), FUSED.replace("OTHER", other))
    assert find_ties(ScheduledModule(text)) == ties


def test_a_loop_is_looked_at_too():
    body = f"%body (s: f32[8,64]) -> f32[8,64] {{{STEP}\n}}".replace("OPERANDS", "%first, %second")
    body = body.replace("ROOT %out", "%out").replace("%y = f32[8,64]{1,0} parameter(1)",
                                                     "%y = f32[8,64]{1,0} negate(%x)")  # fmt: skip
    body = body.replace("\n}", "\n  ROOT %z = f32[8,64]{1,0} add(%u, %v)\n}")
    condition = """%condition (c: f32[8,64]) -> pred[] {
  %c = f32[8,64]{1,0} parameter(0)
  ROOT %go = pred[] constant(true)
}"""
    entry = """
  %x0 = f32[8,64]{1,0} parameter(0)
  ROOT %loop = f32[8,64]{1,0} while(%x0), condition=%condition, body=%body"""
    text = scheduled(entry, FUSED.replace("OTHER", "negate(%q)"), condition, body)
    assert find_ties(ScheduledModule(text)) == ("both",)
