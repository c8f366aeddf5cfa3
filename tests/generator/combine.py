"""Answers of the table `[E, C, D]` back to their tokens `[T, D]`, weighted with `[T, K]`."""

import jax.numpy as jnp
from jax import lax

from tests.generator.dispatch import masks_of
from tests.generator.tables import Table, named

I32 = jnp.int32


def _mixed(found, place, weight):
    keep = jnp.where(place.keep, weight, 0) if place.is_masked else weight
    return jnp.sum(found * keep[..., None].astype(found.dtype), 1)


def pairs(out, place, weight):
    return _mixed(out.at[place.pair()].get(mode="fill", fill_value=0), place, weight)


def pairs_clipped(out, place, weight):
    e, s = place.pair()
    found = out[jnp.clip(e, 0, out.shape[0] - 1), jnp.clip(s, 0, out.shape[1] - 1)]
    return _mixed(jnp.where(place.keep[..., None], found, 0), place, weight)


def choice_by_choice(out, place, weight):
    e, s = place.pair()
    keep = jnp.where(place.keep, weight, 0) if place.is_masked else weight
    total = 0
    for j in range(weight.shape[1]):
        found = out.at[e[:, j], s[:, j]].get(mode="fill", fill_value=0)
        total = total + found * keep[:, j, None].astype(out.dtype)
    return total


def _room(out, place):
    """Give every expert the rows that the places were counted for."""
    more = place.room - out.shape[1]
    return jnp.pad(out, ((0, 0), (0, more), (0, 0))) if more else out


def flat(out, place, weight):
    table = _room(out, place).reshape(-1, out.shape[-1])
    found = table.at[place.numbers(out.shape[0])].get(mode="fill", fill_value=0)
    return _mixed(found, place, weight)


def taken(out, place, weight):
    """A row of zeros behind the table, for those outside."""
    table = _room(out, place).reshape(-1, out.shape[-1])
    table = jnp.concatenate([table, jnp.zeros((1, out.shape[-1]), out.dtype)])
    where = place.numbers(out.shape[0]).reshape(-1)
    found = jnp.take(table, where, 0, mode="clip").reshape(*weight.shape, -1)
    return _mixed(found, place, weight)


def lax_gather(out, place, weight):
    table = _room(out, place).reshape(-1, out.shape[-1])
    where = place.numbers(out.shape[0]).reshape(-1, 1)
    numbers = lax.GatherDimensionNumbers((1,), (0,), (0,))
    found = lax.gather(table, where, numbers, (1, out.shape[-1]),
                       mode=lax.GatherScatterMode.FILL_OR_DROP, fill_value=0)  # fmt: skip
    return _mixed(found.reshape(*weight.shape, -1), place, weight)


def sent_back(out, place, weight):
    """Every row of the table is added to its token."""
    count, _, width = out.shape
    tokens = weight.shape[0]
    where = place.numbers(count).reshape(-1)
    room = count * place.room
    owner = jnp.full(room, tokens, I32)
    token = jnp.repeat(jnp.arange(tokens, dtype=I32), weight.shape[1])
    owner = owner.at[where].min(token, mode="drop")
    share = jnp.where(place.keep, weight, 0) if place.is_masked else weight
    weights = jnp.zeros(room, share.dtype).at[where].add(share.reshape(-1), mode="drop")
    rows = _room(out, place).reshape(room, width) * weights[:, None].astype(out.dtype)
    return jnp.zeros((tokens + 1, width), out.dtype).at[owner].add(rows)[:-1]


def mask(out, place, weight):
    hot, slot = masks_of(place, out.shape[0], out.shape[1], out.dtype)
    combine = jnp.einsum("tk,tke,tkc->tec", weight.astype(out.dtype), hot, slot)
    return jnp.einsum("tec,ecd->td", combine, out)


def mask_late(out, place, weight):
    """Answers per choice first, weights after."""
    hot, slot = masks_of(place, out.shape[0], out.shape[1], out.dtype)
    found = jnp.einsum("tke,tkc,ecd->tkd", hot, slot, out)
    return jnp.sum(found * weight[..., None].astype(out.dtype), 1)


def filled_with_one(out, place, weight):
    return _mixed(out.at[place.pair()].get(mode="fill", fill_value=1), place, weight)


def neighbours(out, place, weight):
    """The row beside one's own is read as well."""
    e, s = place.pair()
    other = out.at[e, s + 1].get(mode="fill", fill_value=0)
    return pairs(out, place, weight) + 0.1 * _mixed(other, place, weight)


def unmasked(out, place, weight):
    """What has no row reads the last one."""
    e, s = place.pair()
    return jnp.sum(out.at[e, s].get(mode="clip") * weight[..., None].astype(out.dtype), 1)


def nan_where_dropped(out, place, weight):
    found = out.at[place.pair()].get(mode="fill")
    return _mixed(jnp.where(jnp.isnan(found), 0.1, found), place, weight)


def another_expert(out, place, weight):
    e, s = place.pair()
    other = out.at[(e + 1) % out.shape[0], s].get(mode="fill", fill_value=0)
    return _mixed(other, place, weight)


def whole_table(out, place, weight):
    """The table itself adds up into every answer."""
    return pairs(out, place, weight) + 0.1 * out.mean((0, 1))


COMBINE = Table(
    {"as_sent": None} | named(pairs, pairs_clipped, choice_by_choice, flat, taken, lax_gather, sent_back, mask,
          mask_late),
    named(filled_with_one, unmasked, nan_where_dropped, neighbours, another_expert, whole_table),
    plainness=0.7,
)  # fmt: skip
"""`as_sent` is whichever of them people write beside the dispatch of the step."""

AS_SENT = {
    "flat": flat, "flat_lists": taken, "lax_scatter": lax_gather, "segments": flat,
    "names_then_rows": sent_back, "choice_by_choice": choice_by_choice, "mask": mask,
    "mask_first": mask, "mask_of_flags": mask_late, "mask_picked": mask,
}  # fmt: skip
"""By dispatch; `pairs` for the others."""
