"""Ragged exchanges as XLA and JAX write them: who takes part, what is sent, whose memory it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hlo_passes.ir.collectives import parse_fill, parse_skew
from hlo_passes.ir.hlo.text import read_hlo
from hlo_passes.ir.hlo.to_graph import graph_of
from hlo_passes.ir.stablehlo.module import Module
from tests.hlo import scheduled

TYPES = "(bf16[8,64]{1,0}, bf16[8,64]{1,0}, s64[8]{0}, s64[8]{0}, s64[8]{0}, /*index=5*/s64[8]{0})"
OPERANDS = "%x, %rows, %n, %n, %n, /*index=5*/%n"
WHO = "channel_id=3, replica_groups={{0,1,2,3,4,5,6,7}}"
FILL = ', frontend_attributes={lancet_fill="0.25"}'
BEFORE = """  %x = bf16[8,64]{1,0} parameter(0)
  %n = s64[8]{0} parameter(1)
  %rows = bf16[8,64]{1,0} negate(%x)
  %reader = bf16[8,64]{1,0} tanh(%rows)"""
OUT = "  ROOT %out = (bf16[8,64], bf16[8,64]) tuple(%got, %reader)"


def split(extra=FILL):
    return scheduled(f"""{BEFORE}
  %start = ({TYPES}, bf16[8,64]{{1,0}}) ragged-all-to-all-start({OPERANDS}), {WHO}{extra}
  %got = bf16[8,64]{{1,0}} ragged-all-to-all-done(%start){extra}
{OUT}""")


def whole(extra=FILL):
    config = 'backend_config={"collective_backend_config":{"is_sync":true}}'
    return scheduled(f"""{BEFORE}
  %got = bf16[8,64]{{1,0:S(7)}} ragged-all-to-all({OPERANDS}), {WHO}{extra}, {config}
{OUT}""")


@pytest.mark.parametrize("text", [split(), whole()], ids=["split", "whole"])
def test_hlo_says_who_takes_part_and_what_is_sent(text):
    graph = graph_of(read_hlo(text))
    (op,) = [graph.ops[i] for i in graph.exchanges]
    assert op.collective.kind == "ragged_all_to_all"
    assert op.collective.is_all_to_all
    assert op.collective.groups == (tuple(range(8)),)
    assert op.collective.channel == 3
    assert op.collective.bytes == 8 * 64 * 2
    assert op.collective.fill == 0.25
    assert op.blocking == (text == whole())


def wide(extra=""):
    """Eight times as much room before the exchange as behind it, as in a dropless combine."""
    before = BEFORE.replace("%x = bf16[8,64]", "%x = bf16[64,64]")
    before = before.replace("negate(%x)", "slice(%x), slice={[0:8], [0:64]}")
    return scheduled(f"""{before}
  %got = bf16[8,64]{{1,0}} ragged-all-to-all({OPERANDS}), {WHO}{extra}
{OUT}""")


@pytest.mark.parametrize(("extra", "fill"), [("", 0.125), (FILL, 0.25)])
def test_no_more_is_expected_to_be_sent_than_there_is_room_for(extra, fill):
    graph = graph_of(read_hlo(wide(extra)))
    (op,) = [graph.ops[i] for i in graph.exchanges]
    assert op.collective.bytes == 64 * 64 * 2
    assert op.collective.fill == fill
    assert op.collective.busiest_bytes == 64 * 64 * 2 * fill


def test_a_skew_is_read_and_a_load_is_balanced_without():
    skewed = ', frontend_attributes={lancet_skew="1.5"}'
    found = [graph_of(read_hlo(split(extra))) for extra in (skewed, "")]
    (one,), (other,) = [[g.ops[i].collective for i in g.exchanges] for g in found]
    assert (one.skew, other.skew) == (1.5, 1.0)
    assert one.busiest_bytes == 1.5 * one.bytes
    for text in ("0.5", "nan", "inf", "much"):
        with pytest.raises(ValueError):
            parse_skew(text)


def test_halves_are_a_pair():
    graph = graph_of(read_hlo(split()))
    by_name = {op.name: op for op in graph.ops}
    assert graph.done_of == {by_name["start"].id: by_name["got"].id}


@pytest.mark.parametrize("text", [split(), whole()], ids=["split", "whole"])
def test_rows_arrive_in_memory_that_others_must_have_read(text):
    graph = graph_of(read_hlo(text))
    by_name = {op.name: op.id for op in graph.ops}
    exchange = by_name.get("start", by_name["got"])
    assert graph.ops[exchange].overwrites == (by_name["rows"],)
    assert (by_name["reader"], exchange) in graph.ordered


def test_without_the_attribute_everything_is_sent():
    (op,) = [o for o in graph_of(read_hlo(split(""))).ops if o.collective]
    assert op.collective.fill == 1.0


def test_the_attribute_is_a_share():
    assert [parse_fill(text) for text in ("", "0", "0.25", "1")] == [1.0, 0.0, 0.25, 1.0]
    for text in ("1.5", "-0.1", "nan", "half"):
        with pytest.raises(ValueError, match="half" if text == "half" else "no share"):
            parse_fill(text)


@pytest.mark.parametrize("axes", ["expert", ("data", "expert")])
def test_stablehlo_says_the_same(axes):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "expert"))
    spec = P(("data", "expert"))

    def step(x, n):
        with set_xla_metadata(lancet_fill="0.25"):
            some = lax.ragged_all_to_all(x, x * 0, n, n, n, n, axis_name=axes)
        return lax.ragged_all_to_all(some, x * 0, n, n, n, n, axis_name=axes)

    size = 4 if axes == "expert" else 8
    body = jax.shard_map(step, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)
    lowered = jax.jit(body).lower(jnp.zeros((64, 16)), jnp.zeros(8 * size, jnp.int32))
    found = [op.collective for op in Module.copy_of(lowered.compiler_ir()).snapshot().ops]
    first, second = (c for c in found if c)
    assert {c.kind for c in (first, second)} == {"ragged_all_to_all"}
    assert [c.fill for c in (first, second)] == [0.25, 1.0]
    assert first.groups == tuple(tuple(range(i, i + size)) for i in range(0, 8, size))
    assert first.bytes == 8 * 16 * 4
    assert first.channel > 0
