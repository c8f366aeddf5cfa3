"""Which dropless layers are proved to be cut along the batch, and what the others are told."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from hlo_passes.layers.dropless.layers import cut_layer, find_layers
from hlo_passes.proofs.engine import NotProved
from tests.dropless_steps import Dropless, mlp, read


def found(layer: Dropless):
    module = layer.module()
    with module.ir.context:
        body, *facts = read(module)
        return module, body, find_layers(body, *facts)


def refusal(layer: Dropless, k: int = 2) -> str:
    """Return why a layer is not cut."""
    module, body, layers = found(layer)
    with module.ir.context:
        if layers.refusals:
            return " ".join(why for _, why in layers.refusals)
        (one,) = layers.layers
        with pytest.raises(NotProved) as caught:
            cut_layer(body, one, k, range(len(body.ops)))
        return str(caught.value)


@pytest.mark.parametrize(
    "layer",
    [
        Dropless(),
        Dropless(forward=True),
        Dropless(devices=2, experts=6, choices=1),
        Dropless(devices=4, axes=(("data", 2),)),
        Dropless(room=4 * 16 + 8),
        Dropless(sort=True),
        Dropless(sort=True, choices=1, forward=True),
        Dropless(sort=True, remat=True),
    ],
)
def test_a_layer_in_nobodys_style_is_proved(layer):
    module, body, layers = found(layer)
    assert not layers.refusals
    (one,) = layers.layers
    passes = 1 if layer.forward else 2 + layer.remat
    assert [x.way for x in one.exchanges] == ["there", "back"] * passes
    with module.ir.context:
        cut = cut_layer(body, one, 2, range(len(body.ops)))
        kinds = {body.kind(i) for i in cut.replaced}
    # All that made the whole's places and tables goes, so that no part waits for the whole.
    assert {"scatter", "gather", "all_gather", "all_to_all"} <= kinds
    for i in range(len(body.ops)):
        assert i in cut.replaced or body.kind(i) not in ("all_gather", "all_to_all")


def swapped(tables, counts):
    return tables | {"first": tables["first"][::-1]}


def clipped(tables, counts):
    return tables | {"counts": jnp.minimum(tables["counts"], 3)}


def by_sender(tables, counts):
    """Rows of a sender lie together, not those of an expert."""
    got = tables["got"]
    return tables | {"put": jnp.cumsum(got) - got}


def lopsided(tables, counts):
    return tables | {"sizes": tables["sizes"][::-1]}


def shifted(tables, counts):
    return tables | {"put": tables["put"] + 1}


def of_another_device(tables, counts):
    return tables | {"counts": counts[0], "first": jnp.cumsum(counts[0]) - counts[0]}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (swapped, "input offsets"),
        (clipped, "minimum .* is no sum of counts"),
        (by_sender, "output offsets"),
        (shifted, "offsets are not those of rows grouped by expert"),
        (of_another_device, "send sizes"),
        (lopsided, "has other groups than the rows that came|no start or end of a group"),
    ],
)
def test_other_tables_are_refused(spoil, why):
    assert re.search(why, refusal(Dropless(spoil=spoil)))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Dropless(keys=lambda flat: -flat), "neither by counts of choices nor by a sort"),
        (Dropless(keys=lambda flat: flat // 2), "neither by counts of choices nor by a sort"),
        (Dropless(token=lambda order: (order + 1) // 2), "not those of the tokens in their order"),
        (Dropless(token=lambda order: order % 8), "not those of the tokens in their order"),
        (
            Dropless(token=lambda order: order // (2 + lax.axis_index("ep") // 9)),
            "neither by counts of choices nor by a sort",
        ),
    ],
)
def test_other_orders_are_refused(layer, why):
    assert why in refusal(replace(layer, sort=True))


@pytest.mark.parametrize("shift", [0, -2])
def test_ranks_that_do_not_begin_at_zero_are_refused(shift):
    assert "not placed by their rank" in refusal(Dropless(shift=shift))


def test_a_buffer_that_may_overflow_is_refused():
    assert "48 rows of room are not enough" in refusal(Dropless(room=48))


def numbered(p, rows, sizes):
    return mlp(p, rows, sizes) * jnp.arange(rows.shape[0])[:, None]


def running(p, rows, sizes):
    return jnp.cumsum(mlp(p, rows, sizes), 0)


def paired(p, rows, sizes):
    """Neighbours in the buffer are added up: in buffers of parts they are others."""
    pairs = mlp(p, rows, sizes).reshape(-1, 2, rows.shape[1])
    return jnp.broadcast_to(pairs.sum(1, keepdims=True), pairs.shape).reshape(rows.shape)


def first_rows(p, rows, sizes):
    return jnp.where(jnp.arange(rows.shape[0])[:, None] < 5, mlp(p, rows, sizes), 0)


def at_the_end(p, rows, sizes):
    """The first row behind a group belongs to another group, or to nobody."""
    is_it = jnp.arange(rows.shape[0])[:, None] == jnp.cumsum(sizes)
    return mlp(p, rows, sizes) + is_it.any(1, keepdims=True)


def ordered(p, rows, sizes):
    return jnp.sort(mlp(p, rows, sizes), 0)


def centred(p, rows, sizes):
    """Rows that nobody sent count in a mean that is not zero for them."""
    done = jnp.exp(mlp(p, rows, sizes))
    return done - done.sum(0)


@pytest.mark.parametrize(
    ("expert", "why"),
    [
        (numbered, "depends on where in the buffer a row lies"),
        (running, "reduce_window .* may do more than treat every row alone"),
        (paired, "does not treat every row alone"),
        (first_rows, "no start or end of a group"),
        (at_the_end, "no start or end of a group"),
        (ordered, "may do more than treat every row alone"),
        (centred, "puts rows together with those that nobody sent"),
    ],
)
def test_experts_that_look_at_more_than_a_row_are_refused(expert, why):
    assert re.search(why, refusal(Dropless(expert=expert, forward=True)))


def masked(p, rows, sizes):
    """Starts and ends of groups say which expert's a row is, and no more."""
    row, ends = jnp.arange(rows.shape[0])[:, None], jnp.cumsum(sizes)
    owner = ((row >= ends - sizes) & (row < ends)).astype(rows.dtype)
    used = row[:, 0] < ends[-1]
    return mlp(p, rows, sizes) + owner @ p["w2"][:, 0] * used[:, None]


def normalised(p, rows, sizes):
    return jax.nn.softmax(mlp(p, rows, sizes), -1)


@pytest.mark.parametrize("expert", [masked, normalised])
def test_experts_that_look_at_rows_and_groups_are_proved(expert):
    module, body, layers = found(Dropless(expert=expert))
    with module.ir.context:
        assert cut_layer(body, layers.layers[0], 2, range(len(body.ops))).rows.live


def test_numbers_of_rows_that_a_type_does_not_hold_are_refused():
    def narrow(p, rows, sizes):
        row = jnp.arange(rows.shape[0]).astype(jnp.int8).astype(jnp.int32)
        return mlp(p, rows, sizes) * (row < sizes.sum())[:, None]

    assert "holds not all of them" in refusal(Dropless(expert=narrow, forward=True, room=200))
    module, body, layers = found(Dropless(expert=narrow, forward=True))
    with module.ir.context:
        assert cut_layer(body, layers.layers[0], 2, range(len(body.ops))).rows.live


def test_rows_that_leave_are_refused():
    assert "may do more than treat every row alone" in refusal(Dropless(keep=True))


def test_tokens_that_do_not_divide_are_refused():
    assert "8 tokens or choices have no 3 equal parts" in refusal(Dropless(), k=3)


def test_what_is_read_beyond_the_stretch_is_refused():
    module, body, layers = found(Dropless())
    (one,) = layers.layers
    forward = range(one.exchanges[1].place + 4)
    with module.ir.context, pytest.raises(NotProved, match="cut both directions"):
        cut_layer(body, one, 2, forward)


def test_an_expert_that_may_not_exist_is_refused():
    class Other(Dropless):
        def _layer(self, p, x):
            return super()._layer(p | {"router": jnp.pad(p["router"], ((0, 0), (0, 1)))}, x)

    assert "other choices than are counted" in refusal(Other())


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_what_tables_should_say_is_what_brings_rows_to_their_experts(peers, local, seed):
    from hlo_passes.layers.dropless.exchanges import Layout
    from hlo_passes.layers.dropless.routing import CountedChoices
    from hlo_passes.layers.dropless.tables import Tables
    from hlo_passes.proofs.counting import TokenCount
    from hlo_passes.proofs.elements import View

    experts = peers * local
    counts = np.random.default_rng(seed).integers(0, 4, (peers, experts))
    tables = Tables(None, {}, {0: [range(peers)]}, peers, {1: experts})
    tables._drawn[1] = counts
    chosen = TokenCount("hot", View(0, np.arange(4)), experts)
    layout = Layout(CountedChoices(1, chosen, None), 0, tables)
    sent = {g: np.concatenate([np.full(n, 100 * g + e) for e, n in enumerate(counts[g])])
            for g in range(peers)}  # fmt: skip

    def exchange(buffers, way, room):
        told = [layout.wanted(g, way) for g in range(peers)]
        out = {g: np.full(room, -1) for g in range(peers)}
        for g, (begin, size, to, _) in enumerate(told):
            for i in range(experts):
                peer, back = i // local, g * local + i % local
                assert told[peer][3][back] == size[i]
                place = slice(to[i], to[i] + size[i])
                assert (out[peer][place] == -1).all()
                out[peer][place] = buffers[g][begin[i] : begin[i] + size[i]]
        return out

    far = exchange(sent, "there", int(counts.sum()))
    for g in range(peers):
        wanted = np.repeat(np.arange(local), layout.sizes(g)) + g * local
        assert (far[g][: len(wanted)] % 100 == wanted).all()
        assert (far[g][len(wanted) :] == -1).all()
    home = exchange(far, "back", int(counts.sum(1).max()))
    for g in range(peers):
        assert (home[g][: len(sent[g])] == sent[g]).all()
