"""What is done between the two exchanges beside the experts' own work: `[E / N, R, F]` to the same.

The usual thing is nothing. The others make something of a row that depends on which expert it is at,
at which place, or what stands beside it: a cut that treats every row alone is wrong there.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named


def none(h, p, peers):
    return h


def _mix(h, p):
    return p["mix"][: h.shape[0], : h.shape[0]].astype(h.dtype)


def dot_over_experts(h, p, peers):
    return jnp.einsum("ecf,eg->gcf", h, _mix(h, p))


def reversed_experts(h, p, peers):
    return h[::-1]


def lax_reversed_experts(h, p, peers):
    return h + lax.rev(h, (0,))


def rolled_experts(h, p, peers):
    return jnp.roll(h, 1, 0)


def sorted_experts(h, p, peers):
    return jnp.sort(h, 0)


def mean_of_experts(h, p, peers):
    return h - h.mean(0, keepdims=True)


def largest_of_experts(h, p, peers):
    return h / (1 + lax.stop_gradient(jnp.max(jnp.abs(h), 0)))


def experts_as_features(h, p, peers):
    e, rows, width = h.shape
    flat = h.transpose(1, 0, 2).reshape(rows, e * width)
    weight = jnp.sin(
        jnp.arange(e * width, dtype=h.dtype)[:, None] * jnp.arange(1, 5, dtype=h.dtype)
    )
    low = flat @ weight @ weight.T / (e * width)
    return h + low.reshape(rows, e, width).transpose(1, 0, 2)


def softmax_over_experts(h, p, peers):
    return h * jax.nn.softmax(h, 0)


def prefix_over_experts(h, p, peers):
    return jnp.cumsum(h, 0)


def rows_and_experts_turned(h, p, peers):
    """The same memory read as other experts' rows."""
    return h.reshape(h.shape[1], h.shape[0], -1).transpose(1, 0, 2)


def picked_expert(h, p, peers):
    return h + 0.1 * h[h.shape[0] // 2]


def weight_of_expert(h, p, peers):
    return h * (1 + jnp.arange(h.shape[0], dtype=h.dtype))[:, None, None]


def weight_of_place(h, p, peers):
    """Places are told apart, as by a position code."""
    return h * (1 + jnp.arange(h.shape[1], dtype=h.dtype) / 8)[None, :, None]


def weight_of_source(h, p, peers):
    table = h.reshape(h.shape[0], peers, -1, h.shape[-1])
    return (table * (1 + jnp.arange(peers, dtype=h.dtype))[:, None, None]).reshape(h.shape)


def rolled_rows(h, p, peers):
    return h + jnp.roll(h, 1, 1)


def reversed_rows(h, p, peers):
    return h[:, ::-1]


def mean_of_rows(h, p, peers):
    return h - h.mean(1, keepdims=True)


def prefix_of_rows(h, p, peers):
    return jnp.cumsum(h, 1) / 4


def sorted_rows(h, p, peers):
    return jnp.sort(h, 1)


def softmax_over_rows(h, p, peers):
    return h * jax.nn.softmax(h, 1)


def mean_of_sources(h, p, peers):
    table = h.reshape(h.shape[0], peers, -1, h.shape[-1])
    return (table + table.mean(1, keepdims=True)).reshape(h.shape)


def rolled_sources(h, p, peers):
    table = h.reshape(h.shape[0], peers, -1, h.shape[-1])
    return jnp.roll(table, 1, 1).reshape(h.shape)


def sources_as_slots(h, p, peers):
    """Peers and slots are taken for one another."""
    return h.reshape(h.shape[0], peers, -1, h.shape[-1]).swapaxes(1, 2).reshape(h.shape)


def dropout(h, p, peers):
    keep = jax.random.bernoulli(jax.random.key(11), 0.8, h.shape)
    return jnp.where(keep, h / 0.8, 0)


def constant_added(h, p, peers):
    """Empty rows are not zero any more."""
    return h + 0.5


def scaled_by_all(h, p, peers):
    return h / (1 + lax.stop_gradient(jnp.sqrt(jnp.mean(h * h))))


def largest_row(h, p, peers):
    return h + 0.1 * jnp.max(h, 1, keepdims=True)


def cut_numbers(h, p, peers):
    """Rounded down by way of integers without a sign: what is negative is 0."""
    low = lax.stop_gradient((h * 4).astype(jnp.uint8).astype(h.dtype))
    return h + low / 16


def square_of_experts(h, p, peers):
    gram = jnp.einsum("ecf,gcf->eg", h, h) / h.size
    return h + jnp.einsum("eg,gcf->ecf", gram, h)


def rounded_to_eight_bits(h, p, peers):
    return h + lax.stop_gradient(h.astype(jnp.float8_e4m3fn).astype(h.dtype) - h)


def scaled_by_filled(h, p, peers):
    """By how many rows an expert has."""
    filled = jnp.sum(jnp.any(h != 0, -1), 1, dtype=jnp.int32)
    return h / (1 + filled[:, None, None].astype(h.dtype))


MIXERS = Table(
    named(none),
    named(dot_over_experts, reversed_experts, lax_reversed_experts, rolled_experts, sorted_experts,
          mean_of_experts, largest_of_experts, experts_as_features, softmax_over_experts,
          prefix_over_experts, rows_and_experts_turned, picked_expert, weight_of_expert,
          weight_of_place, weight_of_source, rolled_rows, reversed_rows, mean_of_rows,
          prefix_of_rows, sorted_rows, softmax_over_rows, mean_of_sources, rolled_sources,
          sources_as_slots, dropout, constant_added, scaled_by_all, largest_row, cut_numbers,
          square_of_experts, rounded_to_eight_bits, scaled_by_filled),
    chance=0.15,
)  # fmt: skip

SPOTS = Table({"hidden": "hidden", "arrival": "arrival", "answer": "answer"})
"""Where it is done: inside of the experts, before or behind them."""
