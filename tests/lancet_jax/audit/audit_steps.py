"""A small step that passes cut, and faults to plant in what they make of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

PIPELINE = "split-exchange{k=2},schedule-dw{strategy=greedy}"


def mesh():
    return Mesh(np.array(jax.devices()), ("e",))


def inside(state, x):
    """A step with far experts of several rows from each peer: moves weights, counts, draws a key.

    There is no backward pass, which would take most of a test's time.
    """
    rows = exchanged(x.reshape(lax.axis_size("e"), -1, x.shape[-1]))
    hidden = jnp.tanh(rows @ state["w"]["up"])
    back = exchanged(hidden @ state["w"]["down"]).reshape(x.shape)
    value = lax.pmean(jnp.mean((back - x) ** 2), "e")
    w = jax.tree.map(lambda a: a - 0.5 * value * a * a, state["w"])
    key, _ = jax.random.split(state["key"])
    return {"w": w, "count": state["count"] + 1, "key": key}, value


def noisy(state, x):
    """A step that divides a gradient by its size, as Adam does, where that is rounding alone."""

    def loss(shift):
        rows = exchanged(x.reshape(lax.axis_size("e"), -1, x.shape[-1]))
        scores = (rows @ state["w"]["up"]).reshape(*rows.shape[:-1], 8, 2) + shift[:, None]
        hidden = jax.nn.softmax(scores).reshape(*rows.shape[:-1], 16)
        return jnp.mean((exchanged(hidden @ state["w"]["down"]).reshape(x.shape) - x) ** 2)

    grad = lax.pmean(jax.grad(loss)(jnp.zeros(8)), "e")
    return {"shift": grad / (jnp.abs(grad) + 1e-12)}, state["count"]


def exchanged(x):
    return lax.all_to_all(x, "e", 0, 0, tiled=True)


def arguments(rows=16):
    """Return a state that may be donated, and tokens."""
    on, rng = mesh(), np.random.default_rng(0)
    w = {"up": rng.normal(size=(4, 16)), "down": rng.normal(size=(16, 4))}
    state = {
        "w": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), w),
        "count": jnp.int32(3),
        "key": jax.random.key(0),
    }
    x = np.asarray(rng.normal(size=(on.size * rows, 4)), np.float32)
    return jax.tree.map(lambda a: put(a, on, P()), state), put(x, on, P("e"))


def put(x, on, spec):
    """Lay an array, or a key, on the devices of all processes."""
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(x), on, spec))
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, NamedSharding(on, spec), lambda index: x[index])


def stepped(body=inside):
    return jax.shard_map(body, mesh=mesh(), in_specs=(P(), P("e")), out_specs=P(), check_vma=False)


# ---------------------------------------------------------------------------- faults


def planting(rewrite, is_meant, instead):
    """Return `candidates_of`, but for the last op that is meant: another one is in its place."""

    def wrongly(*args, **kwargs):
        candidates = list(rewrite(*args, **kwargs))
        module, found = candidates[-1].module, []

        def visit(op):
            if is_meant(op):
                found.append(op)
            return ir.WalkResult.ADVANCE

        module.ir.operation.walk(visit)
        op = found[-1]
        with module.ir.context, op.location, ir.InsertionPoint.after(op):
            new = instead(op)
        op.results[0].replace_all_uses_except(new, new.owner.operation)
        return candidates

    return wrongly


def adding(rewrite):
    """Add what should be subtracted from weights of shape [16, 4]."""

    def is_meant(op):
        return op.name == "stablehlo.subtract" and "<16x4xf32>" in str(op.results[0].type)

    return planting(rewrite, is_meant, lambda op: stablehlo.add(*op.operands))


def rounding(rewrite):
    """Round exponentials otherwise."""

    def rounded(op):
        type_ = op.results[0].type
        nearly_one = ir.DenseElementsAttr.get_splat(type_, ir.FloatAttr.get_f32(1 + 2.0**-22))
        return stablehlo.multiply(op.results[0], stablehlo.constant(nearly_one))

    return planting(rewrite, lambda op: op.name == "stablehlo.exponential", rounded)
