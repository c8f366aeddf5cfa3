"""Train steps in the idioms that people write, none of them from `lancet_jax.nn`.

Every builder returns a `Case`: a function, its arguments on a mesh of the given devices, and what
to pass to jit. With `abstract=True` the arguments are `jax.ShapeDtypeStruct`s, for compile-only
devices.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@dataclass(frozen=True)
class Case:
    """One step to run."""

    step: Callable[..., Any]
    args: tuple[Any, ...]
    jit_kwargs: dict[str, Any] = field(default_factory=dict)
    has_exchange: bool = True


@dataclass(frozen=True)
class Size:
    """How large a step is."""

    batch: int = 16
    seq: int = 8
    model: int = 32
    hidden: int = 64
    experts: int = 16
    layers: int = 2
    dtype: Any = jnp.float32


class Maker:
    """Makes arrays, or their shapes, on a mesh."""

    def __init__(self, mesh: Mesh, size: Size, abstract: bool) -> None:
        self.mesh, self.size, self.abstract = mesh, size, abstract
        self.rng = np.random.default_rng(0)

    def array(self, shape: Sequence[int], spec: P = P(), scale: float = 0.1) -> Any:
        sharding = NamedSharding(self.mesh, spec)
        if self.abstract:
            return jax.ShapeDtypeStruct(tuple(shape), self.size.dtype, sharding=sharding)
        data = self.rng.normal(size=shape) * scale
        return jax.device_put(jnp.asarray(data, self.size.dtype), sharding)

    def layers(self) -> list[dict[str, Any]]:
        s = self.size
        return [
            {
                "qkv": self.array((s.model, 3 * s.model)),
                "out": self.array((s.model, s.model)),
                "router": self.array((s.model, s.experts)),
                "w1": self.array((s.experts, s.model, s.hidden), P("ep")),
                "w2": self.array((s.experts, s.hidden, s.model), P("ep")),
            }
            for _ in range(s.layers)
        ]

    def batch(self, spec: P = P("ep")) -> Any:
        s = self.size
        return self.array((s.batch, s.seq, s.model), spec, 1.0)


def mesh_of(devices: Sequence[Any], **axes: int) -> Mesh:
    axes = axes or {"ep": len(devices)}
    return Mesh(np.array(devices).reshape(tuple(axes.values())), tuple(axes))


# ---------------------------------------------------------------------------------- pieces


def norm(x):
    x32 = x.astype(jnp.float32)
    scale = lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + 1e-6)
    return (x32 * scale).astype(x.dtype)


def attention(p, x):
    q, k, v = jnp.split(norm(x) @ p["qkv"], 3, -1)
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / np.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e9).astype(jnp.float32)).astype(x.dtype)
    return x + jnp.einsum("bqk,bkd->bqd", weights, v) @ p["out"]


def exchange(x, axis="ep", back=False):
    """[E, C, D] to [E/n, n*C, D] and back."""
    split, concat = (1, 0) if back else (0, 1)
    return lax.all_to_all(x, axis, split, concat, tiled=True)


def experts(p, x):
    return jnp.einsum("ecf,efd->ecd", jax.nn.relu(jnp.einsum("ecd,edf->ecf", x, p["w1"])), p["w2"])


def scatter_moe(p, x, axis="ep", capacity=1.0):
    """Top-1, scatter into slots, gather back; overflowing tokens are dropped."""
    tokens = norm(x).reshape(-1, x.shape[-1])
    count, total = p["router"].shape[-1], tokens.shape[0]
    slots = max(int(capacity * total / count), 1)
    gates = jax.nn.softmax((tokens @ p["router"]).astype(jnp.float32))
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, count, dtype=jnp.int32)
    slot = jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1)
    buffer = jnp.zeros((count, slots, tokens.shape[-1]), x.dtype)
    buffer = buffer.at[expert, slot].set(tokens, mode="drop")
    out = exchange(experts(p, exchange(buffer, axis)), axis, back=True)
    mixed = out.at[expert, slot].get(mode="fill", fill_value=0)
    weight = jnp.take_along_axis(gates, expert[:, None], -1).astype(x.dtype)
    return x + (mixed * weight).reshape(x.shape)


def einsum_moe(p, x, axis="ep", k=2):
    """GShard top-2 with one-hot dispatch and combine tensors."""
    tokens = norm(x).reshape(-1, x.shape[-1])
    count = p["router"].shape[-1]
    slots = max(k * tokens.shape[0] // count, 1)
    gates = jax.nn.softmax((tokens @ p["router"]).astype(jnp.float32))
    weights, chosen = lax.top_k(gates, k)
    hot = jax.nn.one_hot(chosen, count)
    place = jnp.cumsum(hot.transpose(1, 0, 2).reshape(-1, count), 0) - 1
    place = place.reshape(k, -1, count).transpose(1, 0, 2)
    slot = jax.nn.one_hot(jnp.sum(place * hot, -1).astype(jnp.int32), slots)
    combine = jnp.einsum("tk,tke,tkc->tec", weights, hot, slot).astype(x.dtype)
    dispatch = (combine > 0).astype(x.dtype)
    out = exchange(jnp.einsum("tec,td->ecd", dispatch, tokens), axis)
    out = exchange(experts(p, out), axis, back=True)
    return x + jnp.einsum("tec,ecd->td", combine, out).reshape(x.shape)


def expert_choice_moe(p, x, axis="ep"):
    """Experts take their top tokens; gather in, scatter-add out."""
    tokens = norm(x).reshape(-1, x.shape[-1])
    count = p["router"].shape[-1]
    slots = max(tokens.shape[0] // count, 1)
    gates = jax.nn.softmax((tokens @ p["router"]).astype(jnp.float32))
    weight, token = lax.top_k(gates.T, slots)
    out = exchange(experts(p, exchange(jnp.take(tokens, token, 0), axis)), axis, back=True)
    out = out * weight[..., None].astype(x.dtype)
    return x + jnp.zeros_like(tokens).at[token].add(out).reshape(x.shape)


def spec_of(layers):
    return [{k: P("ep") if k in ("w1", "w2") else P() for k in layer} for layer in layers]


def sgd(params, grads, rate=0.1):
    return jax.tree.map(lambda p, g: p - jnp.asarray(rate, p.dtype) * g, params, grads)


def mean_dense(grads, specs, axes):
    return jax.tree.map(lambda g, s: g if s != P() else lax.pmean(g, axes), grads, specs)


def whole_step(mesh, specs, moe, *, remat=False, axis="ep"):
    """A step in one shard_map, differentiated inside, with SGD."""

    def forward(params, x):
        for p in params:
            block = functools.partial(moe, p)
            x = (jax.checkpoint(block) if remat else block)(attention(p, x))
        return x

    def body(params, x):
        def loss_of(params):
            return jnp.mean(jnp.square(forward(params, x).astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, mean_dense(grads, specs, axis)), lax.pmean(loss, axis)

    def step(params, x):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(specs, P(axis)), out_specs=(specs, P()), check_vma=False
        )(params, x)

    return step


# ---------------------------------------------------------------------------------- cases


def scatter(devices, size=Size(), abstract=False, moe=scatter_moe, **kwargs):
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    params = make.layers()
    step = whole_step(mesh, spec_of(params), moe, **kwargs)
    return Case(step, (params, make.batch()), {"donate_argnums": 0})


def gshard_einsum(devices, size=Size(), abstract=False):
    return scatter(devices, size, abstract, moe=einsum_moe)


def expert_choice(devices, size=Size(), abstract=False):
    return scatter(devices, size, abstract, moe=expert_choice_moe)


def remat(devices, size=Size(), abstract=False):
    return scatter(devices, size, abstract, remat=True)


def scan_layers(devices, size=Size(layers=3), abstract=False):
    """Layers stacked and scanned, remat inside, as large models do."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    one = make.layers()[0]
    specs = {k: P(None, "ep") if k in ("w1", "w2") else P() for k in one}
    stacked = {k: make.array((size.layers, *v.shape), specs[k]) for k, v in one.items()}

    def body(params, x):
        @jax.checkpoint
        def layer(x, p):
            return scatter_moe(p, attention(p, x)), None

        def loss_of(params):
            y, _ = lax.scan(layer, x, params)
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, mean_dense(grads, specs, "ep")), lax.pmean(loss, "ep")

    def step(params, x):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(specs, P("ep")), out_specs=(specs, P()), check_vma=False
        )(params, x)

    return Case(step, (stacked, make.batch()), {"donate_argnums": 0})


def accumulation(devices, size=Size(), abstract=False):
    """Gradients summed over microbatches in a loop, then one update."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    params = make.layers()
    specs = spec_of(params)

    def body(params, x):
        def loss_of(params, x):
            for p in params:
                x = scatter_moe(p, attention(p, x))
            return jnp.mean(jnp.square(x.astype(jnp.float32)))

        def micro(total, x):
            loss, grads = jax.value_and_grad(loss_of)(params, x)
            return jax.tree.map(jnp.add, total, grads), loss

        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, losses = lax.scan(micro, zeros, x)
        return sgd(params, mean_dense(grads, specs, "ep")), lax.pmean(losses.mean(), "ep")

    def step(params, x):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(specs, P(None, "ep")), out_specs=(specs, P()),
            check_vma=False,
        )(params, x)  # fmt: skip

    micro = make.array((2, size.batch, size.seq, size.model), P(None, "ep"), 1.0)
    return Case(step, (params, micro), {"donate_argnums": 0})


def grad_outside(devices, size=Size(), abstract=False):
    """shard_map around the loss only; grad and adamw are auto-sharded around it."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    params = make.layers()
    specs = spec_of(params)
    optimizer = optax.adamw(1e-3)

    def loss_of(params, x):
        def body(params, x):
            for p in params:
                x = scatter_moe(p, attention(p, x))
            return lax.pmean(jnp.mean(jnp.square(x.astype(jnp.float32))), "ep")

        return jax.shard_map(body, mesh=mesh, in_specs=(specs, P("ep")), out_specs=P())(params, x)

    def step(state, x):
        params, moments = state
        loss, grads = jax.value_and_grad(loss_of)(params, x)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    moments = _adam_state(optimizer, params, make, specs)
    return Case(step, ((params, moments), make.batch()), {"donate_argnums": 0})


def _adam_state(optimizer, params, make, specs):
    """Optimizer state with the shardings of its parameters."""
    shapes = jax.eval_shape(optimizer.init, params)
    by_shape = {
        (p.shape, str(p.dtype)): s
        for p, s in zip(jax.tree.leaves(params), jax.tree.leaves(specs), strict=True)
    }

    def place(leaf):
        sharding = NamedSharding(make.mesh, by_shape.get((leaf.shape, str(leaf.dtype)), P()))
        if make.abstract:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), sharding)

    return jax.tree.map(place, shapes)


class LinenMoE(nn.Module):
    """A linen layer whose exchange has a shard_map of its own; a shared expert beside it."""

    mesh: Any
    size: Size

    @nn.compact
    def __call__(self, x):
        s = self.size
        init = nn.initializers.normal(0.1)
        p = {
            "router": self.param("router", init, (s.model, s.experts), s.dtype),
            "w1": self.param("w1", init, (s.experts, s.model, s.hidden), s.dtype),
            "w2": self.param("w2", init, (s.experts, s.hidden, s.model), s.dtype),
        }
        specs = {"router": P(), "w1": P("ep"), "w2": P("ep")}
        routed = jax.shard_map(
            scatter_moe, mesh=self.mesh, in_specs=(specs, P("ep")), out_specs=P("ep")
        )(p, x)
        shared = nn.Dense(s.model, dtype=s.dtype)(jax.nn.gelu(nn.Dense(s.hidden, dtype=s.dtype)(x)))
        return routed + shared


class LinenModel(nn.Module):
    mesh: Any
    size: Size

    @nn.compact
    def __call__(self, x):
        for _ in range(self.size.layers):
            x = x + nn.Dense(self.size.model, dtype=self.size.dtype)(nn.LayerNorm()(x))
            x = LinenMoE(self.mesh, self.size)(x)
        return x


def linen(devices, size=Size(), abstract=False):
    """Flax linen, one shard_map per MoE layer, the rest auto-sharded, adamw."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    model = LinenModel(mesh, size)
    optimizer = optax.adamw(1e-3)
    x = make.batch()

    def spec(path, _):
        return P("ep") if path[-1].key in ("w1", "w2") else P()

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    specs = jax.tree.map_with_path(spec, shapes)
    params = jax.tree.map(lambda p, s: make.array(p.shape, s), shapes, specs)
    moments = _adam_state(optimizer, params, make, specs)

    def step(state, x):
        params, moments = state

        def loss_of(params):
            return jnp.mean(jnp.square(model.apply({"params": params}, x).astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    return Case(step, ((params, moments), x), {"donate_argnums": 0})


def auto_sharded(devices, size=Size(), abstract=False):
    """No shard_map: einsum dispatch and sharding constraints; XLA inserts the all-to-alls."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    params = make.layers()

    def constrain(x, *spec):
        return lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))

    def moe(p, x):
        groups = norm(x).reshape(len(devices), -1, x.shape[-1])
        gates = jax.nn.softmax((groups @ p["router"]).astype(jnp.float32))
        chosen = jnp.argmax(gates, -1)
        count = p["router"].shape[-1]
        slots = max(2 * groups.shape[1] // count, 1)
        hot = jax.nn.one_hot(chosen, count)
        slot = jnp.sum((jnp.cumsum(hot, 1) - 1) * hot, -1).astype(jnp.int32)
        mask = (hot[..., None] * jax.nn.one_hot(slot, slots)[:, :, None]).astype(x.dtype)
        sent = constrain(jnp.einsum("gtec,gtd->gecd", mask, groups), "ep")
        sent = constrain(sent.transpose(1, 0, 2, 3), "ep")
        out = jax.nn.relu(jnp.einsum("egcd,edf->egcf", sent, p["w1"]))
        out = constrain(jnp.einsum("egcf,efd->egcd", out, p["w2"]), "ep")
        back = constrain(out.transpose(1, 0, 2, 3), "ep")
        return x + jnp.einsum("gtec,gecd->gtd", mask, back).reshape(x.shape)

    def step(params, x):
        def loss_of(params):
            y = x
            for p in params:
                y = moe(p, attention(p, y))
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, grads), loss

    return Case(step, (params, make.batch()), {"donate_argnums": 0})


def two_axes(devices, size=Size(), abstract=False):
    """Data and expert axes; dense weights are gathered before use, their gradients scattered."""
    mesh = mesh_of(devices, data=2, ep=len(devices) // 2)
    make = Maker(mesh, size, abstract)
    params = make.layers()
    specs = [{**s, "qkv": P("data")} for s in spec_of(params)]
    params = [{**p, "qkv": make.array(p["qkv"].shape, P("data"))} for p in params]

    def body(params, x):
        def loss_of(params):
            y = x
            for p in params:
                full = {**p, "qkv": lax.all_gather(p["qkv"], "data", tiled=True)}
                y = scatter_moe(p, attention(full, y))
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        grads = [
            {
                k: lax.pmean(g, "ep") if k == "qkv"
                else lax.pmean(g, "data") if k in ("w1", "w2") else lax.pmean(g, ("data", "ep"))
                for k, g in layer.items()
            }
            for layer in grads
        ]  # fmt: skip
        return sgd(params, grads), lax.pmean(loss, ("data", "ep"))

    def step(params, x):
        spec = P(("data", "ep"))
        return jax.shard_map(
            body, mesh=mesh, in_specs=(specs, spec), out_specs=(specs, P()), check_vma=False
        )(params, x)

    return Case(step, (params, make.batch(P(("data", "ep")))), {"donate_argnums": 0})


def callback(devices, size=Size(), abstract=False):
    """A host callback in the middle of the step."""
    base = scatter(devices, size, abstract)

    def step(params, x):
        jax.debug.callback(lambda v: None, jnp.sum(x))
        params, loss = base.step(params, x)
        jax.debug.callback(lambda v: None, loss)
        return params, loss

    return Case(step, base.args)


def static_and_constant(devices, size=Size(), abstract=False):
    """A static argument, a closed-over array, keyword arguments and a tree of odd leaves."""
    base = scatter(devices, size, abstract)
    table = jnp.arange(size.model, dtype=jnp.float32) / size.model

    def step(state, mode, *, x):
        params, none, extra = state
        params, loss = base.step(params, x * (1 + table.astype(x.dtype)))
        return {"params": params, "none": none}, loss * extra if mode == "scaled" else loss

    state = (base.args[0], None, 2.0)
    return Case(
        functools.partial(step, x=base.args[1]) if abstract else step, (state, "scaled"),
        {"static_argnums": 1},
    )  # fmt: skip


def dense(devices, size=Size(), abstract=False):
    """Data parallel, no MoE at all: only gradient sums."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    params = [
        {"qkv": make.array((size.model, 3 * size.model)), "out": make.array((size.model,) * 2)}
        for _ in range(size.layers)
    ]

    def body(params, x):
        def loss_of(params):
            y = x
            for p in params:
                y = attention(p, y)
            return jnp.mean(jnp.square(y.astype(jnp.float32)))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return sgd(params, lax.pmean(grads, "ep")), lax.pmean(loss, "ep")

    def step(params, x):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(P(), P("ep")), out_specs=(P(), P()), check_vma=False
        )(params, x)

    return Case(step, (params, make.batch()), {"donate_argnums": 0})


def forward_only(devices, size=Size(), abstract=False):
    """Inference: no backward pass, nothing to move."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract)
    params = make.layers()

    def body(params, x):
        for p in params:
            x = scatter_moe(p, attention(p, x))
        return x

    def step(params, x):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(spec_of(params), P("ep")), out_specs=P("ep"),
            check_vma=False,
        )(params, x)  # fmt: skip

    return Case(step, (params, make.batch()))


def one_device(devices, size=Size(), abstract=False):
    """Nothing to exchange."""
    case = dense(devices[:1], size, abstract)
    return Case(case.step, case.args, case.jit_kwargs, has_exchange=False)


CASES = {
    f.__name__: f
    for f in (
        scatter, gshard_einsum, expert_choice, remat, scan_layers, accumulation, grad_outside,
        linen, auto_sharded, two_axes, callback, dense, forward_only, one_device,
    )
}  # fmt: skip
