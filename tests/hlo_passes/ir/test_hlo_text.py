import pytest

from hlo_passes.errors import InputError
from hlo_passes.ir.hlo_graph import graph_of
from hlo_passes.ir.hlo_text import read_hlo
from tests.hlo import STEP, scheduled


def test_reads_shapes_operands_and_attributes():
    module = read_hlo(STEP)
    entry = {i.name: i for i in module.entry.instructions}
    start = entry["a2a-start"]
    assert start.opcode == "all-to-all-start"
    assert [str(leaf) for leaf in start.leaves] == ["bf16[8,64]", "bf16[8,64]"]
    assert start.operands == ("x",)
    assert start.attribute("channel_id") == "1"
    assert entry["gemm"].attribute("output_to_operand_aliasing") == "{{0}: (2, {})}"
    assert entry["out"].is_root


def test_source_lines_come_from_stack_frames():
    module = read_hlo(STEP)
    start = next(i for i in module.entry.instructions if i.name == "a2a-start")
    assert module.source_of(start) == "model.py:7"


def test_operands_without_percent_signs_and_with_shapes():
    text = """HloModule old
ENTRY main {
  a = f32[2,3]{1,0} parameter(0)
  t = (f32[2,3]{1,0}, s32[]) tuple(f32[2,3]{1,0} a, s32[] constant.1)
}
"""
    with pytest.raises(InputError, match=r"constant\.1"):
        read_hlo(text)
    fixed = text.replace("  t =", "  constant.1 = s32[] constant(3)\n  ROOT t =")
    assert read_hlo(fixed).entry.instructions[-1].operands == ("a", "constant.1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.replace("HloModule", "Module"), "no HloModule"),
        (lambda t: t[: t.index("ROOT")], "truncated"),
        (lambda t: t.replace("ENTRY ", ""), "no ENTRY"),
        (lambda t: t.replace("(%a2a-start)", "(%later)"), "reads later"),
        (
            lambda t: t.replace("  ROOT", "  %x = s32[] constant(1)\n  ROOT"),
            "x is defined a second",
        ),
        (lambda t: t.replace("bf16[8,64]{1,0} all-to-all-done", "<<>>"), "cannot read"),
    ],
)
def test_damage_is_one_clear_error_with_a_place(damage, message):
    with pytest.raises(InputError, match=message) as caught:
        read_hlo(damage(STEP), "step.txt")
    assert str(caught.value).startswith("step.txt")
    assert "try:" in str(caught.value)


def test_graph_pairs_halves_and_takes_xla_costs():
    graph = graph_of(read_hlo(STEP))
    by_name = {op.name: op for op in graph.ops}
    assert graph.done_of == {by_name["a2a-start"].id: by_name["a2a-done"].id}
    assert by_name["a2a-start"].collective.bytes == 8 * 64 * 2
    assert by_name["a2a-start"].collective.groups == (tuple(range(8)),)
    assert by_name["dw"].xla_us == 12.5
    assert by_name["dw"].matmul
    assert by_name["dw"].flops == 2 * 64 * 64 * 8
    assert graph.scheduled
    assert graph.devices == 8


def test_fusions_are_charged_for_what_they_read():
    text = scheduled(
        """  %table = f32[1000,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %row = f32[1,64]{1,0} fusion(%table, %i), kind=kLoop, calls=%pick""",
        """%pick (p0: f32[1000,64], p1: s32[]) -> f32[1,64] {
  %p0 = f32[1000,64]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %z = s32[] constant(0)
  ROOT %ds = f32[1,64]{1,0} dynamic-slice(%p0, %p1, %z), dynamic_slice_sizes={1,64}
}""",
    )
    row = graph_of(read_hlo(text)).ops[-1]
    assert row.bytes == 64 * 4 + 4 + 64 * 4


def test_loops_are_graphs_of_their_own_with_trip_counts():
    text = scheduled(
        """  %init = (s32[], f32[8,64]) parameter(0)
  ROOT %loop = (s32[], f32[8,64]) while(%init), condition=%cond, body=%body, """
        """backend_config={"known_trip_count":{"n":"12"}}""",
        """%body (p: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %p = (s32[], f32[8,64]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %v = f32[8,64]{1,0} get-tuple-element(%p), index=1
  %s = f32[8,64]{1,0} all-to-all(%v), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %t = (s32[], f32[8,64]) tuple(%i, %s)
}
%cond (p: (s32[], f32[8,64])) -> pred[] {
  %p.1 = (s32[], f32[8,64]) parameter(0)
  ROOT %c = pred[] constant(true)
}""",
    )
    graph = graph_of(read_hlo(text))
    (loop,) = [op for op in graph.ops if op.kind == "while"]
    assert loop.trips == 12
    assert [(g.name, trips) for g, trips in graph.walk()] == [("main", 1), ("body", 12)]
    assert len(loop.inner[0].exchanges) == 1
