"""The MoE layer on a mesh against a loop over tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lancet_jax.nn import ExpertParam, MoE, MoEGPT, MoEGPTConfig, preset
from lancet_jax.nn.routing import expert_capacity

TOKENS, EXPERTS = 24, 8


def layer_and_tokens(config: MoEGPTConfig) -> tuple[MoE, jax.Array]:
    layer = MoE(config, experts=EXPERTS, rngs=nnx.Rngs(0))
    layer.experts.bias_in[...] = 0.1 * jax.random.normal(jax.random.key(1), (EXPERTS, 128))
    layer.experts.bias_out[...] = 0.1 * jax.random.normal(jax.random.key(2), (EXPERTS, 32))
    return layer, jax.random.normal(jax.random.key(3), (8 * TOKENS, config.model))


def answers_one_by_one(layer: MoE, tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """The layer's answers to the tokens of one device, and the fraction of dropped choices."""
    kernel_in, bias_in, kernel_out, bias_out = (
        np.asarray(param[...], np.float64)
        for param in (
            layer.experts.kernel_in,
            layer.experts.bias_in,
            layer.experts.kernel_out,
            layer.experts.bias_out,
        )
    )
    capacity = expert_capacity(len(tokens), layer.gate.k, EXPERTS, layer.capacity_factor)
    routing = layer.gate.route(layer.router(jnp.asarray(tokens)), capacity)
    expert, weight, kept = (np.asarray(x) for x in (routing.expert, routing.weight, routing.kept))
    answers = np.zeros(tokens.shape)
    for t, j in np.argwhere(kept):
        e = expert[t, j]
        hidden = np.maximum(tokens[t] @ kernel_in[e] + bias_in[e], 0)
        answers[t] += weight[t, j] * (hidden @ kernel_out[e] + bias_out[e])
    return answers, 1 - kept.mean()


@pytest.mark.parametrize(("gate", "devices"), [("switch", 8), ("gshard", 2), ("switch", 1)])
def test_spread_experts_answer_like_a_loop_over_tokens(make_mesh, gate: str, devices: int):
    config = preset("tiny", gate=gate)
    layer, tokens = layer_and_tokens(config)
    graph, params = nnx.split(layer)
    params = nnx.to_pure_dict(params)
    specs = {
        "experts": dict.fromkeys(params["experts"], P("expert")),
        "router": {"kernel": P()},
    }

    def answer(params, tokens):
        answers, stats = nnx.merge(graph, params)(tokens)
        return answers, stats.dropped[None]

    sharded = jax.shard_map(
        answer,
        mesh=make_mesh(expert=devices),
        in_specs=(specs, P("expert")),
        out_specs=P("expert"),
        check_vma=False,
    )
    tokens = tokens[: devices * TOKENS]
    answers, dropped = jax.jit(sharded)(params, tokens)

    parts = [
        answers_one_by_one(layer, part) for part in np.asarray(tokens).reshape(devices, TOKENS, -1)
    ]
    assert max(part[1] for part in parts) > 0
    np.testing.assert_allclose(answers, np.concatenate([part[0] for part in parts]), atol=2e-5)
    np.testing.assert_allclose(dropped, [part[1] for part in parts], atol=1e-6)


def test_without_an_axis_the_layer_runs_anywhere():
    layer, tokens = layer_and_tokens(preset("tiny", expert_axis=None))
    answers, _ = jax.jit(layer)(tokens[:TOKENS].reshape(4, TOKENS // 4, -1))
    expected, _ = answers_one_by_one(layer, np.asarray(tokens[:TOKENS]))
    np.testing.assert_allclose(answers.reshape(TOKENS, -1), expected, atol=2e-5)


@pytest.mark.parametrize("gate", ["random", "hash"])
def test_gates_that_read_no_logits_have_no_router(gate: str):
    layer, _ = layer_and_tokens(preset("tiny", gate=gate))
    assert all(isinstance(param, ExpertParam) for _, param in nnx.to_flat_state(nnx.state(layer)))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_the_activation_is_the_experts_own(activation: str):
    config = preset("tiny", expert_axis=None, activation=activation, capacity_factor=8.0)
    layer, tokens = layer_and_tokens(config)
    bare = dataclasses.replace(config, activation="relu")
    reference, _ = layer_and_tokens(bare)
    same = np.allclose(layer(tokens)[0], reference(tokens)[0], atol=1e-4)
    assert same == (activation == "relu")


def test_the_model_sees_no_later_token():
    config = preset("tiny", expert_axis=None, gate="hash", capacity_factor=16.0)
    model = MoEGPT(config, experts=EXPERTS, rngs=nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (1, 32), 0, 256)
    logits = jax.jit(model)(tokens)[0]
    changed = jax.jit(model)(tokens.at[0, 20:].add(1))[0]
    np.testing.assert_allclose(logits[:, :20], changed[:, :20], atol=1e-5)
    assert np.abs(logits[:, 20:] - changed[:, 20:]).max() > 1e-2


def test_too_long_a_sequence_is_refused():
    model = nnx.eval_shape(
        lambda: MoEGPT(preset("tiny", expert_axis=None), experts=2, rngs=nnx.Rngs(0))
    )
    with pytest.raises(ValueError, match="sequences have 33 tokens, but seq_len=32"):
        model(jnp.zeros((1, 33), jnp.int32))
