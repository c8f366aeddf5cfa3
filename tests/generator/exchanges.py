"""Exchanges inside a shard_map: `[E, C, D]` to `[E / N, N * C, D]`, and back.

`axes` are those of the experts, in order; every way takes the table, the spread and its mesh axes.
The usual ways back undo the usual ways there, whichever of them it was.
"""

import jax.numpy as jnp
from jax import lax

from tests.generator.sizes import TWO_AXES
from tests.generator.tables import Table, named


def _name(spread):
    return spread.experts if len(spread.experts) > 1 else spread.experts[0]


def _sides(v, spread):
    """[E, C, D] with the peers as a dim of its own: [N, E / N, C, D]."""
    return v.reshape(spread.peers, -1, *v.shape[1:])


def tiled(v, spread):
    return lax.all_to_all(v, _name(spread), 0, 1, tiled=True)


def untiled(v, spread):
    came = lax.all_to_all(_sides(v, spread), _name(spread), 0, 0)
    return came.transpose(1, 0, 2, 3).reshape(came.shape[1], -1, v.shape[-1])


def sides_tiled(v, spread):
    """The sources come to stand behind the experts at once."""
    came = lax.all_to_all(_sides(v, spread), _name(spread), 0, 2, tiled=True)
    return came.reshape(came.shape[1], -1, v.shape[-1])


def along_experts(v, spread):
    came = lax.all_to_all(v, _name(spread), 0, 0, tiled=True)
    return jnp.swapaxes(_sides(came, spread), 0, 1).reshape(
        v.shape[0] // spread.peers, -1, v.shape[-1]
    )


def flattened(v, spread):
    came = lax.all_to_all(v.reshape(spread.peers, -1), _name(spread), 0, 0, tiled=True)
    came = came.reshape(spread.peers, -1, *v.shape[1:])
    return came.transpose(1, 0, 2, 3).reshape(came.shape[1], -1, v.shape[-1])


def slots_first(v, spread):
    came = lax.all_to_all(v.transpose(1, 0, 2), _name(spread), 1, 0, tiled=True)
    return came.transpose(1, 0, 2)


def features_first(v, spread):
    came = lax.all_to_all(jnp.moveaxis(v, 2, 0), _name(spread), 1, 2, tiled=True)
    return jnp.moveaxis(came, 0, 2)


def in_groups(v, spread):
    """The groups are written out."""
    if len(spread.experts) > 1:
        return tiled(v, spread)
    return lax.all_to_all(v, _name(spread), 0, 1, tiled=True,
                          axis_index_groups=[list(range(spread.peers))])  # fmt: skip


def in_two_hops(v, spread):
    """Over the last axis first, then over the others."""
    if len(spread.experts) == 1:
        return tiled(v, spread)
    first, second = spread.experts
    outer = dict(spread.shape)[first]
    table = v.reshape(outer, -1, *v.shape[1:])
    came = lax.all_to_all(table, second, 1, 2, tiled=True)
    came = lax.all_to_all(came, first, 0, 2, tiled=True)
    # Sources stand as the second axis has them inside of the first: as with one exchange.
    return came.reshape(came.shape[1], -1, v.shape[-1])


def ways_of_two_tables(v, spread):
    """Features in two halves, an exchange each."""
    half = v.shape[-1] // 2
    return jnp.concatenate([tiled(v[..., :half], spread), tiled(v[..., half:], spread)], -1)


def narrow_wire(v, spread):
    return tiled(v.astype(jnp.bfloat16), spread).astype(v.dtype)


def eight_bit_wire(v, spread):
    scale = lax.stop_gradient(jnp.max(jnp.abs(v), -1, keepdims=True)) / 64 + 1e-6
    sent = tiled((v / scale).astype(jnp.float8_e4m3fn), spread).astype(v.dtype)
    return sent * tiled(scale, spread)


def turned_axes(v, spread):
    return lax.all_to_all(v, spread.experts[::-1], 0, 1, tiled=True)


def half_groups(v, spread):
    """In two groups: only half of the peers are seen, twice as many rows each."""
    groups = [list(range(spread.peers // 2)), list(range(spread.peers // 2, spread.peers))]
    came = lax.all_to_all(v, _name(spread), 0, 1, tiled=True, axis_index_groups=groups)
    return came.reshape(v.shape[0] // spread.peers, -1, v.shape[-1])


ONE_AXIS = ("ep4", "ep8", "data2_ep4", "ep4_turned", "ep4_mixed", "one_more_axis")
THERE = Table(
    named(tiled, untiled, sides_tiled, along_experts, flattened, slots_first, features_first,
          in_groups, in_two_hops),
    named(ways_of_two_tables, narrow_wire, eight_bit_wire, turned_axes, half_groups),
    plainness=0.6,
    needs={"turned_axes": {"mesh": TWO_AXES}, "half_groups": {"mesh": ONE_AXIS}},
)  # fmt: skip


# ---------------------------------------------------------------------------------- back


def back_tiled(v, spread):
    return lax.all_to_all(v, _name(spread), 1, 0, tiled=True)


def back_untiled(v, spread):
    sides = v.reshape(v.shape[0], spread.peers, -1, v.shape[-1]).transpose(1, 0, 2, 3)
    went = lax.all_to_all(sides, _name(spread), 0, 0)
    return went.reshape(-1, *went.shape[2:])


def back_sides_tiled(v, spread):
    sides = v.reshape(1, v.shape[0], -1, v.shape[-1])
    went = lax.all_to_all(sides, _name(spread), 2, 0, tiled=True)
    return went.reshape(-1, *went.shape[2:])


def back_slots_first(v, spread):
    return lax.all_to_all(v.transpose(1, 0, 2), _name(spread), 0, 1, tiled=True).transpose(1, 0, 2)


def back_flattened(v, spread):
    sides = v.reshape(v.shape[0], spread.peers, -1, v.shape[-1]).transpose(1, 0, 2, 3)
    shape = sides.shape
    went = lax.all_to_all(sides.reshape(spread.peers, -1), _name(spread), 0, 0, tiled=True)
    return went.reshape(-1, *shape[2:])


def back_gathered(v, spread):
    """Everything to everyone, and one's own rows of it."""
    slots = v.shape[1] // spread.peers
    everything = lax.all_gather(v, _name(spread), axis=0, tiled=True)
    return lax.dynamic_slice_in_dim(everything, lax.axis_index(_name(spread)) * slots, slots, 1)


def back_in_two_hops(v, spread):
    if len(spread.experts) == 1:
        return back_tiled(v, spread)
    first, second = spread.experts
    sizes = dict(spread.shape)
    table = v.reshape(1, v.shape[0], -1, v.shape[-1])
    went = lax.all_to_all(table, first, 2, 0, tiled=True)
    went = lax.all_to_all(went, second, 2, 1, tiled=True)
    assert went.shape[0] == sizes[first]
    return went.reshape(-1, *went.shape[2:])


def back_over_turned_axes(v, spread):
    return lax.all_to_all(v, spread.experts[::-1], 1, 0, tiled=True)


def back_over_one_axis(v, spread):
    """Over the first of two axes: to other devices, in larger pieces."""
    went = lax.all_to_all(v, spread.experts[0], 1, 0, tiled=True)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_over_data(v, spread):
    went = lax.all_to_all(v, spread.others[0], 1, 0, tiled=True)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_along_experts(v, spread):
    """Splits the experts' dim: as many experts as devices."""
    went = lax.all_to_all(v, _name(spread), 0, 0, tiled=True)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_along_features(v, spread):
    went = lax.all_to_all(v, _name(spread), 2, 0, tiled=True)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_beside_slots(v, spread):
    """What came from every device stands behind the slots."""
    went = lax.all_to_all(v, _name(spread), 1, 2, tiled=True)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_in_half_groups(v, spread):
    groups = [list(range(spread.peers // 2)), list(range(spread.peers // 2, spread.peers))]
    went = lax.all_to_all(v, _name(spread), 1, 0, tiled=True, axis_index_groups=groups)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_and_on(v, spread):
    """Answers go one device further."""
    n, name = dict(spread.shape)[spread.experts[-1]], spread.experts[-1]
    return lax.ppermute(back_tiled(v, spread), name, [(i, (i + 1) % n) for i in range(n)])


def back_by_experts_of_peers(v, spread):
    """Experts and peers in the other order than they were counted in."""
    went = back_tiled(v, spread)
    return jnp.swapaxes(_sides(went, spread), 0, 1).reshape(went.shape)


def back_mixed_slots(v, spread):
    """Slots outside, peers inside: every device takes its rows from all."""
    sides = v.reshape(v.shape[0], -1, spread.peers, v.shape[-1])
    went = lax.all_to_all(sides, _name(spread), 2, 0, tiled=True)
    return went.reshape(v.shape[0] * spread.peers, -1, v.shape[-1])


def back_narrow(v, spread):
    return back_tiled(v.astype(jnp.bfloat16), spread).astype(v.dtype)


BACK = Table(
    named(back_tiled, back_untiled, back_sides_tiled, back_slots_first, back_flattened,
          back_gathered, back_in_two_hops),
    named(back_over_turned_axes, back_over_one_axis, back_over_data, back_along_experts,
          back_along_features, back_beside_slots, back_in_half_groups, back_and_on,
          back_by_experts_of_peers, back_mixed_slots, back_narrow),
    chance=0.1,
    needs={
        "back_over_turned_axes": {"mesh": TWO_AXES}, "back_over_one_axis": {"mesh": TWO_AXES},
        "back_over_data": {"mesh": ("data2_ep4", "ep4_turned", "ep2_data4")},
        "back_along_experts": {"size": ("square", "as_many"),
                               "mesh": ("ep4", "ab22", "ep4_turned", "ep4_mixed")},
        "back_in_half_groups": {"mesh": ONE_AXIS},
    },
)  # fmt: skip
