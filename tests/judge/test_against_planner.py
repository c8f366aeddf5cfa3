"""The judge and the planner's own simulation, side by side.

They agree to rounding where XLA prices the compute. Where a roofline does, they count the bytes of
fusions by different rules (the judge lets a share spread through whole chains), and may differ by
`TOLERANCE` of the step. They differ on purpose, and on no module here, in one thing: an exchange that
is not cut into start and done blocks for the judge. The planner takes it for one that may run beside
others unless XLA marked it, for it reads StableHLO as well.
"""

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lancet_jax
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import DeadlockError, InputError
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.ir.device_groups import parse_hlo_groups
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.schedule.simulate import simulate
from lancet_jax import nn
from lancet_jax.judge import judge
from lancet_jax.judge.prices import read_groups
from lancet_jax.seams import cuda
from tests.hlo import scheduled
from tests.steps import CASES, Size

TOLERANCE = 2e-3
FIGURES = ("step_us", "compute_us", "exchange_us", "exposed_us", "exposed_all_to_all_us")


def planners(graph, costs):
    timeline = simulate(graph, costs.for_graph(graph), source="compiled")
    figures = {name: getattr(timeline, name) for name in FIGURES[1:]}
    return {"step_us": timeline.makespan_us} | figures


# ------------------------------------------------------------------ random schedules


INSIDE = 'backend_config={"communication_domain":"COLLECTIVE_COMMUNICATION_DOMAIN_SCALE_UP_FABRIC"}'


@st.composite
def schedules(draw, domains=False):
    """Draw a legal schedule: parameters, compute ops that read what is there, exchanges.

    With `domains`, what stays inside a group of four has a stream of its own.
    """
    rows = ["  %v0 = f32[4096]{0} parameter(0)", "  %v1 = f32[4096]{0} parameter(1)"]
    there, flights = ["v0", "v1"], []
    for i in range(draw(st.integers(1, 40))):
        action = draw(st.sampled_from(["compute", "compute", "start", "done", "sync", "bitcast"]))
        source = draw(st.sampled_from(there))
        if action == "compute":
            us = draw(st.floats(0.1, 50))
            other = draw(st.sampled_from(there))
            rows.append(
                f"  %v{i + 2} = f32[4096]{{0}} custom-call(%{source}, %{other}), backend_config="
                f'{{"reification_cost":[{{"exec_time_us":{us},"name":"sol"}}]}}'
            )
        elif action == "bitcast":
            rows.append(f"  %v{i + 2} = f32[4096]{{0}} bitcast(%{source})")
        elif action == "sync":
            rows.append(
                f"  %v{i + 2} = f32[4096]{{0}} all-reduce(%{source}), replica_groups="
                f"{'[4,2]<=[2,4]T(1,0)' if domains else '[1,8]<=[8]'}, "
                'to_apply=%add, backend_config={"is_sync":true}'
            )
        elif action == "start":
            kind = draw(st.sampled_from(["all-to-all", "collective-permute", "all-reduce"]))
            groups = "replica_groups={{0,1,2,3},{4,5,6,7}}"
            if kind == "collective-permute":
                groups = "source_target_pairs={{0,1},{1,0}}"
            if domains and draw(st.booleans()):
                kind, groups = "all-reduce", "replica_groups=[4,2]<=[2,4]T(1,0)"
            elif domains:
                groups += f", {INSIDE}"
            rows.append(
                f"  %s{i} = ((f32[4096]{{0}}), f32[4096]{{0}}) {kind}-start(%{source}), {groups}"
            )
            flights.append((f"s{i}", kind))
            continue
        elif flights:
            start, kind = flights.pop(draw(st.integers(0, len(flights) - 1)))
            rows.append(f"  %v{i + 2} = f32[4096]{{0}} {kind}-done(%{start})")
        else:
            continue
        there.append(f"v{i + 2}")
    rows += [f"  %d{start} = f32[4096]{{0}} {kind}-done(%{start})" for start, kind in flights]
    outputs = ", ".join("%" + name for name in there)
    return scheduled("\n".join([*rows, f"  ROOT %out = (f32[4096]) tuple({outputs})"]))


@given(schedules(), st.booleans())
@settings(deadline=None, max_examples=150)
def test_they_agree_on_random_schedules(text, in_a_node):
    costs = TargetCosts(parse_target("h100:1x8" if in_a_node else "v100:4x2"))
    found = judge(text, costs)
    for name, theirs in planners(ScheduledModule(text).snapshot(), costs).items():
        assert getattr(found, name) == pytest.approx(theirs, rel=1e-9, abs=1e-6), name


@given(schedules(domains=True), st.booleans())
@settings(deadline=None, max_examples=150)
def test_they_agree_on_exchanges_that_have_streams_of_their_own(text, in_a_node):
    costs = TargetCosts(parse_target("h100:1x8" if in_a_node else "v100:4x2"))
    found = judge(text, costs)
    graph = ScheduledModule(text).snapshot()
    verify_no_deadlock(graph)
    for name, theirs in planners(graph, costs).items():
        assert getattr(found, name) == pytest.approx(theirs, rel=1e-9, abs=1e-6), name


def test_both_refuse_two_streams_that_share_two_devices():
    text = scheduled(f"""  %x = f32[8]{{0}} parameter(0)
  %a = (f32[8]{{0}}, f32[8]{{0}}) all-to-all-start(%x), replica_groups=[2,4]<=[8], {INSIDE}
  %b = (f32[8]{{0}}, f32[8]{{0}}) all-reduce-start(%x), replica_groups=[1,8]<=[8], to_apply=%add
  %a.d = f32[8]{{0}} all-to-all-done(%a)
  %b.d = f32[8]{{0}} all-reduce-done(%b)
  ROOT %r = (f32[8], f32[8]) tuple(%a.d, %b.d)""")
    with pytest.raises(InputError, match="starts while a is in flight on another stream"):
        judge(text, costs_of("h100:1x8", False))
    with pytest.raises(DeadlockError, match="starts while a is in flight on another stream"):
        verify_no_deadlock(ScheduledModule(text).snapshot())


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_they_read_the_same_groups(sizes, random, listed):
    names = [f"a{i}" for i in range(len(sizes))]
    axes = ",".join(f"'{name}'={size}" for name, size in zip(names, sizes, strict=True))
    over = random.sample(names, random.randint(1, len(names)))
    order = list(range(len(sizes)))
    random.shuffle(order)
    shape, perm = ",".join(map(str, sizes)), ",".join(map(str, order))
    ids = f", device_ids=([{shape}]T({perm}))" if listed else ""
    for text in (
        f"mesh[{axes}]{ids} {{{','.join(repr(name) for name in over)}}}",
        f"[{sizes[0]},-1]<=[{shape}]T({perm})".replace("-1", shape_rest(sizes)),
    ):
        assert read_groups(text + ", dimensions={0}") == parse_hlo_groups(text)


def shape_rest(sizes):
    rest = 1
    for size in sizes[1:]:
        rest *= size
    return str(rest)


@pytest.mark.parametrize(
    "text", ["{{0,1},{2,3}}", "[2,4]<=[8]", "mesh['a'=2,'b'=8] {'a','b':(2)2}",
             "mesh['a'=8] {'a':(1)2}"],
)  # fmt: skip
def test_they_read_groups_of_parts_of_axes_alike(text):
    assert read_groups(text) == parse_hlo_groups(text)


# ------------------------------------------------------------------ what XLA compiled


def agree(compiled, costs, tolerance):
    found = judge(compiled.as_text(), costs)
    theirs = planners(compiled.scheduled.snapshot(), costs)
    for name, figure in theirs.items():
        assert abs(getattr(found, name) - figure) <= tolerance * theirs["step_us"], name


def costs_of(name, xla):
    return TargetCosts(parse_target(name), xla_compute=xla)


needs_cuda = pytest.mark.skipif(cuda.cuda_plugin() is None, reason="the CUDA plugin is missing")


@needs_cuda
@pytest.mark.parametrize("name", ["scatter", "remat", "scan_layers", "accumulation", "two_axes"])
@pytest.mark.parametrize("pipeline", ["off", "dw"])
def test_they_agree_on_steps_of_other_people(name, pipeline):
    gpus = lancet_jax.aot.target("h100:1x8")
    size = Size(batch=64, seq=256, model=512, hidden=2048, dtype=jnp.bfloat16)
    case = CASES[name](gpus.devices, size, abstract=True)
    compiled = lancet_jax.jit(case.step, pipeline=pipeline, check_cuts=False, **case.jit_kwargs)
    compiled = compiled.lower(*case.args).compile({"xla_gpu_collect_cost_model_stats": True})
    agree(compiled, costs_of("h100:1x8", True), TOLERANCE)
    agree(compiled, costs_of("v100:8x8", False), TOLERANCE)


@needs_cuda
@pytest.mark.slow
@pytest.mark.parametrize("target", ["h100:1x8", "v100:2x8"])
@pytest.mark.parametrize("pipeline", ["off", "exchange", "full"])
def test_they_agree_on_our_model_cut_or_not(target, pipeline):
    gpus = lancet_jax.aot.target(target)
    config = nn.preset("gpt2_s_moe", layers=4)
    mesh, optimizer = gpus.mesh(expert=len(gpus.devices)), nn.sgd_momentum()
    train_step = nn.make_train_step(config, mesh, optimizer)
    step = lancet_jax.jit(
        train_step, pipeline=pipeline, target=target, check_cuts=False, donate_argnums=0
    )
    compiled = step.lower(
        nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    ).compile()
    agree(compiled, costs_of(target, True), TOLERANCE)
