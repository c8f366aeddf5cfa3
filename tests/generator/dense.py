"""What stands before a layer: `[B, S, D]` to the same."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.generator.tables import Table, named


def nothing(p, x):
    return x


def tanh(p, x):
    return jnp.tanh(x @ p["dense"])


def norm(p, x):
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def layer_norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * (1 + p["bias_d"])


def residual(p, x):
    return x + jax.nn.gelu(norm(p, x) @ p["dense"])


def attention(p, x):
    q, k, v = (norm(p, x) @ p["qkv"][i] for i in range(3))
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / np.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return x + jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(jnp.where(mask, scores, -1e9)), v)


def heads(p, x):
    b, s, d = x.shape
    q, k, v = ((x @ p["qkv"][i]).reshape(b, s, 2, d // 2) for i in range(3))
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(d // 2))
    return x + jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, s, d)


def rotary(p, x):
    angle = jnp.arange(x.shape[1], dtype=x.dtype)[:, None] / (
        1 + jnp.arange(x.shape[2] // 2, dtype=x.dtype)
    )
    even, odd = jnp.split(x, 2, -1)
    turned = jnp.concatenate([even * jnp.cos(angle) - odd * jnp.sin(angle),
                              odd * jnp.cos(angle) + even * jnp.sin(angle)], -1)  # fmt: skip
    return attention(p, turned)


def dropout(p, x):
    keep = jax.random.bernoulli(jax.random.key(3), 0.9, x.shape)
    return jnp.where(keep, x / 0.9, 0)


def over_batch(p, x):
    """Batch norm: every part needs all tokens."""
    mean = x.mean((0, 1))
    return (x - mean) / jnp.sqrt(jnp.mean((x - mean) ** 2, (0, 1)) + 1e-5)


def prefix(p, x):
    """A linear recurrence along the sequence."""
    return x + jnp.cumsum(x @ p["dense"], 1) / x.shape[1]


def recurrent(p, x):
    def one(h, x):
        h = jnp.tanh(0.5 * h + x @ p["dense"])
        return h, h

    return lax.scan(one, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def convolved(p, x):
    """Each token with the one before, over the border between sequences too."""
    flat = x.reshape(-1, x.shape[-1])
    return (flat + 0.5 * jnp.roll(flat, 1, 0)).reshape(x.shape)


DENSE = Table(
    named(norm, nothing, tanh, layer_norm, residual, attention, heads, rotary, dropout),
    named(over_batch, prefix, recurrent, convolved),
)

RESIDUALS = Table({
    "added": lambda x, y: x + y,
    "alone": lambda x, y: y,
    "normed": lambda x, y: x + norm(None, y),
    "scaled": lambda x, y: 0.7 * x + 1.3 * y,
})  # fmt: skip
"""How a layer's answer goes on."""
