"""How many before me chose my expert: numbers `[R]`, int32, to ranks `[R]`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.generator.tables import Table, named
from tests.generator.wrappers import UNCHECKED

I32 = jnp.int32


def hot_of(e, count, dtype=I32):
    return (e[:, None] == jnp.arange(count, dtype=I32)).astype(dtype)


def summed(v):
    return jnp.sum(v, -1, dtype=v.dtype)


def running(hot):
    return jnp.cumsum(hot, 0, dtype=hot.dtype)


def inclusive(e, count):
    hot = hot_of(e, count)
    return summed((running(hot) - 1) * hot)


def exclusive(e, count):
    hot = jax.nn.one_hot(e, count, dtype=I32)
    return summed((running(hot) - hot) * hot)


def floats(e, count):
    hot = jax.nn.one_hot(e, count)
    return summed((running(hot) - 1) * hot).astype(I32)


def lax_cumsum(e, count):
    hot = hot_of(e, count)
    return jnp.max(lax.cumsum(hot, 0) * hot, -1) - 1


def looked_up(e, count):
    hot = hot_of(e, count)
    return jnp.take_along_axis(running(hot), e[:, None], 1, mode="fill", fill_value=1)[:, 0] - 1


def indexed(e, count):
    total = running(hot_of(e, count))
    return total[jnp.arange(e.shape[0], dtype=I32), e] - 1


def shifted(e, count):
    hot = hot_of(e, count)
    before = jnp.pad(running(hot), ((1, 0), (0, 0)))[:-1]
    return jnp.einsum("re,re->r", before, hot)


def associative(e, count):
    hot = hot_of(e, count)
    return summed((lax.associative_scan(jnp.add, hot) - 1) * hot)


def triangular(e, count):
    hot = hot_of(e, count, jnp.float32)
    before = jnp.tril(jnp.ones((e.shape[0],) * 2, jnp.float32), -1) @ hot
    return summed(before * hot).astype(I32)


def pairs(e, count):
    same = (e[:, None] == e[None, :]) & jnp.asarray(np.tri(e.shape[0], k=-1, dtype=bool))
    return summed(same.astype(I32))


def by_sort(e, count):
    order = jnp.argsort(e, stable=True)
    first = jnp.searchsorted(e[order], e[order], side="left").astype(I32)
    rank = jnp.arange(e.shape[0], dtype=I32) - first
    return jnp.zeros_like(e).at[order].set(rank, unique_indices=True)


def by_two_sorts(e, count):
    place = jnp.argsort(jnp.argsort(e)).astype(I32)
    sizes = summed(hot_of(e, count).T)
    first = jnp.cumsum(sizes, dtype=I32) - sizes
    return place - first.at[e].get(mode="fill", fill_value=0)


def by_scan(e, count):
    def one(counts, e):
        return counts.at[e].add(1), counts.at[e].get(mode="fill", fill_value=0)

    return lax.scan(one, jnp.zeros(count, I32), e)[1]


def in_blocks(e, count):
    hot = hot_of(e, count)
    if hot.shape[0] % 4:
        return inclusive(e, count)
    blocks = hot.reshape(4, -1, count)
    inside = jnp.cumsum(blocks, 1, dtype=I32)
    sizes = inside[:, -1]
    before = jnp.cumsum(sizes, 0, dtype=I32) - sizes
    total = (inside + before[:, None]).reshape(hot.shape)
    return summed((total - 1) * hot)


def per_expert(e, count):
    def one(i):
        mine = (e == i).astype(I32)
        return running(mine) * mine

    return jax.vmap(one)(jnp.arange(count, dtype=I32)).sum(0, dtype=I32) - 1


def unsigned(e, count):
    hot = jax.nn.one_hot(e, count, dtype=jnp.uint32)
    return summed((running(hot) - hot) * hot).astype(I32)


def from_the_end(e, count):
    """Later tokens first."""
    hot = hot_of(e, count)
    return summed((lax.cumsum(hot, 0, reverse=True) - 1) * hot)


def narrow(dtype):
    def count_in(e, count):
        hot = hot_of(e, count, dtype)
        return (summed((lax.cumsum(hot, 0) * hot).astype(jnp.float32)) - 1).astype(I32)

    return count_in


def small_integers(dtype):
    """Counts that overflow in the middle of a long batch."""

    def count_in(e, count):
        hot = hot_of(e, count, dtype)
        return summed((lax.cumsum(hot, 0) - hot) * hot).astype(I32)

    return count_in


def sixteens(e, count):
    """Counts that overflow four bits' worth of bytes: every token counts 16."""
    hot = hot_of(e, count, jnp.uint8) * jnp.uint8(16)
    total = lax.cumsum(hot, 0)
    return summed(jnp.where(hot > 0, total // 16, 0)).astype(I32)


def cumulative_max(e, count):
    """No count: the largest expert's number so far."""
    return lax.cummax(e) - e


def squared(e, count):
    """Two of every expert's tokens get one place."""
    return inclusive(e, count) // 2


def some_valid(e, count):
    """Padding is not counted, but sent: it comes to lie on the first row."""
    valid = jnp.arange(e.shape[0], dtype=I32) % 3 != 2
    hot = hot_of(e, count) * valid[:, None].astype(I32)
    return summed((running(hot) - 1) * hot)


def valid_and_beyond(e, count):
    """Padding is not counted, and sent beyond the buffer."""
    valid = jnp.arange(e.shape[0], dtype=I32) % 3 != 2
    hot = hot_of(e, count) * valid[:, None].astype(I32)
    return jnp.where(valid, summed((running(hot) - 1) * hot), 1 << 20)


def in_halves(e, count):
    """Each half of the tokens is counted for itself: two tokens have one rank."""
    if e.shape[0] % 2:
        return inclusive(e, count)
    hot = hot_of(e, count).reshape(2, -1, count)
    total = jnp.cumsum(hot, 1, dtype=I32)
    return summed((total - 1) * hot).reshape(-1)


def in_halves_apart(e, count):
    """Each half for itself, in slots of its own: even and odd ones."""
    half = (jnp.arange(e.shape[0], dtype=I32) >= e.shape[0] // 2).astype(I32)
    return in_halves(e, count) * 2 + (half if e.shape[0] % 2 == 0 else 0)


def of_others(e, count):
    """Tokens before that chose the next expert."""
    hot = hot_of(e, count)
    return summed(running(hot) * jnp.roll(hot, 1, 1))


def twos(e, count):
    hot = hot_of(e, count) * 2
    return summed((running(hot) - hot) * hot) // 2


def negatives(e, count):
    """Counted down from zero, and turned round."""
    hot = -hot_of(e, count)
    return summed((running(hot) + 1) * hot)


def products(e, count):
    """A prefix product, of twos: the exponent is the rank; it overflows after 31 tokens."""
    hot = hot_of(e, count)
    twos = lax.cumprod(jnp.where(hot > 0, 2, 1).astype(I32), 0)
    return summed(jnp.where(hot > 0, twos, 0)) // 2


COUNTERS = Table(
    named(inclusive, exclusive, floats, lax_cumsum, looked_up, indexed, shifted, associative,
          triangular, pairs, by_sort, by_two_sorts, by_scan, in_blocks, per_expert, unsigned,
          from_the_end),
    {
        "float8": narrow(jnp.float8_e4m3fn), "float8_e5m2": narrow(jnp.float8_e5m2),
        "bfloat16": narrow(jnp.bfloat16), "float16": narrow(jnp.float16),
        "int8": small_integers(jnp.int8), "uint8": small_integers(jnp.uint8),
        "int16": small_integers(jnp.int16),
    } | named(sixteens, cumulative_max, squared, some_valid,
        valid_and_beyond, in_halves, in_halves_apart, of_others, twos, negatives, products),
    chance=0.1,
    plainness=0.7,
    needs={"by_scan": {"spread": UNCHECKED}},
)  # fmt: skip
EXACT = (*COUNTERS.usual, "valid_and_beyond", "in_halves_apart", "negatives")
"""Counters that give every token of an expert its own rank."""
