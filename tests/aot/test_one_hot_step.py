"""A step with one-hot masks, cut along its tokens and compiled for GPUs that are not there."""

import jax.numpy as jnp
import pytest

import lancet_jax
from tests.one_hot_steps import MASKS, one_hot_step
from tests.steps import Size

SIZE = Size(batch=64, seq=256, model=512, hidden=2048, layers=1, dtype=jnp.bfloat16)


@pytest.mark.slow
def test_parts_take_turns_in_the_final_schedule():
    gpus = lancet_jax.aot.target("h100:1x8")
    case = one_hot_step(gpus.devices, SIZE, abstract=True, mask=MASKS["token_major"])
    step = lancet_jax.jit(case.step, pipeline="split-region{k=2},schedule-dw",
                          on_unsupported="raise", **case.jit_kwargs)  # fmt: skip
    result = step.lower(*case.args).compile()
    assert result.drift().moved == 0
    (split,) = result.outcome.cuts[0].splits
    assert len(split.indexed) == 4
    windows = [w for w in result.schedule().windows if w.kind == "ragged_all_to_all"]
    # Two directions, there and back, two parts each; all but those at the ends have company.
    assert len(windows) == 8
    assert sum(bool(w.fillers) for w in windows) >= 4
