"""Steps compiled for GPUs that are not there, and read back."""

import jax
import jax.numpy as jnp
import pytest

import lancet_jax
from lancet_jax import nn
from lancet_jax.errors import OptionError
from lancet_jax.seams import backends, cuda
from tests.steps import CASES, Size

SIZE = Size(batch=64, seq=256, model=512, hidden=2048, dtype=jnp.bfloat16)


@pytest.fixture(scope="module")
def devices():
    return lancet_jax.aot.target("h100:1x8").devices


def compiled(name, devices, pipeline="dw", size=SIZE):
    case = CASES[name](devices, size, abstract=True)
    step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs)
    return step.lower(*case.args).compile()


def test_targets_are_meshes_of_compile_only_devices(devices):
    assert len(devices) == 8
    assert all(backends.is_compile_only(d) for d in devices)
    assert jax.devices()[0].platform == "cpu"
    mesh = lancet_jax.aot.target("h100:2x8").mesh(data=2, expert=8)
    assert dict(mesh.shape) == {"data": 2, "expert": 8}
    assert {d.process_index for d in mesh.devices[0]} == {0}
    with pytest.raises(OptionError, match="6 devices of the 8"):
        lancet_jax.aot.target("h100:1x8").mesh(expert=6)
    with pytest.raises(OptionError, match="no GPU"):
        lancet_jax.aot.target("cpu:1x8")


@pytest.mark.parametrize("pipeline", ["off", "dw"])
def test_every_pipeline_is_priced_by_xla(devices, pipeline):
    timeline = compiled("scatter", devices, pipeline).schedule()
    sources = [slot.source for slot in timeline.slots if slot.lane == "compute"]
    assert sources.count("xla") > 0.5 * len(sources)


def test_the_final_schedule_follows_the_plan(devices):
    result = compiled("scatter", devices)
    report = result.report()
    assert result.plan.target == "h100:1x8"
    assert result.plan.changes
    assert report.drift.moved == 0
    assert report.drift.common > 100
    assert report.after.source == "compiled"
    assert report.after.makespan_us < report.before.makespan_us
    assert report.after.exposed_all_to_all_us < report.before.exposed_all_to_all_us
    assert report.sources["xla"] > 100
    lines = {op.name: op.source for op in result.outcome.graph.ops}
    kept = [lines[op.name] == op.source for op in report.final.graph.ops if op.name in lines]
    assert len(kept) > 100
    assert all(kept)


def test_the_final_schedule_is_what_the_planner_simulated(devices):
    result = compiled("gshard_einsum", devices)
    planned, final = result.outcome.after, result.schedule()
    assert final.makespan_us == pytest.approx(planned.makespan_us, rel=0.01)
    assert final.exposed_us == pytest.approx(planned.exposed_us, rel=0.02)


def test_memory_stays_within_the_slack(devices):
    ours = compiled("remat", devices).memory_analysis().temp_size_in_bytes
    stock = compiled("remat", devices, "off").memory_analysis().temp_size_in_bytes
    assert ours <= stock * 1.021


def test_off_leaves_the_program_alone(devices):
    case = CASES["scatter"](devices, SIZE, abstract=True)
    off = lancet_jax.jit(case.step, pipeline="off", **case.jit_kwargs).lower(*case.args).compile()
    assert off.plan is None
    assert "lancet_salt" not in off.as_text()
    assert off.schedule().exposed_us > 0


@pytest.mark.parametrize("name", ["scan_layers", "linen", "auto_sharded", "two_axes"])
def test_other_idioms_compile_and_never_get_longer(devices, name):
    report = compiled(name, devices).report()
    assert report.after.makespan_us <= report.before.makespan_us * 1.001
    assert report.drift is None or report.drift.moved == 0


def test_topologies_made_with_plain_jax_are_recognised():
    from jax.experimental import topologies

    cuda.load_cuda_compiler()
    ours = lancet_jax.aot.target("h100:1x8")
    theirs = topologies.get_topology_desc(
        platform="cuda", topology="1x1x8",
        target_config=lancet_jax.aot.target_config(ours.costs.profile),
    )  # fmt: skip
    assert compiled("scatter", theirs.devices).plan.target == "h100:1x8"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a100:1x8", "v100:1x8", "b200:1x8", "h100:8x8", "a100:8x8"])
def test_every_target_plans_and_holds(target):
    gpus = lancet_jax.aot.target(target)
    result = compiled("scatter", gpus.devices, size=Size(
        batch=8 * len(gpus.devices), seq=256, model=512, hidden=2048,
        experts=2 * len(gpus.devices), dtype=jnp.bfloat16,
    ))  # fmt: skip
    report = result.report()
    assert result.plan.target == target
    assert report.after.makespan_us <= report.before.makespan_us * 1.001
    assert report.drift is None or report.drift.moved == 0


@pytest.mark.slow
def test_our_model_at_paper_width(devices):
    mesh = lancet_jax.aot.target("h100:1x8").mesh(expert=8)
    config = nn.preset("gpt2_s_moe", layers=4, dtype=jnp.bfloat16)
    optimizer = nn.sgd_momentum()
    step = lancet_jax.jit(nn.make_train_step(config, mesh, optimizer), donate_argnums=0)
    result = step.lower(
        nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    ).compile()
    backward = [w for w in result.report().windows if w.backward]
    assert sum(w.after_us for w in backward) <= 0.05 * sum(w.before_us or 0 for w in backward)
