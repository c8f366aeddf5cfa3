"""The sharded train step against a plain one on a single device."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lancet_jax.nn import (
    GATES,
    Metrics,
    MoEGPT,
    MoEGPTConfig,
    TrainState,
    abstract_batch,
    abstract_state,
    adamw,
    batch_shape,
    batches,
    init_state,
    make_train_step,
    preset,
    sample_text,
    sgd_momentum,
)

# Adam divides by the root of the second moment: a large epsilon keeps rounding errors small.
OPTIMIZERS = {"sgd": sgd_momentum(momentum=0.9), "adamw": optax.adamw(1e-2, eps=1e-3)}


# Quick to compile; the loss test runs with the usual options.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def global_batches(config: MoEGPTConfig, mesh, count: int, seed: int = 0):
    shape = batch_shape(config, mesh)
    return list(itertools.islice(batches(sample_text(), *shape, seed), count))


def plain_step(config: MoEGPTConfig, shards: int, experts: int, optimizer):
    """A step without mesh: the mean loss of the shards, each routed for itself."""
    alone = dataclasses.replace(config, expert_axis=None, data_axis=None)
    graph, _ = nnx.split(nnx.eval_shape(lambda: MoEGPT(alone, experts=experts, rngs=nnx.Rngs(0))))

    def shard_metrics(params, inputs, targets):
        logits, routing = nnx.merge(graph, params)(inputs)
        log_likelihood = jax.nn.log_softmax(logits)
        entropy = -jnp.take_along_axis(log_likelihood, targets[..., None], -1).mean()
        return Metrics(entropy + config.balance_weight * routing.balance_loss, *routing)

    def objective(params, batch):
        parts = (tokens.reshape(shards, -1, tokens.shape[-1]) for tokens in batch)
        metrics = jax.vmap(shard_metrics, in_axes=(None, 0, 0))(params, *parts)
        mean = Metrics(*(values.mean() for values in metrics))
        return mean.loss, mean

    def step(state: TrainState, batch) -> tuple[TrainState, Metrics]:
        grads, metrics = jax.grad(objective, has_aux=True)(state.params, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params=params, opt_state=opt_state, step=state.step + 1), metrics

    return step


def assert_close(one, other, atol: float):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol, rtol=1e-3), one, other)


@pytest.mark.parametrize(
    ("sizes", "gate", "optimizer"),
    [
        ({"expert": 8}, "gshard", "sgd"),
        ({"data": 2, "expert": 4}, "switch", "adamw"),
        ({"data": 4, "expert": 2}, "expert_choice", "sgd"),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_two_steps_are_those_of_one_device_drops_and_balance_included(
    make_mesh, sizes: dict, gate: str, optimizer: str
):
    mesh, optimizer = make_mesh(**sizes), OPTIMIZERS[optimizer]
    data_axis = "data" if "data" in sizes else None
    config = preset("tiny", gate=gate, data_axis=data_axis, capacity_factor=0.5, batch_per_device=1)
    step = quick_jit(make_train_step(config, mesh, optimizer))
    plain = quick_jit(plain_step(config, 8, 2 * sizes["expert"], optimizer))

    state = init_state(config, mesh, optimizer)
    alone = jax.tree.map(np.asarray, state)
    for batch in global_batches(config, mesh, 2):
        state, metrics = step(state, batch)
        alone, expected = plain(alone, batch)
        assert metrics.dropped > 0.1
        assert_close(metrics, expected, atol=1e-5)

    assert state.step == 2
    assert_close(state.params, alone.params, atol=2e-5)
    assert_close(state.opt_state, alone.opt_state, atol=2e-5)


def test_with_room_for_all_tokens_eight_devices_equal_one(make_mesh):
    roomy = {"layers": 1, "capacity_factor": 8.0, "balance_weight": 0.0, "gate": "top_k"}
    spread = preset("tiny", experts_per_device=1, batch_per_device=1, **roomy)
    alone = preset("tiny", experts_per_device=8, batch_per_device=8, **roomy)
    results = []
    for config, mesh in ((spread, make_mesh(expert=8)), (alone, make_mesh(expert=1))):
        optimizer = OPTIMIZERS["sgd"]
        step = quick_jit(make_train_step(config, mesh, optimizer))
        state = init_state(config, mesh, optimizer)
        for batch in global_batches(config, mesh, 2):
            state, metrics = step(state, batch)
        results.append((state.params, metrics.loss))
        assert metrics.dropped == 0.0
    assert_close(*results, atol=2e-5)


@pytest.mark.parametrize("gate", GATES)
def test_every_gate_trains_alike_with_both_dispatches(make_mesh, gate: str):
    mesh, optimizer = make_mesh(expert=2), sgd_momentum()
    config = preset("tiny", layers=1, seq_len=16, gate=gate)
    start = init_state(config, mesh, optimizer)
    results = []
    for dispatch in ("scatter", "one_hot"):
        each = dataclasses.replace(config, dispatch=dispatch)
        step = quick_jit(make_train_step(each, mesh, optimizer))
        results.append(step(start, global_batches(config, mesh, 1)[0]))
    (state, metrics), other = results
    assert all(np.isfinite(metrics))
    before, after = (s.params["blocks"][0]["moe"]["experts"]["kernel_in"] for s in (start, state))
    assert np.abs(np.subtract(after, before)).max() > 1e-4
    assert_close((state, metrics), other, atol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "explicit"),
    [(sgd_momentum(), False), (adamw(1e-2), True)],
    ids=["sgd-auto", "adamw-explicit"],
)
def test_the_loss_falls_on_text_and_the_step_is_compiled_once(make_mesh, optimizer, explicit: bool):
    config, mesh = preset("tiny"), make_mesh(expert=8, explicit=explicit)
    step = jax.jit(make_train_step(config, mesh, optimizer), donate_argnums=0)
    state, losses = init_state(config, mesh, optimizer), []
    for batch in global_batches(config, mesh, 20):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert abs(losses[0] - np.log(config.vocab)) < 0.5
    assert np.mean(losses[-3:]) < losses[0] - 1.0
    assert step._cache_size() == 1


def test_the_random_gate_draws_anew_each_step_and_on_each_device(make_mesh):
    config = preset("tiny", layers=1, gate="random", capacity_factor=0.5)
    mesh, frozen = make_mesh(expert=8), optax.sgd(0.0)
    step = quick_jit(make_train_step(config, mesh, frozen))
    state = init_state(config, mesh, frozen)
    (inputs, targets), *_ = global_batches(config, mesh, 1)
    per_device = config.batch_per_device
    same = tuple(np.tile(tokens[:per_device], (8, 1)) for tokens in (inputs, targets))

    state, first = step(state, same)
    _, second = step(state, same)

    assert first.loss != second.loss
    # Eight equal draws would drop a multiple of 1/64 of the tokens of a device on average.
    share = float(first.dropped) * per_device * config.seq_len
    assert share != pytest.approx(round(share), abs=1e-3)


def test_the_whole_step_is_one_shard_map_with_four_exchanges_a_moe_layer(make_mesh):
    config, mesh, optimizer = preset("tiny", layers=4), make_mesh(expert=8), sgd_momentum()
    step = jax.jit(make_train_step(config, mesh, optimizer))
    lowered = step.lower(abstract_state(config, mesh, optimizer), abstract_batch(config, mesh))
    text = lowered.as_text()
    assert text.count("sdy.manual_computation") == 1
    assert text.count('"stablehlo.all_to_all"') == 4 * 2


def test_reduced_precision_keeps_the_state_and_the_metrics_in_float32(make_mesh):
    full, mesh, optimizer = preset("tiny", layers=1), make_mesh(expert=2), sgd_momentum()
    start, losses = init_state(full, mesh, optimizer), []
    for dtype in (jnp.bfloat16, jnp.float32):
        config = dataclasses.replace(full, dtype=dtype)
        step = quick_jit(make_train_step(config, mesh, optimizer))
        state, metrics = step(start, global_batches(config, mesh, 1)[0])
        types = {leaf.dtype for leaf in jax.tree.leaves((state.params, metrics))}
        assert types == {jnp.dtype(jnp.float32)}
        losses.append(float(metrics.loss))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
