"""Train steps of models from the package registry, as their packages have them.

Nothing of a package is changed: a builder makes a model of it, small or large, spreads its inputs
over a mesh and wraps a step around it. Builders import their package when they are called.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@dataclass(frozen=True)
class ForeignStep:
    """A step of someone else's model.

    Attributes:
        step: the function to compile.
        args: arrays, or `jax.ShapeDtypeStruct`s, with their shardings.
        jit_kwargs: for `jax.jit`.
        mesh: enters the mesh that the package looks for, where it does.
    """

    step: Callable[..., Any]
    args: tuple[Any, ...]
    jit_kwargs: dict[str, Any]
    mesh: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Foreign:
    """A public code base.

    Attributes:
        package: its name in the registry.
        module: what to import.
        idiom: how its layers dispatch tokens.
        spread: how it was spread over devices.
        exchanges: whether its steps have all-to-alls.
        runs_on_cpu: whether XLA's CPU backend has all its ops.
        build: makes the step from devices and from whether it is to be large and abstract.
    """

    package: str
    module: str
    idiom: str
    spread: str
    exchanges: bool
    runs_on_cpu: bool
    build: Callable[[Any, bool], ForeignStep]


def _levanter(devices: Any, is_large: bool, implementation: str) -> ForeignStep:
    """Two blocks of a dense layer and levanter's experts, top 2 of 16."""
    from levanter.grug.grug_moe import MoEExpertMlp

    tokens, model, hidden, experts = (32768, 1024, 2048, 16) if is_large else (512, 64, 128, 16)
    dtype = jnp.bfloat16 if is_large else jnp.float32
    mesh = Mesh(
        np.array(devices).reshape(1, -1), ("data", "expert"), axis_types=(AxisType.Explicit,) * 2
    )

    def loss_of(params, x, y):
        for p in params:
            x = x + jnp.tanh(x @ p["dense"])
            gates = jax.nn.softmax(jnp.einsum("td,de->te", x, p["router"]).astype(jnp.float32))
            weights, chosen = jax.lax.top_k(gates, 2)
            mlp = MoEExpertMlp(
                p["w_gate"], p["w_up"], p["w_down"], implementation=implementation,
                activation=jax.nn.silu, capacity_factor=1.25,
            )  # fmt: skip
            x = x + mlp(x, chosen.astype(jnp.int32), weights.astype(x.dtype), mesh=mesh)
        return jnp.mean(jnp.square((x - y).astype(jnp.float32)))

    def step(params, x, y):
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.1 * g.astype(p.dtype), params, grads), loss

    shapes = {
        "router": (model, experts), "dense": (model, model), "w_gate": (experts, model, hidden),
        "w_up": (experts, model, hidden), "w_down": (experts, hidden, model),
    }  # fmt: skip
    random = np.random.default_rng(0)

    def array(shape, spec, scale):
        sharding = NamedSharding(mesh, spec)
        if is_large:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        return jax.device_put((random.standard_normal(shape) * scale).astype(dtype), sharding)

    params = [
        {k: array(s, P("expert") if len(s) == 3 else P(), 0.05) for k, s in shapes.items()}
        for _ in range(2)
    ]
    x, y = (array((tokens, model), P("expert"), 1.0) for _ in range(2))
    return ForeignStep(step, (params, x, y), {}, lambda: jax.set_mesh(mesh))


def levanter_fixed(devices: Any, is_large: bool = False) -> ForeignStep:
    """Experts behind `all_to_all` of fixed cells, one exchange per local expert."""
    return _levanter(devices, is_large, "fixed_all_to_all")


def levanter_ragged(devices: Any, is_large: bool = False) -> ForeignStep:
    """Experts behind `ragged_all_to_all`."""
    return _levanter(devices, is_large, "ragged_all_to_all")


def levanter_ring(devices: Any, is_large: bool = False) -> ForeignStep:
    """Experts behind `all_gather` and `psum_scatter`."""
    return _levanter(devices, is_large, "ring")


def nano_moe(devices: Any, is_large: bool = False) -> ForeignStep:
    """The package's own model, optimizer and train step; experts cut along their hidden dim."""
    from nano_moe import NanoMoEConfig
    from nano_moe.train import create_train_state, train_step

    wide = {"d_model": 1024, "d_ff": 4096, "block_size": 512}
    small = {"d_model": 64, "d_ff": 128, "block_size": 32}
    config = NanoMoEConfig(n_layers=2, n_experts=8, **(wide if is_large else small))
    mesh = Mesh(np.array(devices), ("expert",))

    def sharding(path, leaf):
        is_weight = "expert_" in jax.tree_util.keystr(path) and leaf.ndim == 2
        return NamedSharding(mesh, P(None, "expert") if is_weight else P())

    tokens_at = NamedSharding(mesh, P("expert"))
    if is_large:
        state = jax.eval_shape(lambda key: create_train_state(key, config), jax.random.key(0))
        shardings = jax.tree_util.tree_map_with_path(sharding, state)
        state = jax.tree.map(
            lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), state, shardings
        )
        tokens = jax.ShapeDtypeStruct((64, config.block_size), jnp.int32, sharding=tokens_at)
    else:
        state = create_train_state(jax.random.key(0), config)
        shardings = jax.tree_util.tree_map_with_path(sharding, state)
        state = jax.tree.map(jax.device_put, state, shardings)
        drawn = np.random.default_rng(0).integers(0, 255, (64, config.block_size))
        tokens = jax.device_put(drawn.astype(np.int32), tokens_at)
    plain = train_step.__wrapped__
    return ForeignStep(
        plain, (state, tokens, tokens, config), {"static_argnums": (3,)}, nullcontext
    )


_BY_EXPERT = "16 experts and the tokens over 8 devices, axis `expert` (explicit)"

FOREIGN = {
    "levanter-fixed": Foreign(
        "marin-levanter", "levanter.grug.grug_moe",
        "own shard_map, `all_to_all` of fixed cells, one per local expert",
        _BY_EXPERT, True, True, levanter_fixed,
    ),
    "levanter-ragged": Foreign(
        "marin-levanter", "levanter.grug.grug_moe", "own shard_map, `ragged_all_to_all`",
        _BY_EXPERT, True, False, levanter_ragged,
    ),
    "levanter-ring": Foreign(
        "marin-levanter", "levanter.grug.grug_moe", "own shard_map, `all_gather`, `psum_scatter`",
        _BY_EXPERT, False, True, levanter_ring,
    ),
    "nano-moe": Foreign(
        "nano-moe-jax", "nano_moe", "every expert sees every token, a gather picks",
        "hidden dim of every expert and the batch over 8 devices, by XLA", False, True, nano_moe,
    ),
}  # fmt: skip
