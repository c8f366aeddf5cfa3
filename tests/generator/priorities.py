"""Whose turn it is: choices `[T, K]` in an order `[T * K]`, and ranks back to `[T, K]`."""

import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table

I32 = jnp.int32


def token_major(rank, chosen, weight):
    return rank(chosen.reshape(-1)).reshape(chosen.shape)


def choice_major(rank, chosen, weight):
    return rank(chosen.T.reshape(-1)).reshape(chosen.shape[::-1]).T


def by_weight(rank, chosen, weight):
    """Batch-prioritised: tokens of high weight first."""
    order = jnp.argsort(-lax.stop_gradient(weight[:, 0]))
    ranks = token_major(rank, chosen[order], weight)
    return jnp.zeros_like(ranks).at[order].set(ranks)


def last_first(rank, chosen, weight):
    return token_major(rank, chosen[::-1], weight)[::-1]


def interleaved(rank, chosen, weight):
    """Even tokens before odd ones."""
    tokens = chosen.shape[0]
    if tokens % 2:
        return token_major(rank, chosen, weight)
    mixed = chosen.reshape(tokens // 2, 2, -1).transpose(1, 0, 2).reshape(chosen.shape)
    ranks = token_major(rank, mixed, weight)
    return ranks.reshape(2, tokens // 2, -1).transpose(1, 0, 2).reshape(chosen.shape)


def choices_apart(rank, chosen, weight):
    """Every choice counts for itself: two tokens may have one place."""
    return jnp.stack([rank(chosen[:, j]) for j in range(chosen.shape[1])], -1)


PRIORITIES = Table(
    {"token_major": token_major, "choice_major": choice_major, "by_weight": by_weight},
    {"last_first": last_first, "interleaved": interleaved, "choices_apart": choices_apart},
    plainness=0.6,
)
