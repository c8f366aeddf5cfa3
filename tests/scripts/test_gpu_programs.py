"""Scheduled modules for one GPU: every exchange becomes a pair of custom calls, nothing else moves."""

import re

import pytest
from jaxlib import _hlo

from scripts.emulated_exchanges import DONE, START, emulate
from scripts.scheduled_programs import parameter_names, signature_of

HEADER = (
    "HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (1, {}, may-alias) }, "
    "entry_computation_layout={(bf16[16,8]{1,0}, f32[64]{0})->(f32[64]{0}, bf16[16,8]{1,0}, "
    "bf16[32,8]{1,0})}, num_partitions=8"
)
BODY = """
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

ENTRY %main (x: bf16[16,8], g: f32[64]) -> (f32[64], bf16[16,8], bf16[32,8]) {
  %x = bf16[16,8]{1,0} parameter(0), sharding={devices=[8,1]<=[8]}, metadata={op_name="state['scale']"}
  %g = f32[64]{0} parameter(1)
  %sizes = s64[8]{0} constant({1, 1, 1, 1, 1, 1, 1, 1})
  %zero = bf16[] constant(0)
  %rows = bf16[32,8]{1,0:S(7)} broadcast(%zero), dimensions={}
  %sent = bf16[16,8]{1,0} copy(%x)
  %all-to-all-start = ((bf16[16,8]{1,0}), bf16[16,8]{1,0}) all-to-all-start(%sent), channel_id=1, replica_groups=mesh['expert'=8] {'expert'}, dimensions={0}, metadata={op_name="jit(step)/all_to_all"}, backend_config={"collective_backend_config":{"is_sync":false}}
  %beside = bf16[16,8]{1,0} multiply(%x, %x)
  %all-to-all-done = bf16[16,8]{1,0} all-to-all-done(%all-to-all-start)
  %waited = bf16[16,8]{1,0} all-to-all(%all-to-all-done), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %ragged-all-to-all-start = ((bf16[16,8]{1,0}, bf16[32,8]{1,0:S(7)}, s64[8]{0}, s64[8]{0}, s64[8]{0}, /*index=5*/s64[8]{0}), bf16[32,8]{1,0:S(7)}) ragged-all-to-all-start(%waited, %rows, %sizes, %sizes, %sizes, /*index=5*/%sizes), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, frontend_attributes={lancet_fill="1"}
  %all-reduce-start = ((f32[64]{0}), f32[64]{0}) all-reduce-start(%g), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%sum, output_to_operand_aliasing={{1}: (0, {})}
  %ragged-all-to-all-done = bf16[32,8]{1,0:S(7)} ragged-all-to-all-done(%ragged-all-to-all-start), frontend_attributes={lancet_fill="1"}
  %all-reduce-done = f32[64]{0} all-reduce-done(%all-reduce-start)
  ROOT %out = (f32[64]{0}, bf16[16,8]{1,0}, bf16[32,8]{1,0}) tuple(%all-reduce-done, %beside, %ragged-all-to-all-done)
}
"""
TIMES = {"all-to-all-start": 10.0, "waited": 20.0, "ragged-all-to-all-start": 30.5,
         "all-reduce-start": 40.0}  # fmt: skip


@pytest.fixture(scope="module")
def emulated():
    return emulate(HEADER + BODY, TIMES)


def lines_of(text):
    """The entry's lines by name, in order."""
    entry = text[text.index("ENTRY") :]
    return dict(re.findall(r"^  (?:ROOT )?%([\w.\-]+) = (.*)$", entry, re.MULTILINE))


def test_every_exchange_is_listed_with_its_time(emulated):
    found = {e.name: (e.kind, e.us, e.number) for e in emulated.exchanges}
    assert found == {
        "all-to-all-start": ("all-to-all", 10.0, 0),
        "waited": ("all-to-all", 20.0, 1),
        "ragged-all-to-all-start": ("ragged-all-to-all", 30.5, 2),
        "all-reduce-start": ("all-reduce", 40.0, 3),
    }


def test_the_order_stays_and_one_that_is_waited_for_becomes_two_lines(emulated):
    before, after = list(lines_of(HEADER + BODY)), list(lines_of(emulated.text))
    at = before.index("waited")
    assert after == [*before[:at], "waited.start", *before[at:]]


def test_a_start_makes_what_its_done_made_and_the_done_keeps_what_is_sent(emulated):
    lines = lines_of(emulated.text)
    start, done = lines["all-to-all-start"], lines["all-to-all-done"]
    assert start.startswith("bf16[16,8]{1,0} custom-call(%sent)")
    assert f'custom_call_target="{START}"' in start
    assert "us = 10.000000 : f64" in start
    assert done.startswith("bf16[16,8]{1,0} custom-call(%all-to-all-start, %sent)")
    assert f'custom_call_target="{DONE}"' in done
    assert "output_to_operand_aliasing={{}: (0, {})}" in done
    assert 'op_name="jit(step)/all_to_all"' in start
    assert lines["waited"].startswith(
        "bf16[16,8]{1,0} custom-call(%waited.start, %all-to-all-done)"
    )


def test_exchanges_in_place_stay_in_place(emulated):
    lines = lines_of(emulated.text)
    assert "output_to_operand_aliasing={{}: (1, {})}" in lines["ragged-all-to-all-start"]
    assert "output_to_operand_aliasing={{}: (0, {})}" in lines["all-reduce-start"]
    assert "output_to_operand_aliasing" not in lines["all-to-all-start"]
    assert lines["ragged-all-to-all-done"].count("%") == 7


def test_xla_reads_it_as_a_module_of_one_device(emulated):
    text = emulated.text
    assert not re.search(r"(all-to-all|all-reduce)(-start|-done)?\(", text)
    for word in ("num_partitions", "sharding=", "S(7)", "replica_groups"):
        assert word not in text
    module = _hlo.hlo_module_from_text(text)
    read = module.to_string()
    assert "is_scheduled=true" in read
    assert read.count(START) == read.count(DONE) == 4
    names = [n for n in lines_of(text) if n not in ("x", "g")]
    order = [n for n in lines_of(read) if n not in ("x", "g")]
    assert order == names


def test_the_signature_is_read_off_the_header(emulated):
    signature = signature_of(emulated.text)
    assert signature.arguments == (("bfloat16", (16, 8)), ("float32", (64,)))
    assert [r[1] for r in signature.results] == [(64,), (16, 8), (32, 8)]
    assert signature.donated == ((0, 1),)
    assert parameter_names(emulated.text) == {0: "state['scale']", 1: ""}


@pytest.mark.parametrize(
    ("text", "times", "why"),
    [
        ("HloModule m\n", {}, "no scheduled"),
        (HEADER + BODY, {}, "all-to-all-start: no time"),
        (HEADER + re.sub(r".*all-to-all-done\(%all.*\n", "", BODY), TIMES, "nothing waits for"),
    ],
)
def test_what_cannot_be_replaced_is_refused(text, times, why):
    with pytest.raises(ValueError, match=why):
        emulate(text, times)
