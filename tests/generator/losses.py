"""Losses of a device's activations `[B, S, D]`, and what routers add to them."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.scores import wide
from tests.generator.tables import Table, named


def mean_square(y):
    return jnp.mean(jnp.square(wide(y)))


def sum_of_squares(y):
    return jnp.sum(jnp.square(wide(y))) / 64


def _labels(y):
    place = jnp.arange(y.shape[0] * y.shape[1], dtype=jnp.int32).reshape(y.shape[:2])
    return place * 5 % y.shape[-1]


def cross_entropy(y):
    logs = jax.nn.log_softmax(wide(y))
    return -jnp.mean(jnp.take_along_axis(logs, _labels(y)[..., None], -1))


def one_hot_entropy(y):
    logs = wide(y) - jax.nn.logsumexp(wide(y), -1, keepdims=True)
    return -jnp.mean(jnp.sum(logs * jax.nn.one_hot(_labels(y), y.shape[-1], dtype=logs.dtype), -1))


def smooth(y):
    d = jnp.abs(wide(y) - 0.1)
    return jnp.mean(jnp.where(d < 1, 0.5 * d * d, d - 0.5))


def masked(y):
    keep = (_labels(y) % 3 != 0).astype(wide(y).dtype)
    return jnp.sum(jnp.mean(wide(y) ** 2, -1) * keep) / jnp.maximum(keep.sum(), 1)


def per_sequence(y):
    return jnp.mean(jnp.sqrt(1 + jnp.sum(wide(y) ** 2, (1, 2))))


def contrastive(y):
    """Sequences against each other: whole batches only."""
    flat = wide(y).reshape(y.shape[0], -1) / y[0].size
    return jnp.mean(jax.nn.logsumexp(flat @ flat.T, -1))


LOSSES = Table(
    named(mean_square, sum_of_squares, cross_entropy, one_hot_entropy, smooth, masked, per_sequence),
    named(contrastive),
)  # fmt: skip


# ---------------------------------------------------------------------------------- of routers


def none(scores, chosen):
    return jnp.zeros((), scores.dtype)


def balance(scores, chosen):
    hot = jax.nn.one_hot(chosen[:, 0], scores.shape[1], dtype=scores.dtype)
    return scores.shape[1] * jnp.sum(hot.mean(0) * scores.mean(0))


def all_choices(scores, chosen):
    hot = jax.nn.one_hot(chosen, scores.shape[1], dtype=scores.dtype).sum(1)
    return jnp.sum(lax.stop_gradient(hot.mean(0)) * scores.mean(0)) * scores.shape[1]


def counted(scores, chosen):
    load = jnp.zeros(scores.shape[1], scores.dtype).at[chosen.reshape(-1)].add(1, mode="drop")
    return jnp.sum(load * scores.sum(0)) / scores.shape[0] ** 2


def z(scores, chosen):
    return jnp.mean(jnp.square(jax.nn.logsumexp(scores, -1)))


def importance(scores, chosen):
    load = scores.sum(0)
    return jnp.var(load) / (jnp.square(load.mean()) + 1e-6)


def entropy(scores, chosen):
    return jnp.mean(jnp.sum(scores * jnp.log(scores + 1e-6), -1))


AUXILIARY = Table(named(none, balance, all_choices, counted, z, importance, entropy))


# ---------------------------------------------------------------------------------- of tables


def unwatched(sent, rows, made, answers):
    return jnp.zeros((), sent.dtype)


def answers_squared(sent, rows, made, answers):
    """Of all rows, those that nothing came for as well."""
    return jnp.mean(made * made)


def answers_shifted(sent, rows, made, answers):
    """What empty rows answer is not zero."""
    return jnp.mean(jnp.cos(made)) + jnp.mean(jnp.abs(answers - 0.1))


def arrivals(sent, rows, made, answers):
    return jnp.mean(jnp.exp(-rows * rows))


def largest_answer(sent, rows, made, answers):
    return jnp.max(made) + jnp.min(answers)


def filled(sent, rows, made, answers):
    """How many rows something came for, at both ends."""
    here = jnp.sum(jnp.any(sent != 0, -1), dtype=jnp.int32)
    there = jnp.sum(jnp.any(rows != 0, -1), dtype=jnp.int32)
    return (here + 3 * there).astype(sent.dtype) / sent.size


def first_rows(sent, rows, made, answers):
    """Rows by their place, from all experts."""
    return jnp.sum(made[:, 0] * 0.01) + jnp.sum(rows[:, -1] ** 2 * 0.01)


WATCH = Table(
    named(unwatched),
    named(answers_squared, answers_shifted, arrivals, largest_answer, filled, first_rows),
    chance=0.1,
)
"""What a loss reads of the exchanged tables themselves, beside what tokens get of them."""
