"""What is done across the tokens of a device before a layer: `[B, S, D]` to the same.

The usual thing is nothing. Every other is right for a whole batch, and something else for its parts.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named

I32 = jnp.int32


def nothing(p, x):
    return x


def _flat(change):
    """Work on all tokens in a line, `[B * S, D]`."""

    def across(p, x):
        return change(p, x.reshape(-1, x.shape[-1])).reshape(x.shape)

    return across


def _number(t):
    return jnp.arange(t.shape[0], dtype=I32)[:, None]


def flipped(p, x):
    return x + 0.5 * x[::-1]


def strided(p, t):
    return jnp.concatenate([t[::2], t[1::2]]) * 0.5 + t


def without_first(p, t):
    return t - t[:1]


def last_added(p, t):
    return t + 0.1 * lax.dynamic_slice_in_dim(t, t.shape[0] - 1, 1, 0)


def running_max(p, t):
    return 0.5 * t + 0.5 * lax.cummax(t, 0)


def running_min_backwards(p, t):
    return 0.5 * t + 0.5 * lax.cummin(t, 0, reverse=True)


def running_sum_backwards(p, t):
    return t + lax.cumsum(t, 0, reverse=True) / t.shape[0]


def running_product(p, t):
    return t + lax.cumprod(1 + 0.01 * t, 0)


def running_logsumexp(p, t):
    return t - 0.1 * lax.cumlogsumexp(t, 0)


def running_mean(p, t):
    return t - jnp.cumsum(t, 0) / (1 + _number(t)).astype(t.dtype)


def so_far(p, t):
    """How many tokens were positive so far, counted in integers."""
    count = jnp.cumsum((t[:, :1] > 0).astype(I32), 0, dtype=I32)
    return t * (1 + count.astype(t.dtype) / t.shape[0])


def so_far_in_bytes(p, t):
    count = lax.cumsum((t[:, :1] > 0).astype(jnp.uint8) * jnp.uint8(37), 0)
    return t * (1 + count.astype(t.dtype) / 256)


def by_number(p, t):
    return t * (1 + _number(t).astype(t.dtype) / t.shape[0])


def by_parity(p, t):
    return jnp.where(_number(t) % 2 == 0, t, -0.5 * t)


def first_half(p, t):
    """A mask of the first half of the tokens."""
    return jnp.where(_number(t) < t.shape[0] // 2, t, 0.3 * t)


def gram(p, t):
    return t @ (jnp.eye(t.shape[1], dtype=t.dtype) + 0.1 * jnp.tanh(t.T @ t / t.shape[0]))


def scores_of_tokens(p, t):
    return t + 0.1 * jax.nn.softmax(t @ t.T) @ t


def largest(p, t):
    return t / (1 + jnp.max(jnp.abs(t)))


def median(p, t):
    return t - jnp.sort(t, 0)[t.shape[0] // 2]


def standardised(p, t):
    return (t - t.mean()) / (t.std() + 1e-3)


def variance(p, t):
    return t * lax.rsqrt(jnp.var(t, 0) + 1e-3)


def shuffled(p, t):
    order = jnp.argsort(lax.stop_gradient(t[:, 0]))
    return t[order]


def shuffled_and_back(p, t):
    order = jax.random.permutation(jax.random.key(2), t.shape[0])
    return (
        jnp.zeros_like(t).at[order].set(jnp.tanh(t[order]) * (1 + 0.1 * _number(t).astype(t.dtype)))
    )


def shifted(p, t):
    return t + 0.5 * jnp.pad(t, ((1, 0), (0, 0)))[:-1]


def first_row_cleared(p, t):
    return t.at[0].set(0) + 0.1


def window_updated(p, t):
    return lax.dynamic_update_slice(t, t[-2:] * 0.5, (1, 0))


def convolved(p, x):
    kernel = jnp.stack([p["dense"], p["dense"] * 0.5, p["dense"] * 0.2])
    numbers = ("NWC", "WIO", "NWC")
    return x + 0.3 * lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=numbers)


def pooled(p, t):
    """A window of three tokens: its largest."""
    return t + 0.3 * lax.reduce_window(t, -jnp.inf, lax.max, (3, 1), (1, 1), "SAME")


def folded(p, x):
    """The same memory with batch and sequence the other way round."""
    return x + 0.3 * x.reshape(x.shape[1], x.shape[0], -1).swapaxes(0, 1)


def features_as_tokens(p, t):
    return t + 0.3 * t.reshape(t.shape[1], t.shape[0]).T


def embedded(p, t):
    ids = (_number(t)[:, 0] * 7) % t.shape[1]
    return t + p["dense"][ids]


def of_largest(p, t):
    at = jnp.argmax(lax.stop_gradient(t[:, 0]))
    return t + 0.1 * lax.dynamic_index_in_dim(t, at, 0)


def strongest(p, t):
    """The tokens of the largest norm are kept, the others are damped."""
    norms = lax.stop_gradient(jnp.sum(t * t, -1))
    limit = lax.top_k(norms, t.shape[0] // 2)[0][-1]
    return jnp.where((norms >= limit)[:, None], t, 0.5 * t)


def segments(p, t):
    """Means of groups of tokens that data names."""
    group = (lax.stop_gradient(t[:, 0]) > 0).astype(I32)
    total = jax.ops.segment_sum(t, group, 2)
    size = jax.ops.segment_sum(jnp.ones_like(t[:, :1]), group, 2)
    return t - (total / jnp.maximum(size, 1))[group]


def if_positive(p, t):
    return lax.cond(t.sum() > 0, lambda t: jnp.tanh(t), lambda t: t * 0.5, t)


def until_small(p, t):
    """A loop whose trips depend on the data."""
    low = lax.stop_gradient(t)
    n, _ = lax.while_loop(
        lambda c: (c[0] < 9) & (jnp.max(jnp.abs(c[1])) > 0.5), lambda c: (c[0] + 1, c[1] / 2),
        (jnp.zeros((), I32), low),
    )  # fmt: skip
    return t / (1 + n.astype(t.dtype))


def all_or_none(p, t):
    return jnp.where(jnp.any(t > 2.5), t, 2 * t) + jnp.where(jnp.all(t[:, 0] > -3), 0.1, 0.2)


def spectrum(p, t):
    wide = t.astype(jnp.promote_types(t.dtype, jnp.float32))
    return t + 0.1 * jnp.real(jnp.fft.fft(wide, axis=0)).astype(t.dtype)


def rolled(p, t):
    return t + 0.5 * jnp.roll(t, 3, 0)


def scanned_tokens(p, t):
    def one(h, row):
        h = 0.9 * h + row
        return h, h

    return 0.5 * t + 0.5 * lax.scan(one, jnp.zeros_like(t[0]), t)[1]


_LINES = named(
    strided, without_first, last_added, running_max, running_min_backwards, running_sum_backwards,
    running_product, running_logsumexp, running_mean, so_far, so_far_in_bytes, by_number, by_parity,
    first_half, gram, scores_of_tokens, largest, median, standardised, variance, shuffled,
    shuffled_and_back, shifted, first_row_cleared, window_updated, pooled, features_as_tokens,
    embedded, of_largest, strongest, segments, if_positive, until_small, all_or_none, spectrum,
    rolled, scanned_tokens,
)  # fmt: skip
ACROSS = Table(
    named(nothing),
    {name: _flat(change) for name, change in _LINES.items()} | named(flipped, convolved, folded),
    chance=0.1,
)
