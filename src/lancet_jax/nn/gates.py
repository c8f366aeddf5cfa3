"""Gates: frozen dataclasses that turn router logits into a routing.

A gate sees the tokens of one device. `whole_batch` says whether the routing of some of them depends
on the tokens that come after: if so, the batch cannot be cut before the gate without changing the
result, only behind it.
"""

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from lancet_jax.nn.routing import (
    ExpertRouting,
    Routing,
    choice_major_slots,
    load_balance_loss,
    token_major_slots,
)


@dataclass(frozen=True)
class Gate(abc.ABC):
    """Base of all gates; subclass it, or `TokenGate`, as a frozen dataclass to write your own.

    Attributes:
        k: Experts a token (for expert choice: on average). Scales the capacity.
        whole_batch: Whether a token's routing depends on later tokens.
        reads_logits: Whether the values of the logits matter. Where not, the layer has no router.
        draws: Whether `route` needs a PRNG key.
    """

    k: int = 1
    whole_batch: ClassVar[bool] = False
    reads_logits: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    @abc.abstractmethod
    def route(
        self,
        logits: jax.Array,
        capacity: int,
        *,
        token_ids: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Routing | ExpertRouting:
        """Routes `T` tokens to `E` experts.

        Args:
            logits: Router logits, `[T, E]`; of a gate without router only the shape is read.
            capacity: Rows `C` in each expert's buffer.
            token_ids: Vocabulary ids, int32 `[T]`; read by `Hash` alone.
            key: PRNG key; read by gates that draw.

        Raises:
            ValueError: If an input that this gate needs is missing.
        """


@dataclass(frozen=True)
class TokenGate(Gate):
    """A gate whose tokens choose their experts: a choice of experts, then an order for the slots.

    As it stands it picks the `k` most probable experts and lets tokens take slots in order.
    Override one method or more for another gate.
    """

    def route(
        self,
        logits: jax.Array,
        capacity: int,
        *,
        token_ids: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Routing:
        """Chooses experts, gives out slots and prices the balance; see `Gate.route`.

        Args:
            logits: the router's, `[T, E]`.
            capacity: slots of each expert.
            token_ids: vocabulary ids of the tokens.
            key: for gates that draw lots.
        """
        scores = _probabilities(logits) if self.reads_logits else logits
        weight, expert = self.choices(scores, token_ids, key)
        return Routing(
            expert=expert,
            slot=self.slots(scores, expert),
            weight=weight,
            balance_loss=self.balance_loss(scores, expert),
            experts=logits.shape[-1],
            capacity=capacity,
        )

    def choices(
        self, scores: jax.Array, token_ids: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Weights, float32, and experts, int32, of each token's choices, both `[T, k]`.

        Weights are normalised over the choices when `k > 1`; with one choice they would all be one
        and the router would not learn.

        Args:
            scores: of each token for each expert, `[T, E]`.
            token_ids: vocabulary ids of the tokens.
            key: for gates that draw lots.
        """
        weight, expert = lax.top_k(scores, self.k)
        if self.k > 1:
            weight = weight / weight.sum(axis=-1, keepdims=True)
        return weight, expert

    def slots(self, scores: jax.Array, expert: jax.Array) -> jax.Array:
        """Slots of the choices, int32 `[T, k]`."""
        return token_major_slots(expert, scores.shape[-1])

    def balance_loss(self, scores: jax.Array, expert: jax.Array) -> jax.Array:
        """The load-balance loss, float32 scalar; zero without a router, which alone could learn."""
        return load_balance_loss(scores, expert) if self.reads_logits else jnp.zeros(())


@dataclass(frozen=True)
class Switch(TokenGate):
    """Each token goes to its most probable expert, weighted by that probability.

    Decides on any part of the batch.

    Source: Switch Transformer (Fedus et al., 2021).
    """

    k: int = field(default=1, init=False)

    def choices(
        self, scores: jax.Array, token_ids: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The best expert of each token, by two plain reductions instead of a sort.

        Args:
            scores: of each token for each expert, `[T, E]`.
            token_ids: vocabulary ids of the tokens.
            key: for gates that draw lots.
        """
        expert = jnp.argmax(scores, axis=-1).astype(jnp.int32)
        return jnp.max(scores, axis=-1, keepdims=True), expert[:, None]


@dataclass(frozen=True)
class TopK(TokenGate):
    """Each token goes to its `k` most probable experts; tokens take slots in order.

    Decides on any part of the batch.

    Source: Mixture-of-Experts layer (Shazeer et al., 2017), without its noise.
    """

    k: int = 2


@dataclass(frozen=True)
class GShard(TokenGate):
    """Top-2 where all first choices take their slots before any second choice.

    Second choices depend on the first choices of later tokens: decides on the whole batch. The
    balance loss counts first choices alone. The paper drops light second choices at random; this
    gate keeps them, so that a step repeats exactly.

    Source: GShard (Lepikhin et al., 2020), algorithm 1.
    """

    k: int = field(default=2, init=False)
    whole_batch: ClassVar[bool] = True

    def slots(self, scores: jax.Array, expert: jax.Array) -> jax.Array:
        """Slots in the order of choices, then tokens."""
        return choice_major_slots(expert, scores.shape[-1])

    def balance_loss(self, scores: jax.Array, expert: jax.Array) -> jax.Array:
        """The load-balance loss of first choices."""
        return load_balance_loss(scores, expert[:, :1])


@dataclass(frozen=True)
class BatchPrioritised(TokenGate):
    """Top-k where the tokens that the router is surest of take their slots first.

    Tokens are sorted by their best probability (ties: earlier token first), so that a full expert
    drops the least certain ones. Decides on the whole batch.

    Source: V-MoE (Riquelme et al., 2021), batch prioritised routing.
    """

    whole_batch: ClassVar[bool] = True

    def slots(self, scores: jax.Array, expert: jax.Array) -> jax.Array:
        """Slots in the order of choices, then certainty."""
        order = jnp.argsort(-jnp.max(scores, axis=-1), stable=True)
        slot = choice_major_slots(expert[order], scores.shape[-1])
        return jnp.zeros_like(slot).at[order].set(slot, unique_indices=True)


@dataclass(frozen=True)
class Random(TokenGate):
    """Each token goes to `k` distinct experts drawn uniformly, all with weight `1 / k`.

    Has no router. Decides on any part of the batch.

    Source: THOR (Zuo et al., 2021), stochastic experts.
    """

    reads_logits: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    def choices(
        self, scores: jax.Array, token_ids: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The experts that draw the highest numbers.

        Args:
            scores: of each token for each expert, `[T, E]`.
            token_ids: vocabulary ids of the tokens.
            key: for gates that draw lots.
        """
        if key is None:
            raise ValueError("gate 'random' needs a PRNG key: pass key=")
        _, expert = lax.top_k(jax.random.uniform(key, scores.shape), self.k)
        return jnp.full(expert.shape, 1.0 / self.k, jnp.float32), expert


@dataclass(frozen=True)
class Hash(TokenGate):
    """Each token goes to the expert that its vocabulary id hashes to, with weight one.

    Has no router; the hash is fixed (Knuth's multiplicative one, upper half of 32 bits). Decides
    on any part of the batch.

    Source: Hash Layers (Roller et al., 2021).
    """

    k: int = field(default=1, init=False)
    reads_logits: ClassVar[bool] = False

    def choices(
        self, scores: jax.Array, token_ids: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The hashes of the vocabulary ids.

        Args:
            scores: of each token for each expert, `[T, E]`.
            token_ids: vocabulary ids of the tokens.
            key: for gates that draw lots.
        """
        if token_ids is None:
            raise ValueError("gate 'hash' needs the vocabulary ids: pass token_ids=")
        mixed = token_ids.astype(jnp.uint32) * jnp.uint32(2654435761) >> 16
        expert = (mixed % scores.shape[-1]).astype(jnp.int32)[:, None]
        return jnp.ones(expert.shape, jnp.float32), expert


@dataclass(frozen=True)
class ExpertChoice(Gate):
    """Each expert takes the `C` tokens with its highest probabilities.

    A token may be seen by many experts or by none; `k` is the average at capacity factor one. An
    expert's choice depends on every token, so a causal model leaks the future through it: fine as a
    test load, not for a language model to sample from. Decides on the whole batch.

    Source: Expert Choice routing (Zhou et al., 2022).
    """

    k: int = 2
    whole_batch: ClassVar[bool] = True

    def route(
        self,
        logits: jax.Array,
        capacity: int,
        *,
        token_ids: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> ExpertRouting:
        """See `Gate.route`; a capacity above `T` is cut to `T`.

        Args:
            logits: the router's, `[T, E]`.
            capacity: slots of each expert.
            token_ids: vocabulary ids of the tokens.
            key: for gates that draw lots.
        """
        tokens = logits.shape[0]
        weight, token = lax.top_k(_probabilities(logits).T, min(capacity, tokens))
        return ExpertRouting(token=token, weight=weight, balance_loss=jnp.zeros(()), tokens=tokens)


GATES: Mapping[str, type[Gate]] = MappingProxyType(
    {
        "switch": Switch,
        "top_k": TopK,
        "gshard": GShard,
        "batch_prioritised": BatchPrioritised,
        "random": Random,
        "hash": Hash,
        "expert_choice": ExpertChoice,
    }
)
"""The gates of this module by name; read-only."""


def gate_named(name: str, top_k: int | None = None) -> Gate:
    """The gate called `name`, with `top_k` experts a token (None: the gate's own number).

    Raises:
        ValueError: If there is no such gate, or its number of experts a token is fixed and differs.
    """
    if name not in GATES:
        raise ValueError(f"no gate {name!r}; choose one of {', '.join(GATES)}")
    gate = GATES[name]()
    if top_k is None or top_k == gate.k:
        return gate
    if not all(each.init for each in dataclasses.fields(gate)):
        raise ValueError(f"gate {name!r} always uses top_k={gate.k}, not {top_k}")
    return dataclasses.replace(gate, k=top_k)


def _probabilities(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
