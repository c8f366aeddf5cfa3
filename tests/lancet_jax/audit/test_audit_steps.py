"""Audits of whole steps that are cut rightly: none is called wrong, whatever rounding does to it."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

import lancet_jax
from lancet_jax import nn
from tests.auto_steps import IDIOMS
from tests.mesh_steps import MESHES
from tests.one_hot_steps import MASKS, one_hot_step
from tests.steps import CASES, Size

GREEDY = "schedule-dw{strategy=greedy}"
ROWS, BUFFERS = f"split-region{{k=2}},{GREEDY}", f"split-exchange{{k=2}},{GREEDY}"
OF_OTHERS = {
    "scan_layers": (CASES, ROWS), "grad_outside": (CASES, ROWS), "linen": (CASES, ROWS),
    "gshard_einsum": (CASES, BUFFERS), "fsdp_experts": (MESHES, ROWS),
    "tensor_experts": (MESHES, ROWS), "nnx_layers": (IDIOMS, ROWS), "auto_sharded": (IDIOMS, ROWS),
}  # fmt: skip


def check_audit(case, pipeline):
    step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs)
    step(*case.args)
    outcome = step.outcomes[-1]
    assert outcome.cuts, outcome.notes
    (note,) = [note for note in outcome.notes if "audited" in note]
    assert note.startswith("audited at the first call: "), note
    return note


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_OTHERS)
def test_steps_of_others(name):
    steps, pipeline = OF_OTHERS[name]
    check_audit(steps[name](jax.devices()), pipeline)


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["products", "priorities"])
def test_masks(mask):
    check_audit(one_hot_step(jax.devices(), Size(batch=32, seq=16), mask=MASKS[mask]), ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "optimizer", "gate"),
    [
        ("float32", optax.adamw(1e-3), "switch"),
        ("float32", optax.lion(1e-3), "top_k"),
        ("bfloat16", optax.adamw(1e-3), "top_k"),
        ("bfloat16", nn.sgd_momentum(), "batch_prioritised"),
        ("float16", nn.sgd_momentum(), "top_k"),
    ],
)
def test_models_and_optimizers_that_divide_by_a_gradients_size(dtype, optimizer, gate):
    config = dataclasses.replace(
        nn.preset("tiny"), gate=gate, dispatch="scatter", dtype=jnp.dtype(dtype), batch_per_device=4
    )
    mesh = jax.make_mesh((8,), ("expert",))
    state = nn.init_state(config, mesh, optimizer, 0)
    tokens = next(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh)))
    step = lancet_jax.jit(nn.make_train_step(config, mesh, optimizer), pipeline=ROWS,
                          on_unsupported="raise", donate_argnums=0)  # fmt: skip
    step(state, tokens)
    outcome = step.outcomes[-1]
    assert outcome.cuts
    assert outcome.notes[-1].startswith("audited at the first call: "), outcome.notes
