"""Rows `[T, K, D]` into the table `[E, C, D]` at their places."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named

I32 = jnp.int32


def _masked(rows, place):
    return jnp.where(place.keep[..., None], rows, 0) if place.is_masked else rows


def _cut(table, slots):
    return table if table.shape[1] == slots else table[:, :slots]


def pairs(rows, place, count, slots):
    rows = _masked(rows, place)
    table = jnp.zeros((count, place.room, rows.shape[-1]), rows.dtype).at[place.pair()]
    put = table.set if place.is_distinct else table.add
    return _cut(put(rows, mode="drop"), slots)


def pairs_added(rows, place, count, slots):
    table = jnp.zeros((count, place.room, rows.shape[-1]), rows.dtype)
    return _cut(table.at[place.pair()].add(_masked(rows, place)), slots)


def choice_by_choice(rows, place, count, slots):
    rows, (e, s) = _masked(rows, place), place.pair()
    table = jnp.zeros((count, place.room, rows.shape[-1]), rows.dtype)
    for j in range(rows.shape[1]):
        table = table.at[e[:, j], s[:, j]].add(rows[:, j], mode="drop")
    return _cut(table, slots)


def flat(rows, place, count, slots):
    rows, where = _masked(rows, place), place.numbers(count)
    table = jnp.zeros((count * place.room, rows.shape[-1]), rows.dtype).at[where]
    put = table.set if place.is_distinct else table.add
    return _cut(put(rows, mode="drop").reshape(count, place.room, -1), slots)


def flat_lists(rows, place, count, slots):
    """Tokens repeated, all in one list."""
    rows, where = _masked(rows, place), place.numbers(count).reshape(-1)
    table = jnp.zeros((count * place.room + 1, rows.shape[-1]), rows.dtype)
    table = table.at[where].add(rows.reshape(-1, rows.shape[-1]), mode="drop")
    return _cut(table[:-1].reshape(count, place.room, -1), slots)


def lax_scatter(rows, place, count, slots):
    rows, where = _masked(rows, place), place.numbers(count).reshape(-1, 1)
    numbers = lax.ScatterDimensionNumbers((1,), (0,), (0,))
    table = lax.scatter_add(
        jnp.zeros((count * place.room, rows.shape[-1]), rows.dtype), where,
        rows.reshape(-1, rows.shape[-1]), numbers, mode=lax.GatherScatterMode.FILL_OR_DROP,
    )  # fmt: skip
    return _cut(table.reshape(count, place.room, -1), slots)


def segments(rows, place, count, slots):
    rows, where = _masked(rows, place), place.numbers(count).reshape(-1)
    flat_rows = rows.reshape(-1, rows.shape[-1])
    table = jax.ops.segment_sum(flat_rows, where, num_segments=count * place.room)
    return _cut(table.reshape(count, place.room, -1), slots)


def names_then_rows(rows, place, count, slots):
    """Who is where is written down first, then the rows are fetched."""
    tokens, width = rows.shape[0] * rows.shape[1], rows.shape[-1]
    names = jnp.full(count * place.room, tokens, I32)
    where = place.numbers(count).reshape(-1)
    names = names.at[where].min(jnp.arange(tokens, dtype=I32), mode="drop")
    padded = jnp.concatenate([rows.reshape(-1, width), jnp.zeros((1, width), rows.dtype)])
    return _cut(padded[names].reshape(count, place.room, width), slots)


def names_with_promise(rows, place, count, slots):
    if not place.is_distinct or place.room != slots:
        return names_then_rows(rows, place, count, slots)
    tokens, width = rows.shape[0] * rows.shape[1], rows.shape[-1]
    where = place.numbers(count).reshape(-1)
    names = jnp.full(count * slots, tokens, I32)
    names = names.at[where].set(jnp.arange(tokens, dtype=I32), mode="drop", unique_indices=True)
    found = rows.reshape(-1, width).at[names].get(mode="fill", fill_value=0)
    return found.reshape(count, slots, width)


def per_source(rows, place, count, slots):
    """A table of four dims, as if experts were pairs of numbers."""
    rows, (e, s) = _masked(rows, place), place.pair()
    if count % 4:
        return pairs_added(rows, place, count, slots)
    table = jnp.zeros((4, count // 4, place.room, rows.shape[-1]), rows.dtype)
    table = table.at[e // (count // 4), e % (count // 4), s].add(rows, mode="drop")
    return _cut(table.reshape(count, place.room, -1), slots)


def masks_of(place, count, slots, dtype):
    """One-hot experts `[T, K, E]` and slots `[T, K, C]`."""
    e, s = place.pair()
    keep = place.keep if place.is_masked else jnp.ones_like(place.keep)
    return (jax.nn.one_hot(e, count, dtype=dtype) * keep[..., None].astype(dtype),
            jax.nn.one_hot(s, slots, dtype=dtype))  # fmt: skip


def mask(rows, place, count, slots):
    hot, slot = masks_of(place, count, slots, rows.dtype)
    return jnp.einsum("tke,tkc,tkd->ecd", hot, slot, rows)


def mask_first(rows, place, count, slots):
    """The mask is a value of its own; the token's row is the same for all choices."""
    hot, slot = masks_of(place, count, slots, rows.dtype)
    sent = jnp.einsum("tke,tkc->tec", hot, slot)
    return jnp.einsum("tec,td->ecd", sent, rows[:, 0])


def mask_of_flags(rows, place, count, slots):
    e, s = place.pair()
    is_mine = e[..., None] == jnp.arange(count, dtype=I32)
    is_here = is_mine[..., None] & (s[..., None] == jnp.arange(slots, dtype=I32))[:, :, None]
    if place.is_masked:
        is_here = is_here & place.keep[..., None, None]
    return jnp.einsum("tkec,tkd->ecd", is_here.astype(rows.dtype), rows)


def in_order_of_experts(rows, place, count, slots):
    """Tokens sorted by expert, and of each expert the first few."""
    e = place.pair()[0].reshape(-1)
    order = jnp.argsort(e, stable=True)
    sizes = jnp.zeros(count, I32).at[e].add(1, mode="drop")
    first = jnp.cumsum(sizes, dtype=I32) - sizes
    line = jnp.arange(slots, dtype=I32)
    at = jnp.clip(first[:, None] + line, 0, e.shape[0] - 1)
    found = rows.reshape(-1, rows.shape[-1])[order[at]]
    return jnp.where((line < sizes[:, None])[..., None], found, 0)


def largest_first(rows, place, count, slots):
    """Experts choose: the strongest tokens of each, whoever chose them."""
    token = jnp.sum(jnp.abs(lax.stop_gradient(rows)), (1, 2))
    e = place.pair()[0][:, 0]
    score = jnp.where(e[None] == jnp.arange(count, dtype=I32)[:, None], token, token / 1000)
    _, chosen = lax.top_k(score, min(slots, token.shape[0]))
    found = rows[chosen, 0]
    return jnp.pad(found, ((0, 0), (0, slots - found.shape[1]), (0, 0)))


def onto_ones(rows, place, count, slots):
    """Rows that nothing came for are ones."""
    table = jnp.ones((count, place.room, rows.shape[-1]), rows.dtype).at[place.pair()]
    put = table.set if place.is_distinct and not place.is_masked else table.add
    return _cut(put(_masked(rows, place), mode="drop"), slots)


def clipped(rows, place, count, slots):
    """Dropped rows are added to the last one."""
    table = jnp.zeros((count, place.room, rows.shape[-1]), rows.dtype)
    return _cut(table.at[place.pair()].add(rows, mode="clip"), slots)


def promised_inside(rows, place, count, slots):
    """Indices are clipped by hand, and promised to be inside."""
    e, s = place.pair()
    is_in = (e >= 0) & (e < count) & (s >= 0) & (s < place.room)
    pair = jnp.clip(e, 0, count - 1), jnp.clip(s, 0, place.room - 1)
    rows = jnp.where(is_in[..., None], _masked(rows, place), 0)
    table = jnp.zeros((count, place.room, rows.shape[-1]), rows.dtype)
    return _cut(table.at[pair].add(rows, mode="promise_in_bounds"), slots)


def mask_picked(rows, place, count, slots):
    """Selection and a sum instead of a product."""
    e, s = place.pair()
    number = e * slots + s
    number = jnp.where(place.keep & (s >= 0) & (s < slots), number, -1)
    line = jnp.arange(count * slots, dtype=I32)
    picked = jnp.where((number[..., None] == line)[..., None], rows[:, :, None], 0)
    return picked.sum((0, 1)).reshape(count, slots, -1)


DISPATCH = Table(
    named(pairs, pairs_added, choice_by_choice, flat, flat_lists, lax_scatter, segments,
          names_then_rows, names_with_promise, per_source, mask, mask_first, mask_of_flags),
    named(mask_picked, onto_ones, clipped, promised_inside, in_order_of_experts, largest_first),
    plainness=0.6,
)  # fmt: skip
