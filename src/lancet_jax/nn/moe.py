"""The MoE layer: router, gate, dispatch, all-to-all, experts, all-to-all, combine."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lancet_jax.nn.config import MoEGPTConfig
from lancet_jax.nn.dispatch import DISPATCHERS
from lancet_jax.nn.dropless import (
    EXCHANGES,
    combine_rows,
    expert_groups,
    sort_rows,
    to_experts,
    to_tokens,
)
from lancet_jax.nn.routing import ExpertRouting, Routing, expert_capacity

_ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


class ExpertParam(nnx.Param):
    """A parameter whose leading dim counts experts: the expert axis splits it there."""


class RoutingStats(NamedTuple):
    """What a MoE layer reports beside its output.

    Attributes:
        balance_loss: Load-balance loss, float32 scalar.
        dropped: Fraction of choices that found no room, float32 scalar.
    """

    balance_loss: jax.Array
    dropped: jax.Array


class Experts(nnx.Module):
    """`E` two-layer MLPs, run as two batched matrix products.

    Inside a `shard_map` that splits `ExpertParam`s the leading dim is the device's share of `E`.
    """

    def __init__(self, config: MoEGPTConfig, *, experts: int, rngs: nnx.Rngs) -> None:
        """Initialises all `experts`; shard the parameters afterwards."""
        kernel = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        model, width, dtype = config.model, config.width, config.param_dtype
        self.kernel_in = ExpertParam(kernel(rngs.params(), (experts, model, width), dtype))
        self.bias_in = ExpertParam(jnp.zeros((experts, width), dtype))
        self.kernel_out = ExpertParam(kernel(rngs.params(), (experts, width, model), dtype))
        self.bias_out = ExpertParam(jnp.zeros((experts, model), dtype))
        self.activation = config.activation
        self.dtype = config.dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies expert `e` to all `x[:, e]`, `[G, E, C, D]` to the same shape."""
        kernel_in, bias_in, kernel_out, bias_out = self._parameters()
        hidden = jnp.einsum("gecd,edh->egch", x, kernel_in) + bias_in[:, None, None]
        hidden = _ACTIVATIONS[self.activation](hidden)
        return jnp.einsum("egch,ehd->gecd", hidden, kernel_out) + bias_out[:, None]

    def grouped(self, x: jax.Array, sizes: jax.Array) -> jax.Array:
        """Applies expert `e` to the `e`-th group of rows, `[R, D]` to the same shape.

        Two grouped matrix products (`jax.lax.ragged_dot`). Rows behind the last group mean nothing.
        XLA of JAX 0.12 has no grouped kernel for CPUs and NVIDIA GPUs: it masks the rows of each
        expert and multiplies all `R` of them, `E` times the FLOPs that the groups need or more.

        Args:
            x: Rows, sorted by expert.
            sizes: Rows of each expert, int32 `[E]`.
        """
        kernel_in, bias_in, kernel_out, bias_out = self._parameters()
        ends, row = jnp.cumsum(sizes), jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        # A product with a mask, not a gather: its transpose adds up in one fixed order.
        owner = ((row >= ends - sizes) & (row < ends)).astype(self.dtype)
        hidden = lax.ragged_dot(x, kernel_in, sizes) + owner @ bias_in
        hidden = _ACTIVATIONS[self.activation](hidden)
        return lax.ragged_dot(hidden, kernel_out, sizes) + owner @ bias_out

    def _parameters(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        kernel_in, bias_in, kernel_out, bias_out = (
            param[...].astype(self.dtype)
            for param in (self.kernel_in, self.bias_in, self.kernel_out, self.bias_out)
        )
        return kernel_in, bias_in, kernel_out, bias_out


class MoE(nnx.Module):
    """A Mixture-of-Experts layer whose experts are spread over a mesh axis.

    Call it inside a `shard_map` over `config.expert_axis`, or set that axis to None and call it
    anywhere.
    """

    def __init__(self, config: MoEGPTConfig, *, experts: int, rngs: nnx.Rngs) -> None:
        """Initialises the layer.

        Args:
            config: The model's configuration.
            experts: Number of experts `E` on all devices together.
            rngs: Source of the initial parameters.
        """
        self.gate = config.routing_gate
        self.number = experts
        self.capacity_factor = config.capacity_factor
        self.axis = config.expert_axis
        self.dispatch = config.dispatch
        self.experts = Experts(config, experts=experts, rngs=rngs)
        if self.gate.reads_logits:
            self.router = nnx.Linear(
                config.model,
                experts,
                use_bias=False,
                dtype=jnp.float32,
                param_dtype=config.param_dtype,
                rngs=rngs,
            )

    def __call__(
        self,
        x: jax.Array,
        *,
        token_ids: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, RoutingStats]:
        """Sends each token to its experts and returns their weighted answers.

        Args:
            x: Tokens of this device, `[..., D]`; routed together, in order.
            token_ids: Vocabulary ids, int32 `[...]`, for the hash gate.
            key: PRNG key, for gates that draw.

        Returns:
            The answers, `[..., D]` and zero for dropped tokens, and the routing's statistics.
        """
        tokens = x.reshape(-1, x.shape[-1])
        ids = None if token_ids is None else token_ids.reshape(-1)
        with jax.named_scope("gate"):
            routing = self._route(tokens, ids, key)
        dropless = self.dispatch in EXCHANGES
        answers = (self._dropless if dropless else self._with_capacity)(tokens, routing)
        return answers.reshape(x.shape), RoutingStats(routing.balance_loss, routing.dropped)

    def _with_capacity(self, tokens: jax.Array, routing: Routing | ExpertRouting) -> jax.Array:
        """Answers tokens `[T, D]` through expert buffers of one size."""
        dispatcher = DISPATCHERS[self.dispatch]
        with jax.named_scope("dispatch"):
            rows = self._exchange(dispatcher.dispatch(tokens, routing))
        with jax.named_scope("experts"):
            rows = self._answer(rows)
        with jax.named_scope("combine"):
            return dispatcher.combine(self._exchange(rows), routing)

    def _dropless(self, tokens: jax.Array, routing: Routing | ExpertRouting) -> jax.Array:
        """Answers tokens `[T, D]` through groups of rows as large as the routing makes them."""
        assert isinstance(routing, Routing), "the configuration wants a TokenGate"
        exchange = EXCHANGES[self.dispatch]
        with jax.named_scope("dispatch"):
            groups = expert_groups(routing, self.axis)
            rows = to_experts(exchange, sort_rows(tokens, groups), groups, self.axis)
        with jax.named_scope("experts"):
            rows = self.experts.grouped(rows, groups.sizes)
        with jax.named_scope("combine"):
            rows = to_tokens(exchange, rows, groups, self.axis)
            return combine_rows(rows, groups, routing.weight)

    def _route(
        self, tokens: jax.Array, ids: jax.Array | None, key: jax.Array | None
    ) -> Routing | ExpertRouting:
        count = tokens.shape[0]
        if self.capacity_factor is None:
            capacity = count * self.gate.k
        else:
            capacity = expert_capacity(count, self.gate.k, self.number, self.capacity_factor)
        if self.gate.reads_logits:
            logits = self.router(tokens)
        else:
            logits = jnp.zeros((count, self.number), jnp.float32)
        return self.gate.route(logits, capacity, token_ids=ids, key=key)

    def _exchange(self, rows: jax.Array) -> jax.Array:
        """Swaps blocks of `E / G` experts between the `G` devices of the expert axis.

        Its own inverse, so dispatch and combine share it. Rows `[E, C, D]` are grouped by expert
        before dispatch and by source device behind it. The capacity dim is neither split nor
        concatenated, which leaves it free to be cut into parts.
        """
        if self.axis is None:
            return rows
        return lax.all_to_all(rows, self.axis, split_axis=0, concat_axis=0, tiled=True)

    def _answer(self, rows: jax.Array) -> jax.Array:
        """Runs this device's experts on the rows of all `G` devices, `[E, C, D]`."""
        local = self.experts.kernel_in.shape[0]
        return self.experts(rows.reshape(-1, local, *rows.shape[1:])).reshape(rows.shape)
