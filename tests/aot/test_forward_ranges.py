"""Lancet's own choice of ranges, and halves beside it, on clusters where rows are sent ragged."""

import pytest

import lancet_jax
from scripts.gpu_steps import model_step


@pytest.mark.slow
def test_what_the_program_chooses_never_loses_to_halves():
    gpus = lancet_jax.aot.target("v100:4x8")
    step = model_step("gpt2_s_moe", gpus, layers=4)
    plans = []
    for rho in (2, 4):
        pipeline = f"split-region{{direction=forward,rho={rho}}}"
        wrapped = lancet_jax.jit(step.function, pipeline=pipeline, **step.jit_options)
        plans.append(wrapped.lower(*step.arguments).plan)
    halves, both = plans
    assert {split.k for split in halves.splits} == {2}
    assert set(halves.race) <= set(both.race)
    assert both.after.step_us <= halves.after.step_us < halves.before.step_us
