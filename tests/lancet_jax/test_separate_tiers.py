"""Exchanges inside a node on a stream of their own: marked, ordered, the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lancet_jax
from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.ir.collectives import FABRIC
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule.simulate import simulate
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.verify import verify_reordering
from lancet_jax.judge import judge
from lancet_jax.seams import cuda
from tests.hlo import scheduled
from tests.mesh_steps import MESHES
from tests.steps import Size

TIERS = "separate-tiers,schedule-dw"
LARGE = Size(batch=256, seq=1024, model=1024, hidden=4096, dtype=jnp.bfloat16)


def lowered(name, target):
    case = MESHES[name](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline="separate-tiers", target=target, **case.jit_kwargs)
    return step.lower(*case.args)


def test_a_step_with_marks_gives_the_same_bits():
    plain, ours = (MESHES["fsdp_experts"](jax.devices()[:8]) for _ in range(2))
    expected = jax.jit(plain.step, **plain.jit_kwargs)(*plain.args)
    step = lancet_jax.jit(ours.step, pipeline=TIERS, target="h100:2x4", on_unsupported="raise",
                          **ours.jit_kwargs)  # fmt: skip
    got = step(*ours.args)
    (marks,) = step.outcomes[-1].made[0].streams.values()
    assert len(marks) > 8
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("experts_inside_nodes", "h100:1x8", "there is one kind of link"),
        ("experts_inside_nodes", "h100:8x8", "lowered for 8 devices, and 64 are planned for"),
        ("experts_inside_nodes", "h100:8x1", "every exchange leaves its node"),
    ],
)
def test_what_is_left_on_one_stream_says_why(name, target, reason):
    plan = lowered(name, target).plan
    assert not plan.streams
    assert any(reason in refusal.reason for refusal in plan.refusals)


# ------------------------------------------------------------------ orders

INSIDE = 'backend_config={"communication_domain":"COLLECTIVE_COMMUNICATION_DOMAIN_SCALE_UP_FABRIC"}'
SHAPE = "f32[1048576]{0}"


@st.composite
def steps(draw):
    """A schedule in which every exchange is done at once, some of which must never cross."""
    rows, there = [f"  %v0 = {SHAPE} parameter(0)"], ["v0"]
    for i in range(1, draw(st.integers(2, 14))):
        source = draw(st.sampled_from(there))
        action = draw(st.sampled_from(["compute", "inside", "across", "all"]))
        if action == "compute":
            us = draw(st.floats(1, 60))
            rows.append(
                f'  %v{i} = {SHAPE} custom-call(%{source}), backend_config={{"reification_cost":'
                f'[{{"exec_time_us":{us},"name":"sol"}}]}}'
            )
        else:
            kind, groups = {
                "inside": ("all-to-all", f"replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, {INSIDE}"),
                "across": ("all-gather", "replica_groups=[4,2]<=[2,4]T(1,0)"),
                "all": ("all-reduce", "replica_groups=[1,8]<=[8], to_apply=%add"),
            }[action]
            rows.append(f"  %s{i} = ({SHAPE}, {SHAPE}) {kind}-start(%{source}), {groups}")
            rows.append(f"  %v{i} = {SHAPE} {kind}-done(%s{i})")
        there.append(f"v{i}")
    rows.append(f"  ROOT %out = ({SHAPE}) tuple({', '.join('%' + name for name in there)})")
    return scheduled("\n".join(rows))


@given(steps(), st.sampled_from(["best", "greedy", "list"]))
@settings(deadline=None, max_examples=100)
def test_no_order_of_ours_crosses_two_streams(text, strategy):
    module = ScheduledModule(text)
    graph = module.snapshot()
    costs = TargetCosts(parse_target("h100:2x4"))
    step = ReorderScheduled(ScheduleDw(strategy=strategy, memory_slack=10))
    plan = step.plan(graph, Context(costs=costs, fingerprint=module.fingerprint))
    verify_reordering(graph, plan.orders)
    verify_no_deadlock(graph, plan.orders)
    after = step.apply(module, plan).module
    theirs = simulate(after.snapshot(), costs, source="compiled")
    assert judge(after.text, costs).step_us == pytest.approx(theirs.makespan_us, rel=1e-9)
    assert theirs.makespan_us <= simulate(graph, costs).makespan_us * (1 + 1e-9)
    assert plan.bound_us <= theirs.exposed_us + 1e-3


# ------------------------------------------------------------------ what XLA makes of it


@pytest.mark.slow
@pytest.mark.skipif(cuda.cuda_plugin() is None, reason="the CUDA plugin is missing")
def test_xla_runs_both_kinds_of_links_at_once():
    gpus = lancet_jax.aot.target("h100:4x8")
    compiled = {}
    for pipeline in ("schedule-dw", TIERS):
        case = MESHES["fsdp_experts"](gpus.devices, LARGE, abstract=True)
        step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise")
        compiled[pipeline] = step.lower(*case.args).compile()
    one, two = (result.schedule() for result in compiled.values())
    graph = compiled[TIERS].scheduled.snapshot()
    kinds = {graph.ops[e].collective.domain for e in graph.exchanges}
    assert kinds == {"", FABRIC}
    assert two.makespan_us < one.makespan_us
    found = judge(compiled[TIERS].as_text(), compiled[TIERS].costs)
    assert found.fabric_us > 0
    assert found.step_us == pytest.approx(two.makespan_us, rel=2e-3)
