"""Random things that are done to sorted rows: what is proved to treat every row alone does so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.layers.dropless.layers import cut_layer, find_layers
from hlo_passes.proofs.engine import NotProved
from tests.dropless_steps import Dropless, mlp, read

LAYER = Dropless(devices=2, tokens=4, choices=2, experts=4, model=4, forward=True)
ROOM, LOCAL = 2 * 4 * 2, 2


def number(rows):
    return jnp.arange(rows.shape[0])[:, None]


def owned(rows, sizes):
    ends = jnp.cumsum(sizes)
    return ((number(rows) >= ends - sizes) & (number(rows) < ends)).astype(rows.dtype)


STEPS = {
    "experts": mlp,
    "tanh": lambda p, rows, sizes: jnp.tanh(rows),
    "softmax": lambda p, rows, sizes: jax.nn.softmax(rows, -1),
    "mirrored": lambda p, rows, sizes: rows + rows[:, ::-1],
    "flattened": lambda p, rows, sizes: jnp.sin(rows.reshape(-1)).reshape(rows.shape),
    "split": lambda p, rows, sizes: rows.reshape(-1, 2, 2).sum(1, keepdims=True).repeat(2, 1)
    .reshape(rows.shape),
    "owner": lambda p, rows, sizes: rows + owned(rows, sizes) @ p["w2"][:, 0],
    "one expert": lambda p, rows, sizes: jnp.where(number(rows) < sizes[0], rows, -rows),
    "numbered": lambda p, rows, sizes: rows * number(rows),
    "reversed": lambda p, rows, sizes: rows + rows[::-1],
    "pairs": lambda p, rows, sizes: rows + rows.reshape(-1, 2, 4)[:, ::-1].reshape(rows.shape),
    "running": lambda p, rows, sizes: jnp.cumsum(rows, 0),
    "first": lambda p, rows, sizes: jnp.where(number(rows) < 3, rows, 0),
    "behind": lambda p, rows, sizes: jnp.where(number(rows) <= sizes[0], rows, 0),
    "mixed": lambda p, rows, sizes: rows + jnp.ones((ROOM, ROOM)) @ rows
    if rows.shape[0] == ROOM else rows + jnp.ones((rows.shape[0],) * 2) @ rows,
    "rolled": lambda p, rows, sizes: jnp.roll(rows, 1, 0),
}  # fmt: skip


def run(names, p, rows, sizes):
    return functools.reduce(lambda done, name: STEPS[name](p, done, sizes), names, rows)


def is_proved(names) -> bool:
    layer = Dropless(**{
        field: getattr(LAYER, field)
        for field in ("devices", "tokens", "choices", "experts", "model", "forward")
    }, expert=functools.partial(run, names))  # fmt: skip
    module = layer.module()
    with module.ir.context:
        body, *facts = read(module)
        layers = find_layers(body, *facts)
        try:
            cut_layer(body, layers.layers[0], 2, range(len(body.ops)))
        except NotProved:
            return False
    return True


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3),
    st.lists(st.integers(0, ROOM // 2 // LOCAL), min_size=2 * LOCAL, max_size=2 * LOCAL),
)
def test_what_is_proved_gives_a_row_the_same_in_any_buffer(names, counts):
    if not is_proved(tuple(names)):
        return
    random = np.random.default_rng(sum(counts))
    p = {
        "w1": jnp.asarray(random.normal(size=(LOCAL, 4, 8)), jnp.float32),
        "w2": jnp.asarray(random.normal(size=(LOCAL, 8, 4)), jnp.float32),
    }
    of_part = np.asarray(counts).reshape(2, LOCAL)
    sent = [[random.normal(size=(n, 4)) for n in part] for part in of_part]

    def buffer(groups, room):
        rows = np.zeros((room, 4), np.float32)
        rows[: sum(map(len, groups))] = np.concatenate(groups)
        return jnp.asarray(rows), jnp.asarray([len(group) for group in groups])

    whole = run(names, p, *buffer([np.concatenate(pair) for pair in zip(*sent, strict=True)], ROOM))
    parts = [run(names, p, *buffer(groups, ROOM // 2)) for groups in sent]
    begin = 0
    for e in range(LOCAL):
        for part, groups in zip(parts, sent, strict=True):
            start, size = sum(map(len, groups[:e])), len(groups[e])
            np.testing.assert_allclose(
                whole[begin : begin + size], part[start : start + size], rtol=1e-4, atol=1e-5
            )
            begin += size


def test_some_are_proved_and_some_are_not():
    proved = {name for name in STEPS if is_proved((name,))}
    alone = {"experts", "tanh", "softmax", "mirrored", "flattened", "split", "owner", "one expert"}
    assert proved == alone
