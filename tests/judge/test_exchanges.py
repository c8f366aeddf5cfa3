"""Exchanges in all the forms that XLA writes: planner and judge see the same ones, at one price."""

import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.plan.simulate import simulate
from lancet_jax.judge import judge
from tests.hlo import scheduled

COSTS = TargetCosts(parse_target("h100:1x8"))
MIB = 1 << 20
SIZE = 4 * MIB
"""Bytes of the bf16 matrix that a device sends in these schedules."""

GROUPS = "replica_groups=[1,8]<=[8], use_global_device_ids=true"
PARAMETERS = """  %p = bf16[1024,2048]{1,0} parameter(0)
  %q = bf16[1024,2048]{1,0} parameter(1)"""
BESIDE = (
    "  %d = bf16[1024,1024]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={1}"
)


def us(kind, size, groups=()):
    return COSTS.exchange(Collective(kind, groups, size)).us


def exchanges(text):
    """Return (kind, bytes, us) of every exchange, and check that the judge agrees on the step."""
    timeline = simulate(ScheduledModule(text).snapshot(), COSTS, source="compiled")
    found = judge(text, COSTS)
    assert found.step_us == pytest.approx(timeline.makespan_us)
    assert found.exchange_us == pytest.approx(timeline.exchange_us)
    assert found.exposed_us == pytest.approx(timeline.exposed_us)
    return [(w.kind, w.bytes, pytest.approx(w.us)) for w in timeline.windows]


GATHERED = "bf16[8192,2048]{1,0}"
HALF = "bf16[1024,2048]{1,0}"


@pytest.mark.parametrize("count", [1, 2])
def test_an_all_gather_of_several_operands_carries_all_of_them(count):
    """XLA's own estimator says so too: 4 x 32 MiB in one are 390 us, as 128 MiB are."""
    operands = ", ".join(["%p", "%q"][:count])
    made = ", ".join([GATHERED] * count)
    gathered = made if count == 1 else f"({made})"
    sync = (
        f"  ROOT %g = {gathered} all-gather({operands}), channel_id=1, {GROUPS}, dimensions={{0}}"
    )
    sent = ", ".join([HALF] * count)
    start = (
        f"  %s = (({sent}), {gathered}) all-gather-start({operands}), channel_id=1, {GROUPS}, "
        f"dimensions={{0}}\n  ROOT %g = {gathered} all-gather-done(%s)"
    )
    whole = count * 8 * SIZE
    for lines in (sync, start):
        text = scheduled(f"{PARAMETERS}\n{lines}")
        assert exchanges(text) == [("all_gather", whole, us("all_gather", whole))]
