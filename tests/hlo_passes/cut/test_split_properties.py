"""Random programs that go on in parts for as long as the rules let them."""

import string

import jax.numpy as jnp
import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from jax import lax

from hlo_passes.cut.states import Cut
from tests.hlo_passes.cut.cases import numbers, picks
from tests.hlo_passes.cut.splitting import assert_same, follow, lower, run


def _merge(x, a, b):
    d = a % max(x.ndim - 1, 1)
    return x if x.ndim < 2 else x.reshape(*x.shape[:d], -1, *x.shape[d + 2 :])


def _unmerge(x, a, b):
    d, size = a % x.ndim, (2, 4)[b % 2]
    if x.shape[d] % size or x.ndim > 3:
        return x
    return x.reshape(*x.shape[:d], size, -1, *x.shape[d + 1 :])


def _total(reduce):
    def step(x, a, b):
        return reduce(x, a % x.ndim) if x.ndim > 1 else x

    return step


def _spread(x, a, b):
    return x if x.ndim > 3 else jnp.broadcast_to(jnp.expand_dims(x, a % (x.ndim + 1)),
        (*x.shape[: a % (x.ndim + 1)], 4, *x.shape[a % (x.ndim + 1) :]))  # fmt: skip


def _product(x, a, b):
    """Multiply one dim, which then stands last, by a matrix."""
    d = a % x.ndim
    return jnp.tensordot(x, numbers(x.shape[d], (4, 8, 16)[b % 3], seed=a, low=-2, high=3), (d, 0))


def _squared(x, a, b):
    """Multiply by itself, summing over one dim, the others batched or free."""
    names = string.ascii_lowercase[: x.ndim]
    d, kept = names[a % x.ndim], names[b % x.ndim]
    other = "".join(n if n in (d, kept) else n.upper() for n in names)
    made = (names + other).replace(d, "")
    made = "".join(dict.fromkeys(made))
    return x if x.ndim != 2 else jnp.einsum(f"{names},{other}->{made}", x, x + 1)


def _piece(x, a, b):
    d = a % x.ndim
    return lax.slice_in_dim(x, b % 2, x.shape[d] - (1 - b % 2) * (x.shape[d] > 1), axis=d) if (
        x.shape[d] > 1 and b % 3 == 0) else x  # fmt: skip


def _piece_somewhere(x, a, b):
    d = a % x.ndim
    return lax.dynamic_slice_in_dim(x, np.int32(b % 5), max(x.shape[d] // 2, 1), axis=d)


def _update(x, a, b):
    d = a % x.ndim
    half = [*x.shape[:d], max(x.shape[d] // 2, 1), *x.shape[d + 1 :]]
    return lax.dynamic_update_slice_in_dim(x, numbers(*half, seed=b), np.int32(b % 5), axis=d)


def _pad(x, a, b):
    pads = [(1, -1, 0) if d == a % x.ndim else (0, 0, 0) for d in range(x.ndim)]
    return lax.pad(x, np.float32(b), pads)


def _double(x, a, b):
    return jnp.concatenate([x, x + 1], a % x.ndim)


def _lookup(x, a, b):
    d = a % x.ndim
    return jnp.take(x, picks(8, size=x.shape[d], seed=b), axis=d, mode="clip")


def _along(x, a, b):
    d = a % x.ndim
    return jnp.take_along_axis(x, picks(*x.shape, size=x.shape[d], seed=b), d, mode="clip")


def _scatter(kind):
    def step(x, a, b):
        first = jnp.moveaxis(x, a % x.ndim, 0)
        updates = numbers(8, *first.shape[1:], seed=b)
        at = first.at[picks(8, size=first.shape[0] + 1, seed=b)]
        return getattr(at, kind)(updates, mode="drop")

    return step


def _by_tokens(x, a, b):
    """Send rows to places that the tensor itself names."""
    flat = x.reshape(x.shape[0], -1)
    places = jnp.abs(flat[:, a % flat.shape[1]]).astype(np.int32)
    return jnp.zeros((8, flat.shape[1]), x.dtype).at[places].add(flat, mode="drop")


def _prefix(x, a, b):
    return lax.cumsum(x, a % x.ndim, reverse=b % 4 == 0)


STEPS = {
    "count": lambda x, a, b: x + lax.broadcasted_iota(x.dtype, x.shape, a % x.ndim),
    "scale": lambda x, a, b: x * np.float32(a % 4 - 2),
    "table": lambda x, a, b: x * numbers(*x.shape, seed=b, low=-2, high=3),
    "turn": lambda x, a, b: jnp.moveaxis(x, a % x.ndim, b % x.ndim),
    "merge": _merge,
    "unmerge": _unmerge,
    "sum": _total(jnp.sum),
    "max": _total(jnp.max),
    "argmax": _total(lambda x, d: jnp.argmax(x, d).astype(x.dtype)),
    "spread": _spread,
    "product": _product,
    "squared": _squared,
    "piece": _piece,
    "piece somewhere": _piece_somewhere,
    "update": _update,
    "pad": _pad,
    "double": _double,
    "flip": lambda x, a, b: jnp.flip(x, a % x.ndim),
    "lookup": _lookup,
    "along": _along,
    "scatter add": _scatter("add"),
    "scatter set": _scatter("set"),
    "scatter max": _scatter("max"),
    "by tokens": _by_tokens,
    "prefix": _prefix,
    "sort": lambda x, a, b: lax.sort(x, dimension=a % x.ndim),
    "top": lambda x, a, b: lax.top_k(x, min(4, x.shape[-1]))[b % 2].astype(x.dtype),
    "clamp": lambda x, a, b: jnp.clip(x, -float(a), float(b)),
    "choose": lambda x, a, b: jnp.where(x > a, x, -x),
    "mean of it": lambda x, a, b: x - jnp.max(x, a % x.ndim, keepdims=True),
}

places = st.integers(0, 11)
chains = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), places, places), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains, st.sampled_from([0, 1, 2]), st.sampled_from([1, 2]), st.sampled_from([2, 4]))
def test_a_program_in_parts_makes_the_same_bits(chain, dim, outer, k):
    def program(x):
        for name, a, b in chain:
            if x.size < 8192:
                # Small whole numbers: every sum is exact. Only one zero: a prefix sum over parts of
                # one element, which XLA makes a copy of, keeps a -0 that others add to 0.
                x = lax.rem(STEPS[name](x, a, b), np.float32(8))
                x = jnp.where(x == 0, np.float32(0), x)
        return x

    x = numbers(8, 8, 16)
    module, done = follow(lower(program, x), 0, Cut(dim, outer), k)
    for kind in done:
        event(kind)
    old, new = run(module, [x])
    assert_same("program", [old], [new], chain)


def test_a_layer_stays_in_parts_from_end_to_end():
    """Tokens of a small mixture of experts: router, places, scatter, experts, combine."""

    def layer(x, w, v):
        chosen = jnp.argmax(x @ w, -1)
        once = (chosen[..., None] == lax.iota(np.int32, 4)).astype(x.dtype)
        place = (lax.cumsum(once.reshape(-1, 4), 0) - 1).reshape(once.shape)
        mine = jnp.sum(place * once, -1).astype(np.int32)
        sent = jnp.zeros((4, 64, 16), x.dtype).at[chosen, mine].add(x, mode="drop")
        made = jnp.einsum("eci,eio->eco", sent, v)
        return made.at[chosen, mine].get(mode="clip")

    args = numbers(4, 16, 16), numbers(16, 4, seed=1), numbers(4, 16, 16, seed=2)
    module, done = follow(lower(layer, *args), 0, Cut(0), 2)
    old, new = run(module, args)
    assert_same("layer", [old], [new], done)
    assert {"stablehlo.reduce_window", "stablehlo.scatter", "stablehlo.dot_general"} <= set(done)
