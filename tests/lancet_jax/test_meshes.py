"""Steps on meshes of several axes: cut, one plan for all traffic, and the same as under plain jit."""

import jax
import pytest

import lancet_jax
from tests.lancet_jax.test_split import BOUND, distance
from tests.mesh_steps import MESHES

EXCHANGES = "split-exchange{k=2},schedule-dw"
REGION = "split-region{k=2},schedule-dw"
QUICK = [("fsdp_experts", EXCHANGES), ("tensor_experts", REGION)]
SLOW = [(name, cut) for name in MESHES for cut in (EXCHANGES, REGION)
        if (name, cut) not in QUICK and (name, cut) != ("auto_tensor_experts", REGION)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cut"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_step_on_two_axes_is_cut_and_the_same(name, cut):
    plain, ours = (MESHES[name](jax.devices()[:8]) for _ in range(2))
    expected = jax.jit(plain.step, **plain.jit_kwargs)(*plain.args)
    step = lancet_jax.jit(ours.step, pipeline=cut, target="h100:2x4", on_unsupported="raise",
                          **ours.jit_kwargs)  # fmt: skip
    got = step(*ours.args)
    outcome = step.outcomes[-1]
    assert outcome.cuts
    assert distance(expected, got) <= BOUND
    kinds = {op.collective.kind for g, _ in outcome.graph.walk() for op in g.ops if op.collective}
    assert {"all_to_all", "all_reduce"} <= kinds
    if name == "fsdp_experts":
        assert "all_gather" in kinds


def test_the_order_of_devices_decides_which_links_an_exchange_takes():
    us = {}
    for name in ("experts_inside_nodes", "experts_across_nodes"):
        case = MESHES[name](jax.devices()[:8])
        lowered = lancet_jax.jit(case.step, target="v100:2x4", **case.jit_kwargs).lower(*case.args)
        sent = [op.collective for op in lowered.module.snapshot().ops if op.collective]
        tokens = [exchange for exchange in sent if exchange.is_all_to_all]
        us[name] = {round(lowered.costs.exchange(exchange).us, 3) for exchange in tokens}
        links = lowered.costs.target.topology
        inside, across = ((0, 1, 2, 3), (4, 5, 6, 7)), ((0, 2, 4, 6), (1, 3, 5, 7))
        groups = inside if name == "experts_inside_nodes" else across
        expected = links.time_us("all_to_all", tokens[0].bytes, groups)
        assert us[name] == {round(expected, 3)}
    assert min(us["experts_across_nodes"]) > max(us["experts_inside_nodes"])
