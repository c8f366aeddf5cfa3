"""Dropless dispatch: every token reaches its experts, however many choose the same one.

Rows are sorted by expert, devices tell each other how many rows each expert gets, and only those
rows are sent. Experts then see groups of different size, which a grouped matrix product
(`jax.lax.ragged_dot`) multiplies without padding each group.

Shapes are static, so the buffer behind the exchange holds the worst case: all `G` devices of the
expert axis send all their `T * k` choices to one of them, `G * T * k` rows of `[D]`. A balanced
load fills `1 / G` of it. With a capacity `C` it would be `E * C` rows, and what does not fit is
dropped.

`split-region` cuts such a layer along the batch, both directions at once: no token's way depends on
another's, so a part that runs all of this on its own tokens gives them the same answers. Only sums
over tokens, the weights' gradients, are rounded otherwise. A part's buffer is as much smaller as
its tokens are fewer, and all parts together need as many products as the whole. It is done for
`ragged`; the dense blocks of `padded` are sent as they are.

Source: MegaBlocks (Gale et al., 2022) for dropless experts as grouped products.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import lax

from lancet_jax.nn.routing import Routing


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Which rows a device sends and gets, as `jax.lax.ragged_all_to_all` wants it.

    Slice `i` goes to, or comes from, device `i // (E / G)` of the axis. All int32 `[E]`.

    Attributes:
        input_offsets: First row of each slice in the sender's buffer.
        send_sizes: Rows of each slice that is sent.
        output_offsets: First row of each slice in its receiver's buffer.
        recv_sizes: Rows of each slice that arrives.
    """

    input_offsets: jax.Array
    send_sizes: jax.Array
    output_offsets: jax.Array
    recv_sizes: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertGroups:
    """How the choices of all devices of the expert axis group by expert.

    Attributes:
        position: Row of each choice on its own device, sorted by expert, int32 `[T, k]`.
        sizes: Rows of each of this device's experts, int32 `[E / G]`.
        slices: Slices of the exchange that brings rows to their experts, and of its inverse; None
            if all experts are here.
    """

    position: jax.Array
    sizes: jax.Array
    slices: tuple[Slices, Slices] | None


type SendRows = Callable[[jax.Array, Slices, int, str], jax.Array]
"""Sends slices of rows `[N, D]` over a mesh axis into a buffer of so many rows, else zero."""


def expert_groups(routing: Routing, axis: str | None) -> ExpertGroups:
    """Sorts the choices of this device by expert and exchanges the group sizes.

    The order is that of a counting sort: an expert's rows start behind those of the experts before
    it, and the routing's slots count within. One all-gather of `E` int32 is the only exchange.

    Args:
        routing: The choices of this device's tokens.
        axis: Mesh axis that splits experts; None if all are here.
    """
    counts = jax.nn.one_hot(routing.expert, routing.experts, dtype=jnp.int32).sum(axis=(0, 1))
    position = _starts(counts)[routing.expert] + routing.slot
    if axis is None:
        return ExpertGroups(position=position, sizes=counts, slices=None)
    everywhere = lax.all_gather(counts, axis)
    there, back = _slices(everywhere, lax.axis_index(axis))
    devices = everywhere.shape[0]
    sizes = there.recv_sizes.reshape(devices, -1).sum(axis=0)
    return ExpertGroups(position=position, sizes=sizes, slices=(there, back))


def sort_rows(x: jax.Array, groups: ExpertGroups) -> jax.Array:
    """Copies tokens `[T, D]` to rows sorted by expert, `[T * k, D]`."""
    rows = jnp.broadcast_to(x[:, None, :], (*groups.position.shape, x.shape[-1]))
    # Adding, not setting: linear in x, so its transpose is one gather.
    return (
        jnp.zeros((groups.position.size, x.shape[-1]), x.dtype)
        .at[groups.position]
        .add(rows, mode="promise_in_bounds", unique_indices=True)
    )


def combine_rows(y: jax.Array, groups: ExpertGroups, weight: jax.Array) -> jax.Array:
    """Adds each token's rows of `[T * k, D]`, weighted by float32 `[T, k]`, `[T, D]`.

    Args:
        y: what the experts made of the rows.
        groups: where each token's rows lie in it.
        weight: of each choice.
    """
    rows = y.at[groups.position].get(mode="promise_in_bounds", unique_indices=True)
    return jnp.sum(weight[..., None] * rows, axis=1).astype(y.dtype)


def to_experts(
    exchange: SendRows, rows: jax.Array, groups: ExpertGroups, axis: str | None
) -> jax.Array:
    """Brings sorted rows `[T * k, D]` to their experts, `[G * T * k, D]` sorted by expert.

    Rows behind the last group are zero.

    Args:
        exchange: sends rows to other devices.
        rows: sorted by expert.
        groups: whose rows they are.
        axis: mesh axis that the experts are on; None if they are all here.
    """
    if groups.slices is None or axis is None:
        return rows
    there, back = groups.slices
    return exchange_rows(exchange, rows, there, back, lax.axis_size(axis) * rows.shape[0], axis)


def to_tokens(
    exchange: SendRows, rows: jax.Array, groups: ExpertGroups, axis: str | None
) -> jax.Array:
    """Brings the experts' rows `[G * T * k, D]` back to where they came from, `[T * k, D]`.

    Args:
        exchange: sends rows to other devices.
        rows: sorted by expert.
        groups: whose rows they are.
        axis: mesh axis that the experts are on; None if they are all here.
    """
    if groups.slices is None or axis is None:
        return rows
    there, back = groups.slices
    return exchange_rows(exchange, rows, back, there, groups.position.size, axis)


@partial(jax.custom_vjp, nondiff_argnums=(0, 4, 5))
def exchange_rows(
    exchange: SendRows, rows: jax.Array, there: Slices, back: Slices, room: int, axis: str
) -> jax.Array:
    """Sends rows `[N, D]` as `there` says, into `[room, D]`; rows that nobody sends are zero.

    Its transpose is the same exchange the way back. JAX's own rule for `ragged_all_to_all` would
    exchange the offsets once more, which `back` already holds.

    Args:
        exchange: What moves the rows; see `EXCHANGES`.
        rows: Rows of this device.
        there: Slices to send and to get.
        back: The slices of the inverse.
        room: Rows of the buffer to fill.
        axis: Mesh axis to exchange over.
    """
    del back
    return exchange(rows, there, room, axis)


def ragged_exchange(rows: jax.Array, slices: Slices, room: int, axis: str) -> jax.Array:
    """Sends filled rows only, by `jax.lax.ragged_all_to_all`; XLA:CPU has none.

    Args:
        rows: what to send.
        slices: which of them go where.
        room: rows that may arrive.
        axis: mesh axis of the devices that exchange.
    """
    return lax.ragged_all_to_all(
        rows,
        jnp.zeros((room, rows.shape[-1]), rows.dtype),
        slices.input_offsets,
        slices.send_sizes,
        slices.output_offsets,
        slices.recv_sizes,
        axis_name=axis,
    )


def padded_exchange(rows: jax.Array, slices: Slices, room: int, axis: str) -> jax.Array:
    """Sends the same rows by a dense all-to-all of blocks as long as the worst case.

    For backends without a ragged exchange: every device sends `G` times the rows that it could
    send to one peer at most.

    Args:
        rows: what to send.
        slices: which of them go where.
        room: rows that may arrive.
        axis: mesh axis of the devices that exchange.
    """
    devices = lax.axis_size(axis)
    block = jnp.arange(min(rows.shape[0], room), dtype=jnp.int32)
    source = _places(slices.input_offsets, slices.send_sizes, devices, block)
    sent = rows.at[source].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    got = lax.all_to_all(sent, axis, split_axis=0, concat_axis=0, tiled=True)
    offsets = lax.all_to_all(slices.output_offsets, axis, 0, 0, tiled=True)
    target = _places(offsets, slices.recv_sizes, devices, block)
    return (
        jnp.zeros((room, rows.shape[-1]), rows.dtype)
        .at[target]
        .set(got, mode="drop", wrap_negative_indices=False)
    )


EXCHANGES: Mapping[str, SendRows] = MappingProxyType(
    {"ragged": ragged_exchange, "padded": padded_exchange}
)
"""The ways to exchange rows of dropless layers by name, with equal results; read-only."""


def _forward(
    exchange: SendRows, rows: jax.Array, there: Slices, back: Slices, room: int, axis: str
) -> tuple[jax.Array, tuple[Slices, Slices, int]]:
    return exchange(rows, there, room, axis), (there, back, rows.shape[0])


def _backward(
    exchange: SendRows, room: int, axis: str, kept: tuple[Slices, Slices, int], grad: jax.Array
) -> tuple[jax.Array, None, None]:
    del room
    there, back, count = kept
    return exchange_rows(exchange, grad, back, there, count, axis), None, None


exchange_rows.defvjp(_forward, _backward)


def _slices(counts: jax.Array, me: jax.Array) -> tuple[Slices, Slices]:
    """Slices there and back for counts `[G, E]` of rows from each device to each expert."""
    devices, experts = counts.shape
    local = experts // devices
    sorted_at = _starts(counts)
    totals = counts.sum(axis=0).reshape(devices, local)
    # At its device, an expert's rows lie behind those of the experts before it, by sender.
    grouped_at = _starts(totals).reshape(experts) + jnp.cumsum(counts, axis=0) - counts

    def mine(table: jax.Array) -> jax.Array:
        """Of `[G, E]` the columns of this device's experts, by sender, `[E]`."""
        return lax.dynamic_slice_in_dim(table, me * local, local, axis=1).reshape(experts)

    there = Slices(
        input_offsets=sorted_at[me],
        send_sizes=counts[me],
        output_offsets=grouped_at[me],
        recv_sizes=mine(counts),
    )
    back = Slices(
        input_offsets=mine(grouped_at),
        send_sizes=mine(counts),
        output_offsets=mine(sorted_at),
        recv_sizes=counts[me],
    )
    return there, back


def _places(offsets: jax.Array, sizes: jax.Array, devices: int, block: jax.Array) -> jax.Array:
    """Rows that the slices of each device name, one after another, int32 `[G, block]`.

    Behind the last slice it names a row that no buffer has.
    """
    offsets, sizes = offsets.reshape(devices, -1), sizes.reshape(devices, -1)
    ends = jnp.cumsum(sizes, axis=1)
    inside = (block >= (ends - sizes)[..., None]) & (block < ends[..., None])
    rows = offsets[..., None] + block - (ends - sizes)[..., None]
    return jnp.where(inside.any(axis=1), jnp.sum(inside * rows, axis=1), jnp.iinfo(jnp.int32).max)


def _starts(sizes: jax.Array) -> jax.Array:
    """Where groups of these sizes start, one behind the other along the last dim."""
    return jnp.cumsum(sizes, axis=-1) - sizes
