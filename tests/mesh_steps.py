"""MoE steps on meshes of several axes: data, tensor and expert parallel, FSDP, over nodes or not.

Every builder returns a `Case`, as those of `tests/steps.py` do. All traffic is there at once:
all-to-alls of tokens, all-gathers of weights, reduce-scatters and all-reduces of gradients and of
partial sums.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.auto_steps import IDIOMS, einsum_layer, fsdp, train, transposed
from tests.steps import CASES, Case, Maker, Size, attention, exchange, norm, scatter_moe, sgd


def mesh_with(devices, other, across=False):
    """A mesh of 8 expert devices (4 of 8 in all) and another axis; experts in a node, or not."""
    experts = 4 if len(devices) == 8 else 8
    grid = np.array(devices).reshape(-1, experts)
    if across:
        grid = np.array(devices).reshape(experts, -1).T
    return Mesh(grid, (other, "ep"))


def placed(make, specs):
    """Parameters of the layers, spread as `specs` of one layer say."""
    return [{k: make.array(v.shape, specs[k]) for k, v in p.items()} for p in make.layers()]


def mean_square(y):
    return jnp.mean(jnp.square(y.astype(jnp.float32)))


# ---------------------------------------------------------------------------------- data x expert


def data_experts(devices, size=Size(), abstract=False, across=False):
    """Data and expert axes; gradients are summed over the axes that their weights do not cut."""
    mesh = mesh_with(devices, "data", across)
    make = Maker(mesh, size, abstract)
    spec = {"qkv": P(), "out": P(), "router": P(), "w1": P("ep"), "w2": P("ep")}
    params = placed(make, spec)

    def body(params, x):
        def loss_of(params):
            y = x
            for p in params:
                y = scatter_moe(p, attention(p, y))
            return mean_square(y)

        loss, grads = jax.value_and_grad(loss_of)(params)
        axes = {k: "data" if k in ("w1", "w2") else ("data", "ep") for k in spec}
        grads = [{k: lax.pmean(g, axes[k]) for k, g in layer.items()} for layer in grads]
        return sgd(params, grads), lax.pmean(loss, ("data", "ep"))

    tokens, specs = P(("data", "ep")), [spec] * size.layers
    step = jax.shard_map(
        body, mesh=mesh, in_specs=(specs, tokens), out_specs=(specs, P()), check_vma=False
    )
    return Case(step, (params, make.batch(tokens)), {"donate_argnums": 0})


def experts_across_nodes(devices, size=Size(), abstract=False):
    """Data and expert axes, each expert axis over as many nodes as it has devices."""
    return data_experts(devices, size, abstract, across=True)


def experts_inside_nodes(devices, size=Size(), abstract=False):
    """Data and expert axes, each expert axis in one node."""
    return data_experts(devices, size, abstract)


# ---------------------------------------------------------------------------------- FSDP x expert


def fsdp_experts(devices, size=Size(), abstract=False):
    """Every weight cut over data: gathered before use, its gradient reduce-scattered."""
    mesh = mesh_with(devices, "data")
    make = Maker(mesh, size, abstract)
    spec = {"qkv": P("data"), "out": P("data"), "router": P(), "w1": P("ep", "data"),
            "w2": P("ep", "data")}  # fmt: skip
    params = placed(make, spec)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def gathered(w, dim):
        return lax.all_gather(w, "data", axis=dim, tiled=True)

    def forward(w, dim):
        return gathered(w, dim), None

    def backward(dim, _, g):
        return (lax.psum_scatter(g, "data", scatter_dimension=dim, tiled=True),)

    gathered.defvjp(forward, backward)

    def body(params, x):
        def loss_of(params):
            y = x
            for p in params:
                full = {
                    k: w if k == "router" else gathered(w, 1 if k in ("w1", "w2") else 0)
                    for k, w in p.items()
                }
                y = scatter_moe(full, attention(full, y))
            return mean_square(y)

        loss, grads = jax.value_and_grad(loss_of)(params)
        over = lax.axis_size("data")
        grads = [
            {
                k: lax.pmean(lax.pmean(g, "ep"), "data") if k == "router"
                else g / over if k in ("w1", "w2") else lax.pmean(g, "ep") / over
                for k, g in layer.items()
            }
            for layer in grads
        ]  # fmt: skip
        return sgd(params, grads), lax.pmean(loss, ("data", "ep"))

    tokens, specs = P(("data", "ep")), [spec] * size.layers
    step = jax.shard_map(
        body, mesh=mesh, in_specs=(specs, tokens), out_specs=(specs, P()), check_vma=False
    )
    return Case(step, (params, make.batch(tokens)), {"donate_argnums": 0})


# ---------------------------------------------------------------------------------- tensor x expert


def tensor_moe(p, x):
    """Top-1 by scatter; every expert's hidden dim is cut over `tp`, its result summed over it."""
    tokens = norm(x).reshape(-1, x.shape[-1])
    count, total = p["router"].shape[-1], tokens.shape[0]
    slots = max(total // count, 1)
    gates = jax.nn.softmax((tokens @ p["router"]).astype(jnp.float32))
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, count, dtype=jnp.int32)
    slot = jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1)
    buffer = jnp.zeros((count, slots, tokens.shape[-1]), x.dtype)
    rows = exchange(buffer.at[expert, slot].set(tokens, mode="drop"))
    hidden = jax.nn.relu(jnp.einsum("ecd,edf->ecf", rows, p["w1"]))
    made = lax.psum(jnp.einsum("ecf,efd->ecd", hidden, p["w2"]), "tp")
    mixed = exchange(made, back=True).at[expert, slot].get(mode="fill", fill_value=0)
    weight = jnp.take_along_axis(gates, expert[:, None], -1).astype(x.dtype)
    return x + (mixed * weight).reshape(x.shape)


def tensor_experts(devices, size=Size(), abstract=False):
    """Tensor and expert axes: all-reduces of partial sums beside all-to-alls of tokens.

    The attention's products are cut over `tp` as well, columns first, then rows. Gradients of what
    is not cut are summed by JAX, which knows what varies along which axis (`check_vma`).
    """
    mesh = mesh_with(devices, "tp")
    make = Maker(mesh, size, abstract)
    spec = {"qkv": P(None, None, "tp"), "out": P("tp"), "router": P(), "w1": P("ep", None, "tp"),
            "w2": P("ep", "tp")}  # fmt: skip
    params = [
        {
            k: make.array((3, size.model, size.model) if k == "qkv" else v.shape, spec[k])
            for k, v in p.items()
        }
        for p in make.layers()
    ]

    def attend(p, x):
        q, k, v = (norm(x) @ w for w in p["qkv"])
        scores = jnp.einsum("bqd,bkd->bqk", q, k) / np.sqrt(q.shape[-1])
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e9).astype(jnp.float32)).astype(x.dtype)
        return x + lax.psum(jnp.einsum("bqk,bkd->bqd", weights, v) @ p["out"], "tp")

    def body(params, x):
        def loss_of(params):
            y = x
            for p in params:
                y = tensor_moe(p, attend(p, y))
            return lax.pmean(mean_square(y), "ep")

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, grads), loss

    tokens, specs = P("ep"), [spec] * size.layers
    step = jax.shard_map(body, mesh=mesh, in_specs=(specs, tokens), out_specs=(specs, P()))
    return Case(step, (params, make.batch(tokens)), {"donate_argnums": 0})


def auto_tensor_experts(devices, size=Size(), abstract=False):
    """Tensor and expert axes by sharding constraints alone; XLA inserts all of the traffic."""
    mesh = mesh_with(devices, "tp")
    make = Maker(mesh, size, abstract)
    spec = {"qkv": P(None, "tp"), "out": P("tp"), "router": P(), "w1": P("ep", None, "tp"),
            "w2": P("ep", "tp")}  # fmt: skip
    params = placed(make, spec)

    def sharded(x):
        return lax.with_sharding_constraint(x, NamedSharding(mesh, P("ep")))

    groups = mesh.shape["ep"]
    step = functools.partial(train, layer=lambda p, x: einsum_layer(p, x, groups, sharded))
    return Case(step, (params, make.batch(P("ep"))), {"donate_argnums": 0})


MESHES = {
    f.__name__: f
    for f in (
        experts_inside_nodes, experts_across_nodes, fsdp_experts, tensor_experts,
        auto_tensor_experts,
    )
}  # fmt: skip
"""Steps that are here and nowhere else."""

ALL_MESHES = MESHES | {"two_axes": CASES["two_axes"], "fsdp": fsdp, "transposed": transposed,
                       "partial_manual": IDIOMS["partial_manual"]}  # fmt: skip
"""All steps on meshes of several axes."""
