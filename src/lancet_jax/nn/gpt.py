"""A GPT-2 with MoE layers: pre-norm blocks, causal attention, tied output head."""

import jax
import jax.numpy as jnp
from flax import nnx

from lancet_jax.nn.config import MoEGPTConfig
from lancet_jax.nn.moe import MoE, RoutingStats


class CausalAttention(nnx.Module):
    """Multi-head self-attention in which a token sees itself and earlier ones."""

    def __init__(self, config: MoEGPTConfig, *, rngs: nnx.Rngs) -> None:
        """Initialises the two projections."""
        self.qkv = _linear(config, config.model, 3 * config.model, rngs)
        self.out = _linear(config, config.model, config.model, rngs)
        self.heads = config.heads

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within each sequence, `[B, S, D]` to the same shape."""
        batch, length, model = x.shape
        query, key, value = (
            part.reshape(batch, length, self.heads, model // self.heads)
            for part in jnp.split(self.qkv(x), 3, axis=-1)
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
        causal = jnp.tril(jnp.ones((length, length), bool))
        scores = jnp.where(causal, scores.astype(jnp.float32), -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape))


class MLP(nnx.Module):
    """The dense two-layer MLP of GPT-2."""

    def __init__(self, config: MoEGPTConfig, *, rngs: nnx.Rngs) -> None:
        """Initialises the two layers."""
        self.up = _linear(config, config.model, config.width, rngs)
        self.down = _linear(config, config.width, config.model, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., D]` to the same shape."""
        return self.down(jax.nn.gelu(self.up(x)))


class Block(nnx.Module):
    """Attention, then an MLP or a MoE layer, each behind a norm and beside a residual."""

    def __init__(self, config: MoEGPTConfig, *, experts: int | None = None, rngs: nnx.Rngs) -> None:
        """Initialises the block; with `experts` it has a MoE layer of so many."""
        self.attention_norm = _norm(config, rngs)
        self.attention = CausalAttention(config, rngs=rngs)
        self.mlp_norm = _norm(config, rngs)
        self.has_experts = experts is not None
        if experts is None:
            self.mlp = MLP(config, rngs=rngs)
        else:
            self.moe = MoE(config, experts=experts, rngs=rngs)

    def __call__(
        self, x: jax.Array, *, token_ids: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, RoutingStats | None]:
        """Maps `[B, S, D]` to the same shape, with the MoE layer's statistics if it has one."""
        with jax.named_scope("attention"):
            x = x + self.attention(self.attention_norm(x))
        if not self.has_experts:
            with jax.named_scope("mlp"):
                return x + self.mlp(self.mlp_norm(x)), None
        with jax.named_scope("moe"):
            answers, stats = self.moe(self.mlp_norm(x), token_ids=token_ids, key=key)
            return x + answers, stats


class MoEGPT(nnx.Module):
    """A GPT-2 language model in which every `config.moe_every`-th block has a MoE layer."""

    def __init__(self, config: MoEGPTConfig, *, experts: int, rngs: nnx.Rngs) -> None:
        """Initialises the model.

        Args:
            config: The model's configuration.
            experts: Number of experts in each MoE layer, on all devices together.
            rngs: Source of the initial parameters.
        """
        self.token_embedding = _embedding(config, config.vocab, rngs)
        self.position_embedding = _embedding(config, config.seq_len, rngs)
        self.blocks = nnx.List(
            Block(config, experts=None if index % config.moe_every else experts, rngs=rngs)
            for index in range(config.layers)
        )
        self.norm = _norm(config, rngs)

    def __call__(
        self, tokens: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, RoutingStats]:
        """Scores the next token at every position.

        Args:
            tokens: Vocabulary ids, int32 `[B, S]` with `S <= seq_len`.
            key: PRNG key, for gates that draw.

        Returns:
            Logits `[B, S, vocab]`, and the statistics of the MoE layers, averaged.

        Raises:
            ValueError: If the sequences are longer than `seq_len`.
        """
        length, longest = tokens.shape[-1], self.position_embedding.num_embeddings
        if length > longest:
            raise ValueError(f"sequences have {length} tokens, but seq_len={longest}")
        with jax.named_scope("embed"):
            x = self.token_embedding(tokens) + self.position_embedding(jnp.arange(length))
        stats = []
        for index, block in enumerate(self.blocks):
            block_key = None if key is None else jax.random.fold_in(key, index)
            with jax.named_scope(f"block_{index}"):
                x, routed = block(x, token_ids=tokens, key=block_key)
            stats += [] if routed is None else [routed]
        with jax.named_scope("head"):
            logits = self.token_embedding.attend(self.norm(x))
        return logits, jax.tree.map(lambda *layers: sum(layers) / len(layers), *stats)


def _linear(config: MoEGPTConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(
        inputs, outputs, dtype=config.dtype, param_dtype=config.param_dtype, rngs=rngs
    )


def _norm(config: MoEGPTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.model, dtype=config.dtype, param_dtype=config.param_dtype, rngs=rngs
    )


def _embedding(config: MoEGPTConfig, rows: int, rngs: nnx.Rngs) -> nnx.Embed:
    return nnx.Embed(
        rows,
        config.model,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        embedding_init=nnx.initializers.normal(0.02),
        rngs=rngs,
    )
