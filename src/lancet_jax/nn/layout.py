"""Where a MoE GPT lives on a mesh: which axes cut the batch, which parameters are split."""

from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from lancet_jax.nn.config import MoEGPTConfig
from lancet_jax.nn.gpt import MoEGPT
from lancet_jax.nn.moe import ExpertParam

type AnyMesh = Mesh | AbstractMesh


def batch_axes(config: MoEGPTConfig, mesh: AnyMesh) -> tuple[str, ...]:
    """The mesh axes that cut the batch: data axis, then expert axis.

    Raises:
        ValueError: If the configuration and the mesh name different axes. A mesh axis that no
            field names would silently repeat all work, so it is refused too.
    """
    axes = tuple(axis for axis in (config.data_axis, config.expert_axis) if axis is not None)
    if set(axes) != set(mesh.axis_names):
        raise ValueError(
            f"the mesh has axes {tuple(mesh.axis_names)}, but data_axis={config.data_axis!r} and "
            f"expert_axis={config.expert_axis!r}"
        )
    return axes


def batch_spec(config: MoEGPTConfig, mesh: AnyMesh) -> P:
    """The partition of tokens `[B, S]`: `B` is cut by all axes."""
    return P(batch_axes(config, mesh))


def batch_shape(config: MoEGPTConfig, mesh: AnyMesh) -> tuple[int, int]:
    """The shape `[B, S]` of a step's tokens on all devices together."""
    return config.batch_per_device * mesh.size, config.seq_len


def expert_count(config: MoEGPTConfig, mesh: AnyMesh) -> int:
    """Number of experts `E` in each MoE layer, on all devices together.

    Raises:
        ValueError: If the configuration and the mesh name different axes.
    """
    if config.expert_axis not in batch_axes(config, mesh):
        return config.experts_per_device
    return config.experts_per_device * mesh.shape[config.expert_axis]


def skeleton(config: MoEGPTConfig, mesh: AnyMesh) -> tuple[nnx.GraphDef, nnx.State]:
    """The model's structure and the shapes of its parameters, without allocating any."""
    experts = expert_count(config, mesh)
    model = nnx.eval_shape(lambda: MoEGPT(config, experts=experts, rngs=nnx.Rngs(0)))
    return nnx.split(model)


def param_specs(config: MoEGPTConfig, mesh: AnyMesh) -> dict[str, Any]:
    """The partition of each parameter, a tree of the parameters' shape.

    Expert parameters are split on their leading dim by the expert axis; all others are replicated.
    """
    _, params = skeleton(config, mesh)
    specs = jax.tree.map(
        lambda param: _param_spec(config, mesh, param),
        params,
        is_leaf=lambda node: isinstance(node, nnx.Variable),
    )
    return nnx.to_pure_dict(specs)


def _param_spec(config: MoEGPTConfig, mesh: AnyMesh, param: nnx.Variable) -> P:
    leading = config.expert_axis if isinstance(param, ExpertParam) else None
    # A step's results spell their specs in full under explicit axes and as short as can be
    # otherwise; a state spelled in another way would compile the step a second time.
    if mesh.explicit_axes:
        return P(leading, *(None,) * (len(param.shape) - 1))
    return P(leading) if leading else P()
