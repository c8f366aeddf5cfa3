"""Dispatch and combine on one device: tokens to expert buffers and back.

Two ways, with equal results for the same routing: *scatter* moves rows by index and costs memory
traffic only; *one-hot* multiplies with a `[T, E, C]` mask as GShard does, which costs
`2 * T * E * C * D` FLOPs each way.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lancet_jax.nn.routing import ExpertRouting, Routing


class Dispatcher(NamedTuple):
    """The two directions of one way to move tokens.

    Attributes:
        dispatch: Maps tokens `[T, D]` and a routing to expert buffers `[E, C, D]`; rows that no
            token owns are zero.
        combine: Maps expert buffers `[E, C, D]` and a routing to tokens `[T, D]`: the weighted sum
            of each token's rows, zero where all its choices were dropped.
    """

    dispatch: Callable[[jax.Array, Routing | ExpertRouting], jax.Array]
    combine: Callable[[jax.Array, Routing | ExpertRouting], jax.Array]


def scatter_dispatch(x: jax.Array, routing: Routing | ExpertRouting) -> jax.Array:
    """Writes tokens `[T, D]` to the rows that the routing gives them, `[E, C, D]`."""
    if isinstance(routing, ExpertRouting):
        return x.at[routing.token].get(mode="promise_in_bounds")
    rows = jnp.broadcast_to(x[:, None, :], (*routing.slot.shape, x.shape[-1]))
    buffer = jnp.zeros((routing.experts, routing.capacity, x.shape[-1]), x.dtype)
    # Adding, not setting: linear in x, so its transpose is one gather.
    return buffer.at[routing.expert, routing.slot].add(
        rows, mode="drop", unique_indices=True, wrap_negative_indices=False
    )


def scatter_combine(y: jax.Array, routing: Routing | ExpertRouting) -> jax.Array:
    """Reads the rows `[E, C, D]` back and adds each token's, weighted, `[T, D]`."""
    if isinstance(routing, ExpertRouting):
        weighted = routing.weight[..., None] * y
        total = jnp.zeros((routing.tokens, y.shape[-1]), weighted.dtype)
        return total.at[routing.token].add(weighted, mode="promise_in_bounds").astype(y.dtype)
    rows = y.at[routing.expert, routing.slot].get(
        mode="fill", fill_value=0, unique_indices=True, wrap_negative_indices=False
    )
    return jnp.sum(routing.weight[..., None] * rows, axis=1).astype(y.dtype)


def one_hot_dispatch(x: jax.Array, routing: Routing | ExpertRouting) -> jax.Array:
    """Multiplies tokens `[T, D]` with the routing's mask, `[E, C, D]`."""
    return jnp.einsum("tec,td->ecd", _mask(routing).astype(x.dtype), x)


def one_hot_combine(y: jax.Array, routing: Routing | ExpertRouting) -> jax.Array:
    """Multiplies expert buffers `[E, C, D]` with the routing's weighted mask, `[T, D]`."""
    return jnp.einsum("tec,ecd->td", _mask(routing, weighted=True), y).astype(y.dtype)


DISPATCHERS: Mapping[str, Dispatcher] = MappingProxyType(
    {
        "scatter": Dispatcher(scatter_dispatch, scatter_combine),
        "one_hot": Dispatcher(one_hot_dispatch, one_hot_combine),
    }
)
"""The ways to dispatch by name; read-only."""


def _mask(routing: Routing | ExpertRouting, *, weighted: bool = False) -> jax.Array:
    """Which token owns which row, float32 `[T, E, C]`: one, or the choice's weight."""
    weight = routing.weight if weighted else jnp.ones_like(routing.weight)
    if isinstance(routing, ExpertRouting):
        owner = jax.nn.one_hot(routing.token, routing.tokens)
        return jnp.einsum("ec,ect->tec", weight, owner)
    expert = weight[..., None] * jax.nn.one_hot(routing.expert, routing.experts)
    # A slot beyond the capacity has an all-zero row here: that is the drop.
    slot = jax.nn.one_hot(routing.slot, routing.capacity)
    return jnp.einsum("tke,tkc->tec", expert, slot)
