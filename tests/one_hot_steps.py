"""MoE layers that dispatch and combine by products with one-hot masks, as different people write them.

Every mask takes router probabilities `[T, E]` and the slots of an expert, and returns what tokens
are sent with and what answers are weighted with, both `[T, E, C]`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from tests.steps import Size, exchange, experts, norm, scatter


def slots_of(hot):
    """Count the tokens before each that chose the same expert, as whole numbers `[T]`."""
    return jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1)


def products(gates, slots):
    """One-hot experts times one-hot slots."""
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, gates.shape[-1])
    slot = jax.nn.one_hot(slots_of(hot).astype(jnp.int32), slots)
    mask = hot[..., None] * slot[:, None, :]
    return mask, mask * jnp.max(gates, -1)[:, None, None]


def positions(gates, slots):
    """Positions of every token in every expert, -1 where it did not choose it."""
    hot = jax.nn.one_hot(jnp.argmax(gates, -1), gates.shape[-1])
    place = jnp.cumsum(hot, 0) * hot - 1
    dispatch = hot[..., None] * jax.nn.one_hot(place.astype(jnp.int32), slots)
    return dispatch, dispatch * gates[..., None]


def priorities(gates, slots, k=1):
    """As flaxformer: positions without a mask, weighted with the gates of all experts."""
    _, chosen = lax.top_k(gates, k)
    hot = jax.nn.one_hot(chosen, gates.shape[-1], dtype=jnp.int32)
    flat = hot.transpose(1, 0, 2).reshape(-1, gates.shape[-1])
    place = jnp.cumsum(flat, 0) * flat - 1
    place = place.reshape(k, -1, gates.shape[-1]).transpose(1, 0, 2)
    dispatch = jax.nn.one_hot(jnp.max(place, 1), slots, dtype=gates.dtype)
    return dispatch, jnp.einsum("te,tec->tec", gates, dispatch)


def mesh_tf(gates, slots):
    """As Mesh TensorFlow's switch gate: dropped tokens leave the mask, what is sent is a bool."""
    gate, expert = jnp.max(gates, -1), jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, gates.shape[-1])
    place = (jnp.cumsum(hot, 0) - hot) * hot
    hot = hot * (place < slots)
    kept, place = jnp.sum(hot, -1), jnp.sum(place, -1)
    combine = (
        (gate * kept)[:, None, None]
        * jax.nn.one_hot(expert, gates.shape[-1])[:, :, None]
        * jax.nn.one_hot(place.astype(jnp.int32), slots)[:, None, :]
    )
    return combine.astype(bool).astype(gates.dtype), combine


def flags(gates, slots):
    """Comparisons and selections only."""
    expert = jnp.argmax(gates, -1)
    is_mine = expert[:, None] == jnp.arange(gates.shape[-1])
    slot = slots_of(is_mine.astype(jnp.int32))
    is_here = is_mine[:, :, None] & (slot[:, None] == jnp.arange(slots))[:, None, :]
    combine = jnp.where(is_here, jnp.max(gates, -1)[:, None, None], 0.0)
    return is_here.astype(gates.dtype), combine


def token_major(gates, slots):
    """Two experts a token, counted token by token."""
    weight, chosen = lax.top_k(gates, 2)
    hot = jax.nn.one_hot(chosen, gates.shape[-1])
    slot = slots_of(hot.reshape(-1, gates.shape[-1])).reshape(chosen.shape)
    slot = jax.nn.one_hot(slot.astype(jnp.int32), slots)
    combine = jnp.einsum("tk,tke,tkc->tec", weight, hot, slot)
    return jnp.einsum("tke,tkc->tec", hot, slot), combine


def choice_major(gates, slots):
    """Two experts a token, all first choices before all second ones; what is sent is positive."""
    weight, chosen = lax.top_k(gates, 2)
    hot = jax.nn.one_hot(chosen, gates.shape[-1])
    place = jnp.cumsum(hot.transpose(1, 0, 2).reshape(-1, gates.shape[-1]), 0) - 1
    place = place.reshape(2, -1, gates.shape[-1]).transpose(1, 0, 2)
    slot = jax.nn.one_hot(jnp.sum(place * hot, -1).astype(jnp.int32), slots)
    combine = jnp.einsum("tk,tke,tkc->tec", weight, hot, slot)
    return (combine > 0).astype(gates.dtype), combine


MASKS = {f.__name__: f for f in (
    products, positions, priorities, mesh_tf, flags, token_major, choice_major,
)}  # fmt: skip


def masked_moe(p, x, mask=products, capacity=1.0, groups=None, axis="ep"):
    """A layer that sends and combines by a mask; in groups of tokens if asked for."""
    tokens = norm(x).reshape(groups or 1, -1, x.shape[-1])
    count = p["router"].shape[-1]
    slots = max(int(capacity * tokens.shape[1] / count), 1)
    gates = jax.nn.softmax((tokens @ p["router"]).astype(jnp.float32))
    dispatch, combine = jax.vmap(functools.partial(mask, slots=slots))(gates)
    dispatch, combine = dispatch.astype(x.dtype), combine.astype(x.dtype)
    if groups is None:
        sent = jnp.einsum("tec,td->ecd", dispatch[0], tokens[0])
        back = exchange(experts(p, exchange(sent, axis)), axis, back=True)
        return x + jnp.einsum("tec,ecd->td", combine[0], back).reshape(x.shape)
    sent = jnp.einsum("gtec,gtd->egcd", dispatch, tokens)
    sent = lax.all_to_all(sent, axis, 0, 1, tiled=True)
    local, wide = sent.shape[0], sent.shape[1] * slots
    out = experts(p, sent.reshape(local, wide, -1)).reshape(sent.shape)
    back = lax.all_to_all(out, axis, 1, 0, tiled=True)
    return x + jnp.einsum("gtec,egcd->gtd", combine, back).reshape(x.shape)


def one_hot_step(devices, size=Size(), abstract=False, **options):
    """Return a train step with such layers."""
    return scatter(devices, size, abstract, moe=functools.partial(masked_moe, **options))
