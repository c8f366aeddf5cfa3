import pytest

from hlo_passes.errors import InputError
from hlo_passes.ir import files
from hlo_passes.ir.files import parse
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.text import read_hlo
from hlo_passes.ir.hlo.to_graph import graph_of
from lancet_jax.cli.app import run
from scripts.hlo_facts import facts_of_jaxlib, facts_of_ours
from tests.hlo import STEP, scheduled
from tests.hlo_samples import PLAIN, SAMPLES


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


@pytest.mark.parametrize("name", SAMPLES)
def test_what_people_write_is_read_as_jaxlib_reads_it(name):
    ours = facts_of_ours(parse(SAMPLES[name].encode(), name))
    assert not list(ours.differences(facts_of_jaxlib(SAMPLES[name])))


def test_figures_of_what_people_write():
    facts = facts_of_ours(parse(SAMPLES["short"].encode(), "short"))
    assert facts.groups == {"y.1": ((0, 1), (2, 3)), "w": ()}
    assert facts.sizes["main", "z"] == (("f32", (16, 16)), ("f32", (16, 16)))
    facts = facts_of_ours(parse(SAMPLES["spaced"].encode(), "spaced"))
    assert facts.groups == {
        "sent": ((0, 1, 2, 3), (4, 5, 6, 7)),
        "sum": ((0, 2, 4, 6), (1, 3, 5, 7)),
        "ring": ((0, 1), (1, 2), (2, 0)),
    }
    assert facts.trips == {"loop": 12}


def test_what_xla_prints_is_read_as_it_stands(monkeypatch):
    monkeypatch.setattr(files, "parsed_apart", None)
    assert parse(PLAIN.encode(), "plain").text == PLAIN
    assert parse(STEP.encode(), "step").text == STEP


FIRST = "ENTRY %main (tokens: f32[8,64], few: s8[<=10]) -> (f32[8,64], f32[64,64]) {\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.replace(FIRST, FIRST + "  whatever\n"), r":27: not understood: whatever"),
        (lambda t: t + "\nwhatever\n", r":42: not understood: whatever"),
        (lambda t: t + t, r":41: not understood: HloModule plain"),
        (lambda t: t.replace("%body (", "%add ("), r":9: computation add is defined a second time"),
        (lambda t: t.replace("body=%body", "body=%bodi"), r":34: loop calls bodi"),
        (lambda t: t.replace("s8[<=10]{0} p", "q8[<=10]{0} p"), r":28: .* 'q8' is no element type"),
        (lambda t: t.replace("s8[<=10]{0} p", "s8[?]{0} p"), r":28: .* unbounded dimension"),
        (lambda t: t.replace("f32[8,64]{1,0}) tuple(%next", "f32[8,64]{1,0} x) tuple(%next"),
         r":16: .* no part of a shape"),
        (lambda t: t.replace("(%zero, %sum)", "(%zero, 7 %sum)"), r":33: .* is no operand"),
        (lambda t: t.replace(", direction=LT", " direction=LT"), r":23: .* is no attribute"),
        (lambda t: t.replace(", direction=LT", ", direction=LT,"), r":23: .* next line"),
        (lambda t: t.replace("{{0,1},{1,2},{2,0}}", "{{0,1},{1,2},{2,0}"), r":15: .* not closed"),
        (lambda t: t.replace("{{0,1},{1,2}", "{{0,1},  {1,2}"), r":15: .* spaced otherwise"),
        (lambda t: t.replace("ROOT %s =", "%s =").replace("%y =", "ROOT %y ="), None),
        (lambda t: t.replace("  %y =", "  ROOT %y ="), r"computation add has 2 ROOT"),
    ],
)  # fmt: skip
def test_a_line_is_understood_to_its_end_or_named(damage, message):
    text = damage(PLAIN)
    assert text != PLAIN
    if message is None:
        read_hlo(text, "x")
        return
    with pytest.raises(InputError, match="^x" + (message if message[0] == ":" else f": {message}")):
        read_hlo(text, "x")


def test_what_nobody_understands_is_exit_code_2(tmp_path, capsys):
    path = tmp_path / "x.hlo"
    path.write_text(PLAIN.replace(FIRST, FIRST + "  whatever\n"))
    assert run(["inspect", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}:27: not understood: whatever (jaxlib's parser: expects" in said
    assert said.count("\n  try: ") == 1


def test_attributes_are_not_looked_up_in_strings():
    line = (
        '  ROOT %s = f32[8]{0} custom-call(%x), custom_call_target="f", metadata={op_name="a, index=7"'
        '}, backend_config="x, index=8", frontend_attributes={a="{", index="9"}, index=3'
    )
    text = scheduled("  %x = f32[8]{0} parameter(0)\n" + line)
    assert read_hlo(text).entry.instructions[-1].attribute("index") == "3"


def test_constants_that_a_text_leaves_out_stay_out():
    text = PLAIN.replace("{ { 1, 2 }, { 3, 4 } }", "{...}").replace("s32[2,2]", "s32[64,64]")
    written = parse(text.replace(", replica_groups", ",\n replica_groups").encode(), "x").text
    assert "%table = s32[64,64]{1,0} constant({...})" in written
    assert "constant({ { 1, 2 }, { 3, 4 } })" in parse(SAMPLES["indented"].encode(), "x").text


def test_what_xla_makes_of_leaves_and_sends():
    text = PLAIN.replace("all-to-all(%tokens)", "all-to-all(f32[8,64] %begin#1)")
    text = text.replace("  %sent", "  %begin = (s32[], f32[8,64]) parameter(2)\n  %sent")
    assert read_hlo(text).entry.instructions[3].picks == (1,)
    names = [op.name for op in parse(text.encode(), "x").snapshot().ops]
    assert names[:5] == ["tokens", "few", "begin", "begin_1", "sent"]
    assert read_hlo(PLAIN).is_as_printed
    sent = PLAIN.replace("  ROOT %both", "  %t = token[] after-all()\n"
        "  %s0 = (f32[64,64]) send(%free, %t), channel_id=9\n  ROOT %both")  # fmt: skip
    assert not read_hlo(sent).is_as_printed
    (leaves,) = [i.leaves for i in parse(sent.encode(), "x").parsed.entry.instructions
                 if i.name == "s0"]  # fmt: skip
    assert list(map(str, leaves)) == ["f32[64,64]", "ui32[]", "token[]"]


def test_xla_counts_some_names_as_one():
    text = PLAIN.replace("%zero", "%add.0")
    assert read_hlo(text).is_as_printed
    assert not read_hlo(text.replace("%start", "%add")).is_as_printed
    assert not read_hlo(PLAIN.replace("%limit", "%one")).is_as_printed


def test_configs_may_take_several_lines():
    text = PLAIN.replace('{"known', '{\n  "known').replace('"12"}}', '"12"}\n}')
    loop = next(i for i in read_hlo(text).entry.instructions if i.opcode == "while")
    assert (loop.line, loop.lines) == (34, 3)
    assert graph_of(read_hlo(text)).ops[loop_at(text)].trips == 12
    header = PLAIN.replace(
        "=8\n", '=8, table={\n  {"a"} : {"b"}, "\n%x = s32[] constant(1)\n"}\n', 1
    )
    assert read_hlo(header).header.endswith('"b"}, " %x = s32[] constant(1) "}')


def loop_at(text):
    names = [i.opcode for i in read_hlo(text).entry.instructions]
    return names.index("while")


def test_several_lines_are_moved_together():
    text = PLAIN.replace('{"known', '{\n  "known').replace('"12"}}', '"12"}\n}')
    module = ScheduledModule(text)
    order = list(range(len(module.snapshot().ops)))
    at = loop_at(text)
    order.insert(at, order.pop(at - 2))  # the table goes behind the loop
    moved = module.reordered({"main": order})
    names = [op.name for op in moved.snapshot().ops]
    assert names[at - 2 : at + 1] == ["start", "loop", "table"]
    assert sorted(moved.text.split("\n")) == sorted(text.split("\n"))
    again = moved.reordered({"main": [order.index(k) for k in range(len(order))]})
    assert again.text == text
