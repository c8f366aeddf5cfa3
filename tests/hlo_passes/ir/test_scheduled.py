import pytest
from jaxlib import _hlo

from hlo_passes.errors import InputError, PlanError
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from tests.hlo import STEP

TOY = """HloModule toy, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %a = f32[4]{0} negate(%x)
  %b = f32[4]{0} exponential(%x)
  %c = f32[4]{0} cosine(%x)
  %ab = f32[4]{0} add(%a, %b)
  ROOT %r = f32[4]{0} multiply(%ab, %c)
}
"""
ORDER = (0, 3, 2, 1, 4, 5)


@pytest.fixture
def toy():
    proto = _hlo.hlo_module_from_text(TOY).as_serialized_hlo_module_proto()
    return ScheduledModule.from_proto(proto)


def test_only_the_schedule_changes(toy):
    new = toy.reordered({"main": ORDER})
    xla = _hlo.HloModule.from_serialized_hlo_module_proto(new.proto)
    xla.schedule().verify()
    assert xla.to_string() == new.text
    assert sorted(new.text.split("\n")) == sorted(toy.text.split("\n"))
    assert [op.name for op in new.snapshot().ops] == ["x", "c", "b", "a", "ab", "r"]


def test_the_same_order_is_the_same_module(toy):
    same = toy.reordered({"main": range(6)})
    assert same.text == toy.text
    assert same.fingerprint == toy.fingerprint
    assert toy.reordered({"main": ORDER}).fingerprint != toy.fingerprint


def test_text_alone_can_be_reordered():
    module = ScheduledModule(STEP)
    graph = module.snapshot()
    order = [op.id for op in graph.ops if op.name != "dw"]
    order.insert(4, next(op.id for op in graph.ops if op.name == "dw"))
    names = [op.name for op in module.reordered({"main": order}).snapshot().ops]
    assert names[3:6] == ["a2a-start", "dw", "a2a-done"]


@pytest.mark.parametrize("orders", [{"main": (0, 1)}, {"main": (0,) * 6}, {"loop": (0,)}])
def test_an_order_that_does_not_fit_is_refused(toy, orders):
    with pytest.raises(PlanError, match="does not fit"):
        toy.reordered(orders)


def test_bytes_that_are_no_module():
    with pytest.raises(InputError, match=r"x\.pb: no HloModuleProto"):
        ScheduledModule.from_proto(b"\x0a\x05hello\x12\xff", "x.pb")


def test_the_line_that_an_op_comes_from_is_no_part_of_the_fingerprint():
    place = ', metadata={op_name="jit(f)/x{y}" stack_frame_id=7}'
    text = "\n".join(line + place if " = " in line else line for line in TOY.splitlines())
    text = text.replace("\n\nENTRY", '\n\nFileNames\n1 "a.py"\n\nENTRY')
    other = text.replace("stack_frame_id=7", "stack_frame_id=9").replace('1 "a.py"', '1 "b.py"')
    assert other != text
    assert ScheduledModule(other).fingerprint == ScheduledModule(text).fingerprint
    changed = text.replace("cosine", "sine")
    assert ScheduledModule(changed).fingerprint != ScheduledModule(text).fingerprint
