import pytest

from hlo_passes.errors import VerifyError
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.verify import (
    exchange_order,
    verify_exchange_pairs,
    verify_reordering,
    verify_same_exchanges,
)
from tests.hlo import STEP, scheduled


@pytest.fixture
def graph():
    return ScheduledModule(STEP).snapshot()


def test_program_order_is_legal(graph):
    verify_reordering(graph, {graph.name: range(len(graph.ops))})


def test_a_done_before_its_start_is_named(graph):
    order = list(range(len(graph.ops)))
    order[3], order[4] = order[4], order[3]
    with pytest.raises(VerifyError, match="a2a-done: stands before a2a-start"):
        verify_reordering(graph, {graph.name: order})


def test_a_lost_op_is_an_error(graph):
    with pytest.raises(VerifyError, match="every op once"):
        verify_reordering(graph, {graph.name: [0, 0, *range(2, len(graph.ops))]})


def test_the_memory_bound_is_checked(graph):
    with pytest.raises(VerifyError, match="needs"):
        verify_reordering(graph, {graph.name: range(len(graph.ops))}, memory_limit=1)


def test_a_start_without_a_done_is_named():
    text = STEP.replace(
        "%a2a-done = bf16[8,64]{1,0} all-to-all-done(%a2a-start)",
        "%a2a-done = bf16[8,64]{1,0} get-tuple-element(%a2a-start), index=1",
    )
    with pytest.raises(VerifyError, match="a2a-start: starts and nothing waits"):
        verify_exchange_pairs(ScheduledModule(text).snapshot())


TWO = scheduled(
    """  %x = f32[8]{0} parameter(0)
  %a = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %b = f32[8]{0} all-to-all(%x), channel_id=2, replica_groups={{0,1}}, dimensions={0}
  ROOT %r = (f32[8], f32[8]) tuple(%a, %b)"""
)


def test_ranks_that_disagree_are_named():
    first = ScheduledModule(TWO).snapshot()
    lines = TWO.split("\n")
    a, b = (next(i for i, line in enumerate(lines) if f"%{n} =" in line) for n in "ab")
    lines[a], lines[b] = lines[b], lines[a]
    second = ScheduledModule("\n".join(lines)).snapshot()
    verify_same_exchanges({"rank 0": first, "rank 1": first})
    with pytest.raises(
        VerifyError, match="exchange 0: rank 0 issues all_reduce.*rank 1 issues all"
    ):
        verify_same_exchanges({"rank 0": first, "rank 1": second})
    assert exchange_order(first) == exchange_order(second)[::-1]
