"""Router scores: rows `[T, D]` to what experts are chosen by, `[T, E]`, all positive."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named


def wide(x):
    """Return x in at least 32 bits, as routers are computed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def logits(p, x):
    return wide(x) @ wide(p["wg"])


def softmax(p, x):
    return jax.nn.softmax(logits(p, x))


def sigmoid(p, x):
    return jax.nn.sigmoid(logits(p, x))


def einsum_softmax(p, x):
    z = jnp.einsum("td,de->te", wide(x), wide(p["wg"]))
    z = z - lax.stop_gradient(z.max(-1, keepdims=True))
    exp = jnp.exp(z)
    return exp / exp.sum(-1, keepdims=True)


def biased(p, x):
    return jax.nn.softmax(logits(p, x) + wide(p["bias"]))


def cosine(p, x):
    x, w = wide(x), wide(p["wg"])
    x = x * lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-6)
    w = w * lax.rsqrt(jnp.sum(w * w, 0, keepdims=True) + 1e-6)
    return jax.nn.softmax(x @ w / 0.2)


def crowded(p, x):
    """Most tokens choose one expert."""
    favourite = jnp.arange(p["wg"].shape[1]) == 3 % p["wg"].shape[1]
    return jax.nn.softmax(logits(p, x) + 2.0 * favourite)


def noisy(p, x):
    noise = jax.random.normal(jax.random.key(5), (x.shape[0], p["wg"].shape[1]), jnp.float32)
    return jax.nn.softmax(logits(p, x) + 0.3 * noise)


def softplus(p, x):
    s = jax.nn.softplus(logits(p, x)) + 1e-4
    return s / s.sum(-1, keepdims=True)


def half_of_them(p, x):
    """Only experts of the better half, in groups of two, as group-limited routers do."""
    s = jax.nn.softmax(logits(p, x))
    if s.shape[1] % 4:
        return s
    pairs = s.reshape(s.shape[0], -1, 2).max(-1)
    _, best = lax.top_k(pairs, pairs.shape[1] // 2)
    allowed = jax.nn.one_hot(best, pairs.shape[1], dtype=s.dtype).sum(1)
    return jnp.where(jnp.repeat(allowed, 2, 1) > 0, s, 1e-9)


def nan_rows(p, x):
    """Some tokens have no score at all: 0 / 0, as of a norm of padding."""
    s = softmax(p, x)
    return jnp.where((jnp.arange(s.shape[0]) % 5 == 4)[:, None], jnp.nan, s)


def ties(p, x):
    """Scores of few values, so that who is first decides."""
    return jnp.round(8 * lax.stop_gradient(softmax(p, x))) / 8 + 0.01


def all_to_one(p, x):
    """One expert for all tokens: almost every row is dropped, or comes in one window."""
    favourite = jnp.arange(p["wg"].shape[1]) == p["wg"].shape[1] - 2
    return jax.nn.softmax(0.1 * logits(p, x) + 9.0 * favourite)


def over_tokens(p, x):
    """A softmax over the tokens: every part needs all of them."""
    return jax.nn.softmax(logits(p, x), 0)


SCORES = Table(
    named(softmax, sigmoid, einsum_softmax, biased, cosine, crowded, noisy, softplus, half_of_them),
    named(nan_rows, ties, all_to_one, over_tokens),
)
