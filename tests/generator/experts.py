"""What experts do: rows `[E / N, R, D]` to answers of that shape, each by its own weights."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table, named


def plain(f):
    def experts(p, rows, mix):
        h = mix(f(jnp.einsum("ecd,edf->ecf", rows, p["w1"])))
        return jnp.einsum("ecf,efd->ecd", h, p["w2"])

    return experts


def gated(p, rows, mix):
    up = jnp.einsum("ecd,edf->ecf", rows, p["w1"])
    gate = jnp.einsum("ecd,edf->ecf", rows, p["w3"])
    return jnp.einsum("ecf,efd->ecd", mix(jax.nn.silu(gate) * up), p["w2"])


def with_bias(p, rows, mix):
    h = jax.nn.gelu(rows @ p["w1"] + p["b1"][:, None])
    return mix(h) @ p["w2"] + p["b2"][:, None]


def mapped(p, rows, mix):
    def one(x, w1, w2):
        return jnp.tanh(x @ w1), w2

    h, w2 = jax.vmap(one)(rows, p["w1"], p["w2"])
    return jax.vmap(jnp.matmul)(mix(h), w2)


def scanned(p, rows, mix):
    def one(_, each):
        x, w1, w2 = each
        return None, jax.nn.relu(x @ w1) @ w2

    return mix(lax.scan(one, None, (rows, p["w1"], p["w2"]))[1])


def one_by_one(p, rows, mix):
    done = [jax.nn.gelu(rows[i] @ p["w1"][i]) for i in range(rows.shape[0])]
    h = mix(jnp.stack(done))
    return jnp.stack([h[i] @ p["w2"][i] for i in range(rows.shape[0])])


def normed(p, rows, mix):
    scale = lax.rsqrt(jnp.mean(rows * rows, -1, keepdims=True) + 1e-6)
    h = jax.nn.relu(jnp.einsum("ecd,edf->cef", rows * scale, p["w1"]))
    return jnp.einsum("cef,efd->ecd", mix(h.swapaxes(0, 1)).swapaxes(0, 1), p["w2"])


def wide_sums(p, rows, mix):
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    h = jnp.einsum("ecd,edf->ecf", rows, p["w1"], preferred_element_type=wide)
    h = mix(jax.nn.silu(h).astype(rows.dtype))
    return jnp.einsum("ecf,efd->ecd", h, p["w2"], preferred_element_type=wide).astype(rows.dtype)


def two_in_one(p, rows, mix):
    """Gate and up in one product, cut apart after."""
    both = jnp.einsum("ecd,edf->ecf", rows, jnp.concatenate([p["w1"], p["w3"]], -1))
    gate, up = jnp.split(both, 2, -1)
    return jnp.einsum("ecf,efd->ecd", mix(jax.nn.sigmoid(gate) * up), p["w2"])


def only_filled(p, rows, mix):
    """Rows of zeros stay zeros: a compare along the features."""
    is_filled = jnp.any(rows != 0, -1, keepdims=True)
    answer = with_bias(p, rows, mix)
    return jnp.where(is_filled, answer, 0)


def remat(p, rows, mix):
    return jax.checkpoint(lambda w, x: plain(jnp.tanh)(w, x, mix))(p, rows)


def own_rule(p, rows, mix):
    """A custom derivative inside."""

    @jax.custom_vjp
    def act(x):
        return jnp.maximum(x, 0)

    act.defvjp(lambda x: (jnp.maximum(x, 0), x > 0), lambda on, g: (jnp.where(on, g, 0.01 * g),))
    return plain(act)(p, rows, mix)


EXPERTS = Table(
    {"tanh": plain(jnp.tanh), "relu": plain(jax.nn.relu), "negated": plain(lambda h: jax.nn.relu(-h))}
    | named(gated, with_bias, mapped, scanned, one_by_one, normed, wide_sums, two_in_one, only_filled,
            remat, own_rule)
)  # fmt: skip
