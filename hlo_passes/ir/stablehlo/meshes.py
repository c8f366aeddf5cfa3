"""Meshes of a StableHLO module, and which devices its regions give the same data."""

import itertools

from jax.extend.mlir.dialects import sdy
from jaxlib.mlir import ir

type Meshes = dict[str, tuple[tuple[tuple[str, int], ...], tuple[int, ...] | None]]
"""Axes and device ids by a mesh's name; None stands for ids in row-major order."""

_MANUAL = "sdy.manual_computation"


def meshes_of(module: ir.Module) -> Meshes:
    """Read axes and device ids of every mesh in a module."""
    found: Meshes = {}
    for view in module.body.operations:
        op = view.operation
        if op.name == "sdy.mesh":
            name = ir.StringAttr(op.attributes["sym_name"]).value
            found[name] = _read(sdy.MeshAttr(op.attributes["mesh"]))
    return found


def _read(mesh: sdy.MeshAttr) -> tuple[tuple[tuple[str, int], ...], tuple[int, ...] | None]:
    axes = tuple((a.name, a.size) for a in map(sdy.MeshAxisAttr, mesh.axes))
    return axes, tuple(mesh.device_ids) or None


def spread_of(block: ir.Block, meshes: Meshes) -> tuple[tuple[int, ...], ...]:
    """Return `Graph.spread` of a block: of a manual region, what its axes cut; else nothing.

    Along axes that are left to the partitioner a region sees whole arrays, as if nothing cut them.
    An argument cut along a part of an axis counts as cut along all of it.
    """
    owner = block.owner
    if owner.name != _MANUAL:
        return ()
    manual = {str(axis) for axis in sdy.ManualAxesAttr(owner.attributes["manual_axes"])}
    shardings = sdy.TensorShardingPerValueAttr(owner.attributes["in_shardings"]).shardings
    return tuple(_labels(sdy.TensorShardingAttr(s), manual, meshes) for s in shardings)


def _labels(sharding: sdy.TensorShardingAttr, manual: set[str], meshes: Meshes) -> tuple[int, ...]:
    """Number devices so that those given the same piece have the same number."""
    where = sharding.mesh_or_ref
    if isinstance(where, sdy.MeshAttr):
        axes, ids = _read(where)
    else:
        axes, ids = meshes[str(where).lstrip("@").strip('"')]
    cut = {
        sdy.AxisRefAttr(axis).name
        for dim in sharding.dimension_shardings
        for axis in sdy.DimensionShardingAttr(dim).axes
    } & manual
    places = list(itertools.product(*(range(size) for _, size in axes)))
    keys = [
        tuple(at for at, (name, _) in zip(place, axes, strict=True) if name in cut)
        for place in places
    ]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    labels = [0] * len(places)
    for device, key in zip(ids or range(len(places)), keys, strict=True):
        labels[device] = number[key]
    return tuple(labels) if len(number) > 1 else ()
