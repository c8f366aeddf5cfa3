"""What a layer reports beside its answer: of scores `[T, E]`, experts and ranks `[T, K]`, a place."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named

I32 = jnp.int32


def dropped(s, e, rank, place):
    return {"dropped": jnp.sum(~place.keep, dtype=I32)}


def nothing(s, e, rank, place):
    return {}


def load(s, e, rank, place):
    hot = jax.nn.one_hot(e, s.shape[1], dtype=I32)
    return {"load": hot.sum((0, 1), dtype=I32), "most": jnp.max(hot.sum((0, 1), dtype=I32))}


def bins(s, e, rank, place):
    return {"load": jnp.bincount(e.reshape(-1), length=s.shape[1]).astype(I32)}


def slots(s, e, rank, place):
    return {"slot": rank, "expert": e}


def largest_rank(s, e, rank, place):
    return {"deepest": rank.max(), "first": jnp.argmax(rank.reshape(-1)).astype(I32)}


def share(s, e, rank, place):
    return {"kept": jnp.mean(place.keep, dtype=jnp.float32), "mean": s.mean(0)}


def checksum(s, e, rank, place):
    """Integers that overflow: the same in any order, if they stay integers."""
    line = jnp.arange(e.size, dtype=I32).reshape(e.shape)
    mixed = (e * I32(40503) + rank) * (line * I32(2654435) + I32(1))
    return {"sum": mixed.sum(dtype=I32), "product": jnp.prod(mixed | 1, dtype=I32)}


def bits(s, e, rank, place):
    either = lax.reduce_or(e | rank, (0, 1)) if e.ndim == 2 else e
    return {
        "or": either,
        "xor": lax.reduce_xor(e + rank, (0, 1)),
        "and": lax.reduce_and(rank, (0, 1)),
    }


def extremes(s, e, rank, place):
    return {"max": s.max(), "min": s.min(0), "is_any": jnp.any(s > 0.9), "all": jnp.all(s >= 0)}


def bytes_(s, e, rank, place):
    """Counts in bytes, which overflow; and cut off from floats."""
    kept = place.keep.astype(jnp.uint8)
    return {"bytes": jnp.sum(kept * jnp.uint8(17), dtype=jnp.uint8),
            "small": jnp.sum(rank.astype(jnp.int8), dtype=jnp.int8)}  # fmt: skip


def floats_of_counts(s, e, rank, place):
    kept = place.keep.astype(jnp.float8_e4m3fn)
    return {"eights": lax.cumsum(kept.reshape(-1), 0).astype(jnp.float32),
            "halves": jnp.sum(place.keep.astype(jnp.bfloat16)).astype(jnp.float32)}  # fmt: skip


def sorted_ranks(s, e, rank, place):
    flat = (e * I32(64) + rank).reshape(-1)
    return {"sorted": jnp.sort(flat), "order": jnp.argsort(flat).astype(I32)}


def order(s, e, rank, place):
    """What was the last expert, and which tokens came first."""
    first = (
        jnp.full(s.shape[1], 999, I32)
        .at[e[:, 0]]
        .min(jnp.arange(e.shape[0], dtype=I32), mode="drop")
    )
    return {"last": e[-1], "first": first, "jumps": jnp.sum(jnp.abs(jnp.diff(e[:, 0])), dtype=I32)}


METRICS = Table(
    named(dropped, nothing, load, bins, slots, largest_rank, share),
    named(checksum, bits, extremes, bytes_, floats_of_counts, sorted_ranks, order),
    chance=0.1,
)
