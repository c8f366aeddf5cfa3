"""Scatter and one-hot dispatch: equal to each other and to a loop over choices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lancet_jax.nn import DISPATCHERS, GATES, ExpertRouting, Routing, gate_named
from lancet_jax.nn.routing import expert_capacity

TOKENS, EXPERTS, WIDTH = 40, 5, 8
SCATTER, ONE_HOT = DISPATCHERS["scatter"], DISPATCHERS["one_hot"]


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def routed(name: str, factor: float = 0.5) -> Routing | ExpertRouting:
    gate = gate_named(name)
    capacity = expert_capacity(TOKENS, gate.k, EXPERTS, factor)
    logits = draw(TOKENS, EXPERTS, seed=1)
    ids, key = jnp.arange(TOKENS, dtype=jnp.int32) % 23, jax.random.key(2)
    return gate.route(logits, capacity, token_ids=ids, key=key)


def owners(routing: Routing | ExpertRouting) -> list[tuple[int, int, int, float]]:
    """(token, expert, slot, weight) of each kept choice."""
    if isinstance(routing, ExpertRouting):
        token, weight = np.asarray(routing.token), np.asarray(routing.weight)
        return [(token[e, c], e, c, weight[e, c]) for e, c in np.ndindex(token.shape)]
    fields = (np.asarray(leaf) for leaf in (routing.expert, routing.slot, routing.weight))
    expert, slot, weight = fields
    kept = np.argwhere(slot < routing.capacity)
    return [(t, expert[t, j], slot[t, j], weight[t, j]) for t, j in kept]


@pytest.mark.parametrize("dispatcher", [SCATTER, ONE_HOT], ids=list(DISPATCHERS))
@pytest.mark.parametrize("name", GATES)
def test_both_directions_are_those_of_a_loop(name: str, dispatcher):
    routing, x = routed(name), draw(TOKENS, WIDTH)
    assert routing.dropped > 0
    rows = dispatcher.dispatch(x, routing)
    y = draw(*rows.shape, seed=3)

    expected_rows, expected_tokens = np.zeros(rows.shape), np.zeros(x.shape)
    for token, expert, slot, weight in owners(routing):
        expected_rows[expert, slot] += x[token]
        expected_tokens[token] += weight * y[expert, slot]

    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(dispatcher.combine(y, routing), expected_tokens, atol=2e-6)


@pytest.mark.parametrize("name", GATES)
def test_gradients_of_both_ways_are_equal(name: str):
    x, mix = draw(TOKENS, WIDTH), draw(EXPERTS, WIDTH, WIDTH, seed=4)
    routing = routed(name)

    def energy(dispatcher):
        def through(x, weight):
            chosen = dataclasses.replace(routing, weight=weight)
            rows = jnp.einsum("ecd,edf->ecf", dispatcher.dispatch(x, chosen), mix)
            return jnp.sum(dispatcher.combine(rows, chosen) ** 2)

        return jax.grad(through, argnums=(0, 1))(x, routing.weight)

    scattered, multiplied = energy(SCATTER), energy(ONE_HOT)
    for one, other in zip(scattered, multiplied, strict=True):
        assert jnp.abs(one).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dispatcher", [SCATTER, ONE_HOT], ids=list(DISPATCHERS))
def test_a_dropped_token_gets_zeros(dispatcher):
    routing = routed("switch")
    rows = dispatcher.dispatch(jnp.ones((TOKENS, WIDTH)), routing)
    answers = dispatcher.combine(rows + 1.0, routing)
    kept = np.asarray(routing.kept[:, 0])
    assert not kept.all()
    np.testing.assert_array_equal(answers[~kept], 0.0)
    assert jnp.all(answers[kept] > 0)


@pytest.mark.parametrize("dispatcher", [SCATTER, ONE_HOT], ids=list(DISPATCHERS))
def test_the_activation_type_survives(dispatcher):
    rows = dispatcher.dispatch(jnp.ones((TOKENS, WIDTH), jnp.bfloat16), routed("top_k"))
    assert rows.dtype == dispatcher.combine(rows, routed("top_k")).dtype == jnp.bfloat16
