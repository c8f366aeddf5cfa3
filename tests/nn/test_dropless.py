"""Dropless layers against a loop over tokens, and what is exchanged against what XLA promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import lancet_jax
from lancet_jax.nn import (
    MoE,
    MoEGPTConfig,
    abstract_batch,
    abstract_state,
    batch_shape,
    batches,
    init_state,
    make_train_step,
    preset,
    sample_text,
    sgd_momentum,
)
from lancet_jax.nn.dropless import Slices, _slices, padded_exchange
from lancet_jax.nn.gates import ExpertChoice

TOKENS, EXPERTS = 12, 8
# Quick to compile; what has to have the same bits runs with the usual options.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
dropless = functools.partial(preset, "tiny", capacity_factor=None, dispatch="padded")


def layer_and_tokens(config: MoEGPTConfig, devices: int) -> tuple[MoE, jax.Array]:
    layer = MoE(config, experts=EXPERTS, rngs=nnx.Rngs(0))
    layer.experts.bias_in[...] = 0.1 * jax.random.normal(jax.random.key(1), (EXPERTS, 128))
    layer.experts.bias_out[...] = 0.1 * jax.random.normal(jax.random.key(2), (EXPERTS, 32))
    tokens = jax.random.normal(jax.random.key(3), (devices * TOKENS, config.model))
    # A shared direction makes one expert far more popular than the others.
    return layer, tokens + 3.0


def one_by_one(params, tokens: jax.Array, k: int) -> jax.Array:
    """Each token times its own experts' weights."""
    scores = jax.nn.softmax(tokens @ params["router"]["kernel"], axis=-1)
    weight, expert = jax.lax.top_k(scores, k)
    weight = weight / weight.sum(axis=-1, keepdims=True) if k > 1 else weight
    experts = jax.tree.map(lambda param: param[expert], params["experts"])
    hidden = jnp.einsum("td,tkdh->tkh", tokens, experts["kernel_in"]) + experts["bias_in"]
    out = jnp.einsum("tkh,tkhd->tkd", jax.nn.relu(hidden), experts["kernel_out"])
    return jnp.einsum("tk,tkd->td", weight, out + experts["bias_out"])


def spread(layer: MoE, mesh):
    """The layer on a mesh: a function of parameters and tokens, and the parameters."""
    graph, params = nnx.split(layer)
    params = nnx.to_pure_dict(params)
    specs = {"experts": dict.fromkeys(params["experts"], P("expert")), "router": {"kernel": P()}}

    def answer(params, tokens):
        answers, stats = nnx.merge(graph, params)(tokens)
        return answers, stats.dropped[None]

    return jax.shard_map(
        answer, mesh=mesh, in_specs=(specs, P("expert")), out_specs=P("expert"), check_vma=False
    ), params


@pytest.mark.parametrize(("gate", "devices"), [("switch", 8), ("top_k", 8), ("top_k", 2)])
def test_it_answers_and_learns_like_a_loop_over_tokens(make_mesh, gate: str, devices: int):
    config = dropless(gate=gate)
    layer, tokens = layer_and_tokens(config, devices)
    answer, params = spread(layer, make_mesh(expert=devices))

    def ours(params, tokens):
        answers, dropped = answer(params, tokens)
        return jnp.sum(jnp.sin(answers)), (answers, dropped)

    def loop(params, tokens):
        answers = one_by_one(params, tokens, layer.gate.k)
        return jnp.sum(jnp.sin(answers)), answers

    grads, (answers, dropped) = quick_jit(jax.grad(ours, (0, 1), has_aux=True))(params, tokens)
    expected_grads, expected = jax.grad(loop, (0, 1), has_aux=True)(params, tokens)
    np.testing.assert_allclose(answers, expected, atol=5e-5)
    np.testing.assert_allclose(dropped, 0, atol=1e-6)
    # Every device's part of the loss counts, so replicated and split gradients are both whole.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=2e-3, rtol=2e-4), grads, expected_grads
    )


def test_the_load_of_these_tests_overflows_a_balanced_buffer():
    layer, tokens = layer_and_tokens(dropless(), 8)
    chosen = jnp.argmax(layer.router(tokens), axis=-1)
    assert np.bincount(chosen, minlength=EXPERTS).max() > 2 * len(tokens) // EXPERTS


def test_without_an_axis_it_answers_the_same(make_mesh):
    layer, tokens = layer_and_tokens(dropless(gate="top_k"), 2)
    answer, params = spread(layer, make_mesh(expert=2))
    alone, _ = layer_and_tokens(dropless(gate="top_k", expert_axis=None), 2)
    answers = jax.jit(answer)(params, tokens)[0]
    np.testing.assert_allclose(answers, jax.jit(lambda x: alone(x)[0])(tokens), atol=2e-5)


def sent_as_promised(buffers, outputs, slices: list[Slices]) -> list[np.ndarray]:
    """What `jax.lax.ragged_all_to_all` documents, device by device."""
    results, devices = [output.copy() for output in outputs], len(buffers)
    for me, mine in enumerate(slices):
        per_device = len(mine.send_sizes) // devices
        for i, size in enumerate(np.asarray(mine.send_sizes)):
            peer, start = i // per_device, int(mine.input_offsets[i])
            arrives = slices[peer].recv_sizes[me * per_device + i % per_device]
            assert arrives == size
            to = int(mine.output_offsets[i])
            results[peer][to : to + size] = buffers[me][start : start + size]
    return results


@pytest.mark.parametrize(("devices", "local"), [(4, 2), (8, 1), (2, 3)])
def test_the_slices_keep_the_ragged_exchanges_promise(make_mesh, devices: int, local: int):
    counts = np.random.default_rng(0).integers(0, 5, (devices, devices * local)).astype(np.int32)
    counts[:, 1] = 0
    pairs = [_slices(jnp.asarray(counts), jnp.int32(me)) for me in range(devices)]
    rows, room = int(counts.sum(axis=1).max()), int(counts.sum())
    sent = np.arange(1, devices * rows + 1, dtype=np.float32).reshape(devices, rows, 1)
    sent[np.arange(rows) >= counts.sum(axis=1)[:, None]] = 0
    empty = [np.zeros((room, 1), np.float32)] * devices
    there, back = zip(*pairs, strict=True)
    got = sent_as_promised(sent, empty, list(there))
    for me in range(devices):
        starts = np.concatenate([[0], np.cumsum(counts[me])])
        for e in range(devices * local):
            mine = sent[me, starts[e] : starts[e + 1]]
            assert set(mine.flat) <= set(got[e // local].flat)
    home = sent_as_promised(got, [np.zeros((rows, 1), np.float32)] * devices, list(back))
    np.testing.assert_array_equal(home, sent)

    stacked = jax.tree.map(lambda *tables: jnp.concatenate(tables), *there)
    padded = jax.shard_map(
        lambda rows, slices: padded_exchange(rows, slices, room, "expert"),
        mesh=make_mesh(expert=devices), in_specs=P("expert"), out_specs=P("expert"),
        check_vma=False,
    )  # fmt: skip
    dense = padded(jnp.asarray(sent.reshape(-1, 1)), stacked)
    np.testing.assert_array_equal(dense, np.concatenate(got))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dispatch": "scatter"}, "one of ragged, padded, not 'scatter'"),
        ({"capacity_factor": 1.0}, "one of scatter, one_hot, not 'padded'"),
        ({"gate": ExpertChoice()}, "the experts choose"),
    ],
)
def test_half_a_dropless_layer_is_refused(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dropless(**wrong)


def one_step(mesh, jitted=jax.jit, **overrides):
    """The state and metrics behind one step of a small model."""
    small = {"layers": 1, "seq_len": 8, "batch_per_device": 1, "top_k": 2, "gate": "top_k"}
    config, optimizer = preset("tiny", **(small | overrides)), sgd_momentum()
    batch = next(iter(batches(sample_text(), *batch_shape(config, mesh))))
    step = jitted(make_train_step(config, mesh, optimizer))
    return step(init_state(config, mesh, optimizer), batch)


DROPLESS = {"capacity_factor": None, "dispatch": "padded"}


@pytest.mark.slow
def test_a_step_is_that_of_a_capacity_which_holds_all(make_mesh):
    mesh = make_mesh(data=2, expert=4)
    state, metrics = one_step(mesh, quick_jit, **DROPLESS, data_axis="data")
    expected, told = one_step(mesh, quick_jit, capacity_factor=8.0, data_axis="data")
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, (state.params, metrics), (expected.params, told))
    _, tight = one_step(mesh, quick_jit, data_axis="data")
    assert tight.dropped > 0.05


@pytest.mark.slow
def test_lancet_jit_gives_the_same_bits(make_mesh):
    mesh = make_mesh(expert=8)
    ours = functools.partial(
        lancet_jax.jit, pipeline="dw", target="h100:1x8", on_unsupported="raise"
    )
    expected, found = one_step(mesh, **DROPLESS), one_step(mesh, ours, **DROPLESS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_it_is_reordered_and_its_exchanges_are_windows(make_mesh):
    config, mesh, optimizer = dropless(layers=1), make_mesh(expert=8), sgd_momentum()
    step = lancet_jax.jit(
        make_train_step(config, mesh, optimizer), pipeline="dw", target="h100:1x8",
        on_unsupported="raise",
    )  # fmt: skip
    lowered = step.lower(abstract_state(config, mesh, optimizer), abstract_batch(config, mesh))
    windows = [w for w in lowered.compile().schedule().windows if w.kind == "all_to_all"]
    assert len(windows) >= 4
    assert any(w.fillers for w in windows)
