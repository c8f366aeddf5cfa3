"""Who goes where: scores `[T, E]` to experts `[T, K]`, int32, and their weights."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named

I32 = jnp.int32


def top(s, k):
    weight, chosen = lax.top_k(s, k)
    return chosen.astype(I32), weight


def argmax(s, k):
    """One after the other, what was taken masked."""
    chosen, weight, rest = [], [], s
    for _ in range(k):
        e = jnp.argmax(rest, -1).astype(I32)
        hot = jax.nn.one_hot(e, s.shape[1], dtype=s.dtype)
        chosen.append(e)
        weight.append(jnp.sum(s * hot, -1))
        rest = rest * (1 - hot)
    return jnp.stack(chosen, -1), jnp.stack(weight, -1)


def lax_argmax(s, k):
    if k > 1:
        return argmax(s, k)
    e = lax.argmax(s, 1, jnp.int32)
    return e[:, None], s.max(1)[:, None]


def normalised(s, k):
    chosen, weight = top(s, k)
    return chosen, weight / (weight.sum(-1, keepdims=True) + 1e-6)


def sorted_(s, k):
    order = jnp.argsort(-s, axis=-1)[:, :k].astype(I32)
    return order, jnp.take_along_axis(s, order, 1)


def softmax_of_chosen(s, k):
    chosen, weight = top(s, k)
    return chosen, jax.nn.softmax(weight)


def unweighted_bias(s, k):
    """Chosen by scores and a bias for balance, weighted without it."""
    bias = lax.stop_gradient(0.02 * jnp.arange(s.shape[1]) / s.shape[1])
    _, chosen = lax.top_k(s + bias.astype(s.dtype), k)
    return chosen.astype(I32), jnp.take_along_axis(s, chosen, 1)


def hashed(s, k):
    """By the token's place, whatever the scores."""
    place = jnp.arange(s.shape[0], dtype=I32)
    chosen = jnp.stack([(place * (7 + 2 * j) + 3 * j) % s.shape[1] for j in range(k)], -1)
    return chosen, jnp.take_along_axis(s, chosen, 1)


def random_second(s, k):
    """The second expert only if it is strong enough: GShard's, without the dice."""
    chosen, weight = top(s, k)
    strong = weight > 0.3 * weight[:, :1]
    return chosen, jnp.where(strong, weight, 0)


def threshold(s, k):
    """Those at least as good as the k-th: a compare that NaN fails."""
    weight, chosen = lax.top_k(s, k)
    is_in = s >= weight[:, -1:]
    picked = jnp.take_along_axis(is_in, chosen, 1)
    return jnp.where(picked, chosen, 0).astype(I32), jnp.where(picked, weight, 0)


def eight_bits(s, k):
    """Experts' numbers kept in bytes, without a sign."""
    chosen, weight = top(s, k)
    return chosen.astype(jnp.uint8).astype(I32), weight


def overflowing(s, k):
    """Numbers that overflow int32 and wrap: expert 1 alone comes out inside, as -6."""
    chosen, weight = top(s, k)
    return chosen * I32(65536) * I32(65535) + I32(65530), weight


def from_halves(s, k):
    """Numbers by way of floats that are cut off: -0.5 is 0."""
    chosen, weight = top(s, k)
    return (chosen.astype(jnp.float32) / 2 - 0.5).astype(I32), weight


def beyond(s, k):
    """Some tokens ask for an expert that does not exist."""
    chosen, weight = top(s, k)
    place = jnp.arange(s.shape[0], dtype=I32)[:, None]
    return jnp.where(place % 4 == 3, s.shape[1] + chosen, chosen), weight


def negative(s, k):
    """Experts counted from the end: -1 is the last one where an index wraps."""
    chosen, weight = top(s, k)
    return chosen - I32(s.shape[1] // 2), weight


def the_same_twice(s, k):
    """All choices of a token are its first one."""
    chosen, weight = top(s, k)
    return jnp.broadcast_to(chosen[:, :1], chosen.shape), weight


CHOICES = Table(
    named(top, argmax, lax_argmax, normalised, sorted_, softmax_of_chosen, unweighted_bias, hashed,
          random_second),
    named(threshold, eight_bits, overflowing, from_halves, beyond, negative, the_same_twice),
)  # fmt: skip
COLLIDING = ("overflowing", "from_halves", "beyond", "negative", "threshold")
"""Choices after which two tokens may have one place."""
