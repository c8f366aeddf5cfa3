"""Steps that XLA partitions, in whole or around their shard_maps: idioms and hard nuts.

Every builder returns a `Case`, as those of `tests/steps.py` do. The idioms have a MoE layer each;
the nuts are what a conversion of a partitioned program may get wrong without a word.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.steps import (
    Case,
    LinenMoE,
    Maker,
    Size,
    attention,
    auto_sharded,
    grad_outside,
    linen,
    mesh_of,
    norm,
    scatter_moe,
    sgd,
)


def einsum_layer(p, x, groups, sharded):
    """One-hot dispatch; `sharded(x)` asks for a first dim over the experts' devices."""
    rows = norm(x).reshape(groups, -1, x.shape[-1])
    gates = jax.nn.softmax((rows @ p["router"]).astype(jnp.float32))
    count = p["router"].shape[-1]
    slots = max(2 * rows.shape[1] // count, 2)
    hot = jax.nn.one_hot(jnp.argmax(gates, -1), count)
    slot = jnp.sum((jnp.cumsum(hot, 1) - 1) * hot, -1).astype(jnp.int32)
    mask = (hot[..., None] * jax.nn.one_hot(slot, slots)[:, :, None]).astype(x.dtype)
    sent = sharded(jnp.einsum("gtec,gtd->gecd", mask, rows))
    sent = sharded(sent.transpose(1, 0, 2, 3))
    out = jax.nn.relu(jnp.einsum("egcd,edf->egcf", sent, p["w1"]))
    out = sharded(jnp.einsum("egcf,efd->egcd", out, p["w2"]))
    back = sharded(out.transpose(1, 0, 2, 3))
    return x + jnp.einsum("gtec,gecd->gtd", mask, back).reshape(x.shape)


def train(params, x, layer):
    def loss_of(params):
        y = x
        for p in params:
            y = layer(p, attention(p, y))
        return jnp.mean(jnp.square(y.astype(jnp.float32)))

    loss, grads = jax.value_and_grad(loss_of)(params)
    return sgd(params, grads), loss


# ---------------------------------------------------------------------------------- idioms


class NnxMoE(nnx.Module):
    """An nnx layer whose exchange has a shard_map of its own."""

    def __init__(self, mesh, params):
        self.mesh = mesh
        for name, value in params.items():
            setattr(self, name, nnx.Param(value))

    def __call__(self, x):
        p = {name: getattr(self, name)[...] for name in ("qkv", "out", "router", "w1", "w2")}
        specs = {name: P("ep") if name in ("w1", "w2") else P() for name in p}
        x = attention(p, x)
        return jax.shard_map(
            scatter_moe, mesh=self.mesh, in_specs=(specs, P("ep")), out_specs=P("ep")
        )(p, x)


def nnx_layers(devices, size=Size(), abstract=False):
    """Flax nnx, split and merged around the step; one shard_map per MoE layer."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)

    layers = make.layers()

    def build(layers):
        return nnx.List([NnxMoE(mesh, layer) for layer in layers])

    if abstract:
        shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), layers)
        graph, state = nnx.split(nnx.eval_shape(build, shapes))
        spread = nnx.State(
            {i: {k: nnx.Param(v) for k, v in layer.items()} for i, layer in enumerate(layers)}
        )
        state = jax.tree.map(lambda _, value: value, state, spread)
    else:
        graph, state = nnx.split(build(layers))

    def step(state, x):
        def loss_of(state):
            y = x
            for layer in nnx.merge(graph, state):
                y = layer(y)
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(state)
        return sgd(state, grads), loss

    return Case(step, (state, make.batch()), {"donate_argnums": 0})


def explicit(devices, size=Size(), abstract=False):
    """An explicit-sharding mesh: shardings are part of the types."""
    mesh = Mesh(mesh_of(devices).devices, ("ep",), axis_types=(AxisType.Explicit,))
    make = Maker(mesh, size, abstract)
    params = [{k: v for k, v in layer.items() if k in ("router", "w1", "w2")}
              for layer in make.layers()]  # fmt: skip

    def named(*axes):
        return NamedSharding(mesh, P(*axes))

    def layer(p, x):
        def inside(x):
            return jax.sharding.reshard(x, named("ep", None, None, None))

        count = p["router"].shape[-1]
        rows = norm(x).reshape(len(devices), -1, x.shape[-1], out_sharding=named("ep", None, None))
        gates = jax.nn.softmax((rows @ p["router"]).astype(jnp.float32))
        hot = jax.nn.one_hot(jnp.argmax(gates, -1), count)
        mask = (hot[..., None] * jnp.ones(2)).astype(x.dtype)
        sent = inside(jnp.einsum("gtec,gtd->gecd", mask, rows))
        sent = inside(sent.transpose(1, 0, 2, 3))
        out = jax.nn.relu(jnp.einsum("egcd,edf->egcf", sent, p["w1"]))
        out = inside(jnp.einsum("egcf,efd->egcd", out, p["w2"]))
        back = inside(out.transpose(1, 0, 2, 3))
        mixed = jnp.einsum("gtec,gecd->gtd", mask, back)
        return x + mixed.reshape(x.shape, out_sharding=named("ep", None, None))

    def step(params, x):
        def loss_of(params):
            y = x
            for p in params:
                y = layer(p, y)
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, grads), loss

    return Case(step, (params, make.batch()), {"donate_argnums": 0})


def partial_manual(devices, size=Size(), abstract=False):
    """shard_map over the expert axis only; the data axis is left to the partitioner."""
    mesh = mesh_of(devices, data=2, ep=len(devices) // 2)
    make = Maker(mesh, size, abstract)
    params = make.layers()

    def layer(p, x):
        specs = {name: P("ep") if name in ("w1", "w2") else P() for name in p}
        return jax.shard_map(
            scatter_moe, mesh=mesh, in_specs=(specs, P("ep")), out_specs=P("ep"),
            axis_names={"ep"}, check_vma=False,
        )(p, x)  # fmt: skip

    step = functools.partial(train, layer=layer)
    return Case(step, (params, make.batch(P(("ep", "data")))), {"donate_argnums": 0})


def auto_scan_remat(devices, size=Size(layers=3), abstract=False):
    """Sharding constraints only, layers scanned, remat inside."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    one = make.layers()[0]
    specs = {k: P(None, "ep") if k in ("w1", "w2") else P() for k in one}
    stacked = {k: make.array((size.layers, *v.shape), specs[k]) for k, v in one.items()}

    def sharded(x):
        return lax.with_sharding_constraint(x, NamedSharding(mesh, P("ep")))

    @jax.checkpoint
    def layer(x, p):
        return einsum_layer(p, attention(p, x), len(devices), sharded), None

    def step(params, x):
        def loss_of(params):
            y, _ = lax.scan(layer, x, params)
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, grads), loss

    return Case(step, (stacked, make.batch()), {"donate_argnums": 0})


class LinenScan(nn.Module):
    """Linen layers in `nn.scan`, each remat'ed, with a shard_map inside."""

    mesh: object
    size: Size

    @nn.compact
    def __call__(self, x):
        class Layer(nn.Module):
            mesh: object
            size: Size

            @nn.compact
            def __call__(self, x, _):
                return LinenMoE(self.mesh, self.size)(x), None

        scanned = nn.scan(
            nn.remat(Layer), variable_axes={"params": 0}, split_rngs={"params": True},
            length=self.size.layers,
        )  # fmt: skip
        return scanned(self.mesh, self.size)(x, None)[0]


def linen_scan_remat(devices, size=Size(layers=3), abstract=False):
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    model, x = LinenScan(mesh, size), make.batch()
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    params = jax.tree.map_with_path(
        lambda path, p: make.array(p.shape, P(None, "ep") if path[-1].key in ("w1", "w2") else P()),
        shapes,
    )

    def step(params, x):
        def loss_of(params):
            return jnp.mean(jnp.square(model.apply({"params": params}, x).astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, grads), loss

    return Case(step, (params, x), {"donate_argnums": 0})


def fsdp(devices, size=Size(), abstract=False):
    """Data and expert axes, every weight spread over data; dense weights gathered by XLA."""
    mesh = mesh_of(devices, data=2, ep=len(devices) // 2)
    make = Maker(mesh, size, abstract)
    spec = {"w1": P("ep", "data"), "w2": P("ep", "data"), "qkv": P("data"), "out": P("data"),
            "router": P()}  # fmt: skip
    params = [{k: make.array(v.shape, spec[k]) for k, v in p.items()} for p in make.layers()]

    def sharded(x):
        return lax.with_sharding_constraint(x, NamedSharding(mesh, P("ep", "data")))

    def layer(p, x):
        return einsum_layer(p, x, len(devices), sharded)

    step = functools.partial(train, layer=layer)
    return Case(step, (params, make.batch(P(("data", "ep")))), {"donate_argnums": 0})


def transposed(devices, size=Size(), abstract=False):
    """A mesh whose devices are not in the order of their ids, cut along both axes."""
    grid = np.array(devices).reshape(2, -1).T
    mesh = Mesh(grid, ("ep", "data"))
    make = Maker(mesh, size, abstract)
    params = make.layers()

    def sharded(x):
        return lax.with_sharding_constraint(x, NamedSharding(mesh, P("ep", "data")))

    step = functools.partial(train, layer=lambda p, x: einsum_layer(p, x, len(devices), sharded))
    return Case(step, (params, make.batch(P(("data", "ep")))), {"donate_argnums": 0})


def unspecified(devices, size=Size(), abstract=False):
    """Shardings of results, and of an uncommitted argument, are left to XLA."""
    base = auto_sharded(devices, size, abstract)
    scale = jax.ShapeDtypeStruct((size.model,), jnp.float32) if abstract else jnp.ones(size.model)

    def step(params, x, scale):
        new, loss = base.step(params, x * scale.astype(x.dtype))
        first = new[0]["w1"]
        return new, {"loss": loss, "t": first.transpose(1, 0, 2), "row": x[:, 0], "s": scale + 1}

    return Case(step, (*base.args, scale), {"donate_argnums": 0})


IDIOMS = {
    f.__name__: f
    for f in (
        auto_sharded, linen, nnx_layers, grad_outside, explicit, partial_manual, auto_scan_remat,
        linen_scan_remat, fsdp, transposed, unspecified,
    )
}  # fmt: skip


# ---------------------------------------------------------------------------------- hard nuts


def nut(body, spec=P("ep", None), shape=(16, 32)):
    """Return a builder of a step that does `body(x, constrain)` and exchanges besides."""

    def build(devices):
        mesh = mesh_of(devices, ep=len(devices) // 2, tp=2)
        make = Maker(mesh, Size(), False)

        def constrain(x, *axes):
            return lax.with_sharding_constraint(x, NamedSharding(mesh, P(*axes)))

        constrain.mesh = mesh

        def step(x):
            y = constrain(constrain(x @ x.T, "ep", None), None, "ep")
            return jnp.tanh(y @ y.T), body(x, constrain)

        return Case(step, (make.array(shape, spec, 1.0),))

    build.__name__ = body.__name__
    return build


def conv_halo(x, constrain):
    image = constrain(x.reshape(1, 16, 32, 1), None, "ep", "tp", None)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    return lax.conv_general_dilated(image, kernel, (1, 1), "SAME",
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip


def roll_and_pad(x, constrain):
    return jnp.roll(constrain(x, "ep", "tp"), 3, 0), jnp.pad(constrain(x, "ep", "tp"), 1)


def uneven_slice(x, constrain):
    return jnp.concatenate([constrain(x, "ep")[3:14], x[1:6]])


def prefix_sum(x, constrain):
    return jnp.cumsum(constrain(x, "ep", "tp"), 0)


def sort_spread(x, constrain):
    return jnp.sort(constrain(x, None, "tp"), 1), jnp.argsort(constrain(x, "ep"), 0)


def take_rows(x, constrain):
    rows = (jnp.abs(x[:, 0]) * 100).astype(jnp.int32) % 16
    return jnp.take(constrain(x, "ep"), rows, 0), constrain(x, "ep").at[rows].add(1.0)


def dropout(x, constrain):
    keep = jax.random.bernoulli(jax.random.key(1), 0.5, x.shape)
    return jnp.where(constrain(keep, "ep"), x, 0)


def rbg_bits(x, constrain):
    return x + jax.random.normal(jax.random.key(3, impl="rbg"), x.shape)


def own_place(x, constrain):
    """What a device does depends on which one it is, as its mesh has it."""

    def inside(v):
        mine = lax.axis_index("ep") * 10 + lax.axis_index("tp")
        return v + mine, lax.ppermute(v, "ep", [(i, (i + 1) % 4) for i in range(4)])

    return jax.shard_map(
        inside, mesh=constrain.mesh, in_specs=P("ep", "tp"), out_specs=P("ep", "tp")
    )(x)


def triangular(x, constrain):
    """Foreign code."""
    return jnp.linalg.cholesky(x[:16, :16] @ x[:16, :16].T + 16 * jnp.eye(16))


def host_callback(x, constrain):
    jax.debug.callback(lambda value: None, jnp.sum(x))
    return x + 1


def loop_and_branch(x, constrain):
    def body(i, v):
        return constrain(lax.cond(i % 2 == 0, lambda v: v * 2, lambda v: v - 1, v), "ep")

    return lax.fori_loop(0, 5, body, x)


def large_constant(x, constrain):
    table = np.random.default_rng(0).normal(size=(512, 16)).astype(np.float32)
    return constrain(x[:, :16] @ jnp.asarray(table).T, "ep")


def integers(x, constrain):
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    return constrain(bits, None, "ep") ^ 7, jnp.sum(constrain(x > 0, "ep"), 0)


NUTS = {
    f.__name__: nut(f)
    for f in (
        conv_halo, roll_and_pad, uneven_slice, prefix_sum, sort_spread, take_rows, dropout,
        rbg_bits, own_place, triangular, host_callback, loop_and_branch, large_constant, integers,
    )
}  # fmt: skip
