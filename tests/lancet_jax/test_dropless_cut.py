"""Dropless layers cut along the batch, on 8 CPU devices, against what they should answer.

XLA:CPU has no ragged exchange: a part's is lowered to a dense one there, and the uncut step does
not run. So layers are compared with a loop over experts, and steps with those of `padded` layers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lancet_jax
from lancet_jax import nn
from tests.dropless_steps import Dropless, by_token
from tests.lancet_jax.test_split import BOUND, distance

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def cut(step, k: int, devices: int = 8):
    return lancet_jax.jit(step, pipeline=f"split-region{{k={k}}},schedule-dw",
                          target=f"h100:1x{devices}", on_unsupported="raise",
                          compiler_options={"xla_backend_optimization_level": 0})  # fmt: skip


def expected(layer: Dropless, weights, x):
    def loss(p, x):
        answers = by_token(p, x, layer.choices)
        return jnp.sum(jnp.square(answers)), answers

    grads, answers = quick_jit(jax.grad(loss, (0, 1), has_aux=True))(weights, x)
    return (*grads, answers)


@pytest.mark.parametrize(
    ("layer", "k", "skew"),
    [
        (Dropless(remat=True), 2, 0.0),
        (Dropless(devices=8), 4, 100.0),
        (Dropless(devices=2, sort=True, axes=(("data", 2),)), 4, 0.0),
    ],
)
def test_a_cut_layer_answers_and_learns_as_every_token_alone(layer, k, skew):
    mesh = layer.mesh()
    weights, x = layer.arguments(mesh, skew)
    step = cut(layer.step(mesh), k, mesh.size)
    got = step(weights, x)
    assert step.outcomes[-1].cuts[0].splits[0].k == k
    assert distance(expected(layer, weights, x), got) <= 4 * BOUND


def test_the_skewed_load_of_these_tests_goes_to_one_device():
    layer = Dropless(devices=8)
    weights, x = layer.arguments(layer.mesh(), 100.0)
    _, chosen = jax.lax.top_k(x @ weights["router"], layer.choices)
    assert set(np.asarray(chosen).flat) == {0, 1}


def test_a_layer_whose_tokens_do_not_divide_is_told():
    mesh = Dropless().mesh()
    arguments = Dropless().arguments(mesh)
    lowered = lancet_jax.jit(
        Dropless().step(mesh), pipeline="split-region{k=3}", target="h100:1x4",
        on_unsupported="raise",
    ).lower(*arguments)  # fmt: skip
    told = [str(refusal) for refusal in lowered.plan.refusals]
    assert sum("8 tokens or choices have no 3 equal parts" in line for line in told) == 4


def train(dispatch: str, gate: str, skewed: bool):
    config = nn.preset("tiny", capacity_factor=None, dispatch=dispatch, gate=gate,
                       batch_per_device=4, seq_len=8, layers=1)  # fmt: skip
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("expert",))
    optimizer = nn.sgd_momentum()
    state = nn.init_state(config, mesh, optimizer, 0)
    tokens = next(iter(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh), 0)))
    if skewed:
        tokens = jax.tree.map(np.zeros_like, tokens)
    return nn.make_train_step(config, mesh, optimizer), (state, tokens)


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "k", "skewed"), [("top_k", 2, False), ("hash", 4, True)])
def test_a_cut_train_step_is_that_of_padded_layers(gate, k, skewed):
    step, arguments = train("padded", gate, skewed)
    whole = quick_jit(step)(*arguments)
    step, arguments = train("ragged", gate, skewed)
    ours = cut(step, k)
    assert distance(whole, ours(*arguments)) <= BOUND
    assert ours.outcomes[-1].cuts[0].splits[0].k == k
