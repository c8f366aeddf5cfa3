"""What a gate decides: which expert sees which token, and in which row of its buffer.

Two forms exist, because two kinds of gates do. A token that chooses its experts gives a `Routing`
(`k` choices a token, some dropped); an expert that chooses its tokens gives an `ExpertRouting`
(`C` tokens an expert, none dropped but some tokens unseen).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

_STATIC: dict[str, Any] = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The choices of `T` tokens that pick `k` experts each.

    Attributes:
        expert: Chosen experts, int32 `[T, k]`.
        slot: Row of the chosen expert's buffer, int32 `[T, k]`. Slots keep counting beyond the
            capacity, so all `(expert, slot)` pairs differ, those of dropped choices included.
        weight: Factor of each choice in the combined output, float32 `[T, k]`.
        balance_loss: Load-balance loss, float32 scalar; zero for gates that have none.
        experts: Number of experts `E`.
        capacity: Rows `C` in each expert's buffer.
    """

    expert: jax.Array
    slot: jax.Array
    weight: jax.Array
    balance_loss: jax.Array
    experts: int = field(metadata=_STATIC)
    capacity: int = field(metadata=_STATIC)

    @property
    def kept(self) -> jax.Array:
        """Choices that found room, bool `[T, k]`."""
        return self.slot < self.capacity

    @property
    def dropped(self) -> jax.Array:
        """Fraction of choices that found no room, float32 scalar in [0, 1]."""
        return 1.0 - self.kept.mean(dtype=jnp.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertRouting:
    """The choices of `E` experts that pick `C` tokens each.

    Attributes:
        token: Chosen tokens, int32 `[E, C]`, distinct within a row.
        weight: Factor of each choice in the combined output, float32 `[E, C]`.
        balance_loss: Always zero, float32 scalar: the load is equal by construction.
        tokens: Number of tokens `T` that the experts chose from.
    """

    token: jax.Array
    weight: jax.Array
    balance_loss: jax.Array
    tokens: int = field(metadata=_STATIC)

    @property
    def dropped(self) -> jax.Array:
        """Fraction of tokens that no expert chose, float32 scalar in [0, 1]."""
        seen = jnp.zeros(self.tokens, jnp.float32).at[self.token].set(1.0)
        return 1.0 - seen.mean()


def expert_capacity(tokens: int, k: int, experts: int, factor: float) -> int:
    """Rows in one expert's buffer, `int(factor * ceil(T * k / E))` but at least one.

    Args:
        tokens: Tokens `T` that are routed together.
        k: Experts a token.
        experts: Number of experts `E`.
        factor: Capacity factor; 1.0 gives just enough room for a perfectly balanced load.

    Source: Tutel and Switch Transformer (Fedus et al., 2021).
    """
    return max(1, int(factor * math.ceil(tokens * k / experts)))


def token_major_slots(expert: jax.Array, experts: int) -> jax.Array:
    """Slots when tokens come in order, each with all of its choices, int32 `[T, k]`.

    A prefix count over tokens: the slots of a part of the batch follow from that part and the
    number of rows used before it.

    Args:
        expert: Chosen experts, int32 `[T, k]`.
        experts: Number of experts `E`.
    """
    return _running_count(expert.reshape(-1), experts).reshape(expert.shape)


def choice_major_slots(expert: jax.Array, experts: int) -> jax.Array:
    """Slots when all first choices come before all second choices, int32 `[T, k]`.

    The last token's first choice precedes the first token's second one, so the slots of a part of
    the batch depend on the whole batch.

    Args:
        expert: Chosen experts, int32 `[T, k]`.
        experts: Number of experts `E`.

    Source: GShard (Lepikhin et al., 2020), algorithm 1.
    """
    return token_major_slots(expert.T, experts).T


def _running_count(expert: jax.Array, experts: int) -> jax.Array:
    """For each entry of `expert` [N], how many equal ones precede it, int32 `[N]`."""
    one_hot = jax.nn.one_hot(expert, experts, dtype=jnp.int32)
    before = jnp.cumsum(one_hot, axis=0) - one_hot
    return jnp.sum(before * one_hot, axis=-1)


def load_balance_loss(probabilities: jax.Array, expert: jax.Array) -> jax.Array:
    """`E * sum_e f_e * p_e`: one for a uniform load, up to `E` when one expert takes all.

    `f_e` is the fraction of choices that name expert `e`, before any drop, and `p_e` its mean
    router probability. Only `p` carries a gradient.

    Args:
        probabilities: Router probabilities, float32 `[T, E]`.
        expert: Chosen experts, int32 `[T, k]`.

    Returns:
        A float32 scalar.

    Source: Switch Transformer (Fedus et al., 2021), equation 4.
    """
    experts = probabilities.shape[-1]
    chosen = jax.nn.one_hot(expert, experts, dtype=jnp.float32).mean(axis=(0, 1))
    return experts * jnp.sum(chosen * probabilities.mean(axis=0))
