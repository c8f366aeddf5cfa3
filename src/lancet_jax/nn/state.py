"""The state of a training run: real, or abstract for compiling without devices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lancet_jax.nn.config import MoEGPTConfig
from lancet_jax.nn.gpt import MoEGPT
from lancet_jax.nn.layout import AnyMesh, batch_shape, batch_spec, expert_count, param_specs


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """All that one train step hands to the next; a pytree.

    Attributes:
        params: Parameters, a nested dict of arrays.
        opt_state: The optimizer's state.
        step: Steps taken, int32 scalar.
    """

    params: Any
    opt_state: Any
    step: Any


def sgd_momentum(lr: float = 0.1, momentum: float = 0.01) -> optax.GradientTransformation:
    """SGD with momentum; the defaults are those that Lancet was evaluated with."""
    return optax.sgd(lr, momentum=momentum)


def adamw(lr: float = 1e-3, weight_decay: float = 0.01) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019) with optax's defaults otherwise."""
    return optax.adamw(lr, weight_decay=weight_decay)


def init_state(
    config: MoEGPTConfig,
    mesh: AnyMesh,
    optimizer: optax.GradientTransformation,
    seed: int = 0,
) -> TrainState:
    """A fresh state, each part created on the devices that own it.

    The values depend on the seed and on the number of experts, not on the mesh.

    Args:
        config: The model's configuration.
        mesh: A mesh of real devices.
        optimizer: An optax optimizer.
        seed: Seed of the initial parameters.

    Raises:
        ValueError: If the configuration and the mesh name different axes.
    """
    shardings = _state_shardings(config, mesh, optimizer)
    return jax.jit(_initialiser(config, mesh, optimizer), out_shardings=shardings)(seed)


def abstract_state(
    config: MoEGPTConfig, mesh: AnyMesh, optimizer: optax.GradientTransformation
) -> TrainState:
    """The shapes, types and shardings of `init_state`'s result.

    Allocates nothing and touches no device, so the mesh may be one to compile for only.

    Args:
        config: the model.
        mesh: what it is laid out on.
        optimizer: whose state is kept beside the parameters.

    Raises:
        ValueError: If the configuration and the mesh name different axes.
    """
    shapes = jax.eval_shape(_initialiser(config, mesh, optimizer), 0)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        _state_shardings(config, mesh, optimizer),
    )


def abstract_batch(
    config: MoEGPTConfig, mesh: AnyMesh
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The inputs and targets of one step, int32 `[B, S]` each, without allocating them.

    Raises:
        ValueError: If the configuration and the mesh name different axes.
    """
    sharding = NamedSharding(mesh, batch_spec(config, mesh))
    tokens = jax.ShapeDtypeStruct(batch_shape(config, mesh), jnp.int32, sharding=sharding)
    return tokens, tokens


def state_specs(
    config: MoEGPTConfig, mesh: AnyMesh, optimizer: optax.GradientTransformation
) -> TrainState:
    """The partition of each leaf of the state; what the optimizer keeps follows its parameter.

    Args:
        config: the model.
        mesh: what it is laid out on.
        optimizer: whose state is kept beside the parameters.

    Raises:
        ValueError: If the configuration and the mesh name different axes.
    """
    shapes = jax.eval_shape(_initialiser(config, mesh, optimizer), 0)
    params = param_specs(config, mesh)
    opt_state = optax.tree.map_params(
        optimizer.init,
        lambda _, spec: spec,
        shapes.opt_state,
        params,
        transform_non_params=lambda _: P(),
    )
    return TrainState(params=params, opt_state=opt_state, step=P())


def _state_shardings(
    config: MoEGPTConfig, mesh: AnyMesh, optimizer: optax.GradientTransformation
) -> TrainState:
    specs = state_specs(config, mesh, optimizer)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def _initialiser(
    config: MoEGPTConfig, mesh: AnyMesh, optimizer: optax.GradientTransformation
) -> Callable[[jax.typing.ArrayLike], TrainState]:
    experts = expert_count(config, mesh)

    def initial(seed: jax.typing.ArrayLike) -> TrainState:
        model = MoEGPT(config, experts=experts, rngs=nnx.Rngs(jax.random.key(seed)))
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        return TrainState(
            params=params, opt_state=optimizer.init(params), step=jnp.zeros((), jnp.int32)
        )

    return initial
