"""One whole train step inside one `shard_map`: forward, backward, gradient sums, optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lancet_jax.nn.config import MoEGPTConfig
from lancet_jax.nn.layout import AnyMesh, batch_axes, batch_spec, skeleton
from lancet_jax.nn.state import TrainState, state_specs

type Batch = tuple[Any, Any]
type TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class Metrics(NamedTuple):
    """What one step measured, each a float32 scalar averaged over all devices.

    Attributes:
        loss: The objective: cross entropy plus the weighted balance loss, in nats a token.
        balance_loss: Load-balance loss, averaged over MoE layers.
        dropped: Fraction of choices that found no room in their expert's buffer.
    """

    loss: jax.Array
    balance_loss: jax.Array
    dropped: jax.Array


def make_train_step(
    config: MoEGPTConfig, mesh: AnyMesh, optimizer: optax.GradientTransformation
) -> TrainStep:
    """A pure train step for the mesh, to be wrapped with `jax.jit` or `lancet_jax.jit`.

    Each device routes its own tokens. Apart from that the step is the one that a single device
    would take on the mean loss of the whole batch.

    Args:
        config: The model's configuration.
        mesh: The mesh; its devices may be ones to compile for only.
        optimizer: An optax optimizer that treats each parameter's elements alone. One that looks at
            a whole tree, such as clipping by global norm, would see one device's experts only.

    Returns:
        A function of a `TrainState` and of `(inputs, targets)`, int32 `[B, S]` each, that returns
        the next state and `Metrics`.

    Raises:
        ValueError: If the configuration and the mesh name different axes.
    """
    axes = batch_axes(config, mesh)
    specs = state_specs(config, mesh, optimizer)
    objective = _objective(config, mesh)

    def device_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = _routing_key(config, axes, state.step)
        gradient = jax.grad(objective, has_aux=True)
        grads, metrics = gradient(state.params, batch, key)
        with jax.named_scope("gradient_sum"):
            grads = _sum_over_replicas(grads, specs.params, axes)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        state = TrainState(params=params, opt_state=opt_state, step=state.step + 1)
        return state, Metrics(*lax.pmean(jnp.stack(metrics), axes))

    sharded = jax.shard_map(
        device_step,
        mesh=mesh,
        in_specs=(specs, batch_spec(config, mesh)),
        out_specs=(specs, P()),
        check_vma=False,
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # With explicit axes (the default of `jax.make_mesh`) a batch of NumPy arrays counts as
        # replicated, which shard_map refuses to split.
        if mesh.explicit_axes:
            batch = jax.reshard(batch, NamedSharding(mesh, batch_spec(config, mesh)))
        return sharded(state, batch)

    return train_step


def _objective(config: MoEGPTConfig, mesh: AnyMesh) -> Callable[..., tuple[jax.Array, Metrics]]:
    """One device's share of the global mean loss: the shares of all devices add up to it.

    As each device differentiates a share, plain sums over replicas give the exact gradient, and
    what the all-to-alls carry back to an expert is its whole gradient on the expert axis.
    """
    graph, _ = skeleton(config, mesh)

    def objective(params: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        inputs, targets = batch
        logits, routing = nnx.merge(graph, params)(inputs, key=key)
        with jax.named_scope("loss"):
            entropy = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), targets
            ).mean()
            loss = entropy + config.balance_weight * routing.balance_loss
        return loss / mesh.size, Metrics(loss, routing.balance_loss, routing.dropped)

    return objective


def _sum_over_replicas(grads: Any, specs: Any, axes: tuple[str, ...]) -> Any:
    """Sums each gradient over the axes that replicate its parameter."""

    def total(grad: jax.Array, spec: P) -> jax.Array:
        replicas = tuple(axis for axis in axes if axis not in spec)
        return lax.psum(grad, replicas) if replicas else grad

    return jax.tree.map(total, grads, specs)


def _routing_key(config: MoEGPTConfig, axes: tuple[str, ...], step: jax.Array) -> jax.Array | None:
    """A key of this device and step, or None for gates that draw nothing."""
    if not config.routing_gate.draws:
        return None
    key = jax.random.fold_in(jax.random.key(config.routing_seed), step)
    return jax.random.fold_in(key, lax.axis_index(axes))
