"""Where a row goes, and what becomes of one that has no room.

Every way takes experts and ranks, `[T, K]`, and the sizes of the table, and returns a `Place`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named

I32 = jnp.int32


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["expert", "slot", "keep", "flat", "extra"],
    meta_fields=["room", "is_distinct", "is_masked"],
)
@dataclass(frozen=True)
class Place:
    """Rows of a table `[E, room, D]` for `[T, K]` choices.

    Attributes:
        expert, slot: which row, or one outside of the table.
        keep: whether the choice has a row.
        flat: the row's number in the flat table, where it is not `expert * room + slot`.
        extra: a number that the step returns, so that what made it is not dropped.
        room: rows of every expert in the table that is filled; those beyond the slots are cut off.
        is_distinct: whether no two choices share a row that is read.
        is_masked: whether rows and answers of choices without room have to be zeroed.
    """

    expert: Any
    slot: Any
    keep: Any
    flat: Any = None
    extra: Any = 0
    room: int = 0
    is_distinct: bool = True
    is_masked: bool = False

    def numbers(self, count: int) -> Any:
        """Return the rows' numbers in the flat table, beyond it for those outside."""
        if self.flat is not None:
            return self.flat
        flat = self.expert * self.room + self.slot
        return jnp.where(self.slot < self.room, flat, count * self.room)

    def pair(self) -> tuple[Any, Any]:
        if self.flat is None:
            return self.expert, self.slot
        flat = self.flat.astype(I32)
        return flat // self.room, flat % self.room


def beyond(e, rank, count, slots):
    """Left to the scatter, which drops what is out of bounds."""
    return Place(e, rank, rank < slots, room=slots)


def other_slot(e, rank, count, slots):
    keep = rank < slots
    return Place(e, jnp.where(keep, rank, slots), keep, room=slots)


def other_expert(e, rank, count, slots):
    keep = ~(rank >= slots)
    return Place(jnp.where(keep, e, count), jnp.where(keep, rank, 0), keep, room=slots)


def spare_row(e, rank, count, slots):
    """All into one more row, which is cut off."""
    return Place(e, jnp.minimum(rank, slots), rank < slots, room=slots + 1)


def zeroed(e, rank, count, slots):
    """Zeros added to the first row."""
    keep = rank < slots
    return Place(e, jnp.where(keep, rank, 0), keep, None, 0, slots, False, True)


def clamped(e, rank, count, slots):
    """Zeros added to the last row."""
    keep = rank + 1 <= slots
    return Place(e, jnp.clip(rank, 0, slots - 1), keep, None, 0, slots, False, True)


def float_compare(e, rank, count, slots):
    keep = rank.astype(jnp.float32) < slots
    return Place(e, lax.select(keep, rank, jnp.full_like(rank, slots)), keep, room=slots)


def unsigned(e, rank, count, slots):
    keep = lax.lt(rank.astype(jnp.uint32), jnp.uint32(slots))
    return Place(e, jnp.where(keep, rank, slots).astype(jnp.uint32).astype(I32), keep, room=slots)


def flat_beyond(e, rank, count, slots):
    keep = rank < slots
    flat = jnp.where(keep, e * slots + rank, count * slots)
    return Place(e, rank, keep, flat, room=slots)


def flat_unsigned(e, rank, count, slots):
    keep = rank < slots
    flat = jnp.where(keep, e * slots + rank, count * slots).astype(jnp.uint32)
    return Place(e, rank, keep, flat, room=slots)


def _nowhere(number):
    def to_nowhere(e, rank, count, slots):
        keep = rank < slots
        slot = jnp.where(keep, rank, number(rank, slots))
        return Place(e, slot, keep, None, 0, slots, False)

    return to_nowhere


def _flat_nowhere(number):
    def to_nowhere(e, rank, count, slots):
        keep = rank < slots
        flat = jnp.where(keep, e * slots + rank, number(rank, slots))
        return Place(e, rank, keep, flat, 0, slots, False)

    return to_nowhere


def _cut_off(rank, slots):
    return lax.convert_element_type(lax.full(rank.shape, -0.5, jnp.float32), I32)


def _minus_one(rank, slots):
    return jnp.full_like(rank, -1)


def _nan(rank, slots):
    return jnp.full(rank.shape, jnp.nan, jnp.float32).astype(I32)


def _too_wide(rank, slots):
    return jnp.full_like(rank, 65536).astype(jnp.int16).astype(I32)


def _without_sign(rank, slots):
    return lax.convert_element_type(jnp.full_like(rank, -255), jnp.uint8).astype(I32)


def _float_minus(rank, slots):
    return lax.full(rank.shape, -3.9, jnp.float32).astype(jnp.uint8).astype(I32)


def modulo(e, rank, count, slots):
    return Place(e, rank % slots, rank < slots, None, 0, slots, False)


def into_the_next(e, rank, count, slots):
    """What has no room lands with the next expert."""
    return Place(e, rank, rank < slots, e * slots + rank, 0, slots, False)


def promised_for_less(e, rank, count, slots):
    """Distinct in a small table, says a scatter into it; dropped rows meet in the larger one."""
    less = max(slots // 2, 1)
    keep = rank < less
    flat = jnp.where(keep, e * less + rank, count * less).astype(jnp.uint32)
    token = jnp.arange(e.size, dtype=I32).reshape(e.shape)
    small = jnp.zeros(count * less, I32)
    who = small.at[flat].set(token, mode="drop", unique_indices=True)
    return Place(e, rank, keep, flat, who.sum(dtype=I32), slots, False)


def promised_sorted(e, rank, count, slots):
    """Sorted and in bounds as promised, of another table; here they are neither."""
    line = jnp.arange(e.size, dtype=I32).reshape(e.shape)
    seen = (
        jnp.zeros(e.size, I32)
        .at[line]
        .set(rank, indices_are_sorted=True, unique_indices=True, mode="promise_in_bounds")
    )
    keep = rank < slots
    return Place(e, jnp.where(keep, line % slots, slots), keep, None, seen.sum(dtype=I32), slots,
                 False)  # fmt: skip


def rounded(e, rank, count, slots):
    """Slots by way of eight bits: above 16 they meet."""
    rank = rank.astype(jnp.float8_e4m3fn).astype(I32)
    return Place(e, rank, rank < slots, None, 0, slots, False)


def negated_compare(e, rank, count, slots):
    """A NaN is neither below nor not below: dropped twice, or kept."""
    number = jnp.where(rank < slots, rank.astype(jnp.float32), jnp.nan)
    keep = ~(number >= slots)
    return Place(e, jnp.where(keep, number, slots).astype(I32), keep, None, 0, slots, False)


PLACES = Table(
    named(beyond, other_slot, other_expert, spare_row, zeroed, clamped, float_compare, unsigned,
          flat_beyond, flat_unsigned),
    {
        "cut_off": _nowhere(_cut_off), "minus_one": _nowhere(_minus_one), "nan": _nowhere(_nan),
        "too_wide": _nowhere(_too_wide), "without_sign": _nowhere(_without_sign),
        "float_minus": _nowhere(_float_minus), "flat_cut_off": _flat_nowhere(_cut_off),
        "flat_minus_one": _flat_nowhere(_minus_one),
    } | named(modulo, into_the_next, promised_for_less, promised_sorted, rounded, negated_compare),
    chance=0.1,
    plainness=0.7,
)  # fmt: skip


# ---------------------------------------------------------------------------------- turns


def none(place):
    return place


def permuted(place):
    """Experts turned over their diagonal, a new dim behind: XLA makes one broadcast of that."""
    e = place.expert
    side = int(e.size**0.5)
    if side * side != e.size:
        return rolled(place)
    turned = jnp.broadcast_to(e.reshape(side, side).T[..., None], (side, side, 1))
    return replace(place, expert=turned.reshape(e.shape), flat=None, is_distinct=False)


def transposed(place):
    s = place.slot
    if s.shape[0] % 4:
        return rolled(place)
    turned = s.reshape(4, -1, s.shape[1]).transpose(1, 0, 2).reshape(s.shape)
    return replace(place, slot=turned, flat=None, is_distinct=False)


def rolled(place):
    return replace(place, expert=jnp.roll(place.expert, 1, 0), flat=None, is_distinct=False)


def reversed_(place):
    """Both parts turned alike: other rows, distinct still."""
    return replace(place, expert=place.expert[::-1], slot=place.slot[::-1], keep=place.keep[::-1],
                   flat=None if place.flat is None else place.flat[::-1])  # fmt: skip


def sorted_(place):
    return replace(place, slot=jnp.sort(place.slot, 0), flat=None, is_distinct=False)


def one_back(place):
    """The expert before: -1 is the last one where an index wraps."""
    return replace(place, expert=place.expert - 1, flat=None, is_distinct=False)


def clipped(place):
    """The next expert but no further than the fourth, where two of them meet."""
    expert = jnp.clip(place.expert + 1, 0, 3)
    return replace(place, expert=expert, flat=None, is_distinct=False)


def paired(place):
    """Experts change places in pairs: distinct still."""
    return replace(place, expert=place.expert ^ 1, flat=None)


def slot_back(place):
    """The slot before: -1 is the last one where an index wraps."""
    return replace(place, slot=place.slot - 1, flat=None, is_distinct=False)


def spaced(place):
    """Every other slot."""
    return replace(place, slot=place.slot * 2, flat=None, keep=place.slot * 2 < place.room)


def added_twice(place):
    """Experts and slots are added up: other pairs have the same sum."""
    return replace(place, flat=place.expert + place.slot * 2, is_distinct=False)


TURNS = Table(
    named(none),
    named(permuted, transposed, rolled, reversed_, sorted_, one_back, clipped, paired, slot_back,
          spaced, added_twice),
    chance=0.1,
)  # fmt: skip
"""What is done to places between counting and use."""
