"""Experts in several spellings, cut with windows both ways: what one way makes the other reads.

Without biases a value that the backward pass reads may be put together right behind the product
that it is made of, and the product itself is then nowhere whole.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import lancet_jax

EXPERTS, WIDTH, HIDDEN, TOKENS = 16, 16, 32, 64
# See `test_split`: sums of at most 512 terms here.
BOUND = 2e-6
SPELLINGS = {
    "tanh": lambda up, gate: jnp.tanh(up),
    "gated": lambda up, gate: jnp.tanh(up) * gate,
    "negated": lambda up, gate: jax.nn.relu(-up),
    "gelu": lambda up, gate: jax.nn.gelu(up) * gate,
}


def product(equation, x, weight):
    """Multiply in x's type, add up in 32 bits."""
    wide = jnp.einsum(equation, x, weight.astype(x.dtype), preferred_element_type=jnp.float32)
    return wide.astype(x.dtype)


def loss(activation, dtype, weights, x):
    """Send one device's tokens `[T, D]` through experts that are far away."""
    tokens = jnp.tanh(product("td,de->te", x.astype(dtype), weights["in"]))
    gates = jax.nn.softmax(tokens.astype(jnp.float32) @ weights["router"])
    expert, weight = jnp.argmax(gates, -1), jnp.max(gates, -1, keepdims=True)
    hot = jax.nn.one_hot(expert, EXPERTS, dtype=jnp.int32)
    slot = jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1)
    room = jnp.zeros((EXPERTS, TOKENS // EXPERTS, WIDTH), dtype)
    sent = room.at[expert, slot].set(tokens, mode="drop")
    rows = lax.all_to_all(sent, "expert", 0, 1, tiled=True)
    up, gate = (product("ecd,edf->ecf", rows, weights[name]) for name in ("up", "gate"))
    answer = product("ecf,efd->ecd", activation(up, gate), weights["down"])
    back = lax.all_to_all(answer, "expert", 1, 0, tiled=True)
    found = back.at[expert, slot].get(mode="fill", fill_value=0)
    return jnp.mean((x + found * weight) ** 2)


def make(spelling, dtype):
    """Return a step that gives gradients, its weights and tokens."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("expert",))
    far, near = P("expert"), P()
    specs = {"in": near, "router": near, "up": far, "gate": far, "down": far}
    shapes = {
        "in": (WIDTH, WIDTH), "router": (WIDTH, EXPERTS), "up": (EXPERTS, WIDTH, HIDDEN),
        "gate": (EXPERTS, WIDTH, HIDDEN), "down": (EXPERTS, HIDDEN, WIDTH),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    x = rng.normal(size=(8 * TOKENS, WIDTH)).astype(np.float32)
    body = jax.grad(functools.partial(loss, SPELLINGS[spelling], jnp.dtype(dtype)))
    step = jax.shard_map(
        body, mesh=mesh, in_specs=(specs, P("expert")), out_specs=specs, check_vma=False
    )
    return step, weights, x


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [*((name, "float32") for name in SPELLINGS), ("tanh", "bfloat16")],
)
def test_gradients_are_those_of_the_uncut_step(spelling, dtype):
    step, *arguments = make(spelling, dtype)
    cut = lancet_jax.jit(step, pipeline="split-region{k=2}", on_unsupported="raise")
    expected, got = jax.jit(step)(*arguments), cut(*arguments)
    assert cut.outcomes[-1].cuts
    assert not any("experts wait" in note for note in cut.outcomes[-1].notes)
    # In 16 bits XLA rounds where a fusion ends.
    bound = BOUND if dtype == "float32" else 2.0**-7
    for name in expected:
        distance = np.abs(np.asarray(expected[name]) - np.asarray(got[name])).max()
        assert distance <= bound * np.abs(np.asarray(expected[name])).max(), name
