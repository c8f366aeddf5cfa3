"""Reads exchanges from StableHLO: XLA's own ops, and those that JAX starts and ends apart.

A start is a custom call of JAX's (`psum_scatter_start` is `@reduce-scatter-start`) or an
`async_start`, whose region may hold several exchanges. A `send` to another device is an exchange;
who receives waits for it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.collectives import (
    CONFIG,
    DOMAIN,
    FILL,
    KINDS,
    SKEW,
    Collective,
    as_one,
    expected_fill,
    from_config,
    parse_fill,
    parse_skew,
    payload,
)
from hlo_passes.ir.device_groups import device_groups, groups_from_mesh
from hlo_passes.ir.stablehlo.meshes import Meshes
from hlo_passes.ir.stablehlo.read import integer, tensor_type
from hlo_passes.ir.types import TensorType

type _Attributes = ir.OpAttributeMap | ir.DictAttr

_FRONTEND = "mhlo.frontend_attributes"
_DIMS = ("split_dimension", "concat_dimension", "all_gather_dim", "scatter_dimension")
_TO_DEVICE = 1
"""Type of a channel between devices; others go to and from the host."""


def string(op: ir.Operation, name: str) -> str:
    """Return a string attribute of an op; "" if it has none of that name."""
    return ir.StringAttr(op.attributes[name]).value if name in op.attributes else ""


def kind_of(op: ir.Operation) -> tuple[str, str]:
    """Return the kind of an op, and "start" or "done" for half an exchange."""
    name = op.name.rpartition(".")[2]
    if name == "custom_call":
        called = string(op, "call_target_name").replace("-", "_")
        for half in ("start", "done"):
            base = called.removesuffix("_" + half)
            if base != called and base in KINDS:
                return called, half
    if name == "async_start" and (inside := _inside(op)):
        return f"{exchange_kind(inside[0])}_start", "start"
    return name, "done" if name == "async_done" else ""


def exchange_kind(op: ir.Operation) -> str:
    """Return the kind of exchange that an op itself does or starts; "" if it does none."""
    name = op.name.rpartition(".")[2]
    if name == "send":
        handle = stablehlo.ChannelHandle(op.attributes["channel_handle"])
        return "collective_permute" if handle.channel_type == _TO_DEVICE else ""
    if name == "custom_call":
        if string(op, "call_target_name") == "ragged_all_to_all":
            return "ragged_all_to_all"
        kind, half = kind_of(op)
        return kind.removesuffix("_start") if half == "start" else ""
    return name if name in KINDS else ""


def start_behind(value: ir.Value) -> ir.Value:
    """Return what a done waits for, behind barriers."""
    while not isinstance(value, ir.BlockArgument):
        maker = value.owner.operation
        if maker.name != "stablehlo.optimization_barrier":
            break
        value = maker.operands[ir.OpResult(value).result_number]
    return value


@dataclass(frozen=True)
class StablehloExchangeReader:
    """Reads the exchanges of one module.

    Attributes:
        meshes: that groups may name.
        replicas, partitions: of the module.
    """

    meshes: Meshes
    replicas: int = 1
    partitions: int = 1

    @staticmethod
    def of_module(module: ir.Module, meshes: Meshes) -> "StablehloExchangeReader":
        """Return the reader of a module."""
        attributes = module.operation.attributes
        replicas, partitions = (
            ir.IntegerAttr(attributes[name]).value if name in attributes else 1
            for name in ("mhlo.num_replicas", "mhlo.num_partitions")
        )
        return StablehloExchangeReader(meshes, replicas, partitions)

    def of(self, op: ir.Operation) -> Collective | None:
        """Return the exchange that an op does or starts, several as one; None for none."""
        if kind := exchange_kind(op):
            return self._read(op, kind)
        if op.name == "stablehlo.async_start":
            return as_one([self._read(inner, exchange_kind(inner)) for inner in _inside(op)])
        return None

    def _read(self, op: ir.Operation, kind: str) -> Collective:
        operands, results = _types(op.operands), _types(op.results)
        counts = {"replicas": self.replicas, "partitions": self.partitions}
        if config := _said(op, CONFIG):
            return from_config(kind, config, operands, results, **counts)
        dims = tuple(integer(op, name) for name in _DIMS if name in op.attributes)
        facts = _exchange_attributes(op)
        channel = -1
        if "channel_handle" in facts:
            channel = stablehlo.ChannelHandle(facts["channel_handle"]).handle
        elif "channel_id" in facts:
            channel = ir.IntegerAttr(facts["channel_id"]).value
        groups = device_groups(
            kind, self._groups(facts), has_channel=channel > 0,
            is_global="use_global_device_ids" in facts, **counts,
        )  # fmt: skip
        fill = parse_fill(_said(op, FILL), expected_fill(kind, operands))
        return Collective(
            kind, groups, payload(kind, operands, results), channel, dims, fill,
            parse_skew(_said(op, SKEW)), domain=_said(op, DOMAIN),
        )  # fmt: skip

    def _groups(self, facts: _Attributes) -> tuple[tuple[int, ...], ...]:
        """Read who takes part, as a table of ids or as mesh axes."""
        for name in ("replica_groups", "source_target_pairs"):
            if name not in facts:
                continue
            attribute = facts[name]
            if isinstance(attribute, ir.DenseIntElementsAttr):
                columns = ir.ShapedType(attribute.type).shape[-1]
                flat = [int(x) for x in attribute]
                return tuple(
                    tuple(flat[i : i + columns]) for i in range(0, len(flat), max(columns, 1))
                )
            by_axes = stablehlo.ReplicaGroupMeshAxesAttr(attribute)
            axes, ids = self.meshes[str(by_axes.mesh).lstrip("@").strip('"')]
            return groups_from_mesh(axes, tuple(map(_axis, by_axes.axes)), ids)
        return ()


def _inside(op: ir.Operation) -> list[ir.Operation]:
    """Return the exchanges in the region of an `async_start`."""
    ops = [view.operation for view in op.regions[0].blocks[0].operations]
    return [inner for inner in ops if exchange_kind(inner)]


def _types(values: Sequence[ir.Value]) -> tuple[TensorType, ...]:
    return tuple(t for value in values if (t := tensor_type(value.type)) is not None)


def _exchange_attributes(op: ir.Operation) -> _Attributes:
    """Return the attributes that say who exchanges: a custom call has them in a dictionary."""
    if "backend_config" in op.attributes:
        config = op.attributes["backend_config"]
        if isinstance(config, ir.DictAttr):
            return config
    return op.attributes


def _said(op: ir.Operation, name: str) -> str:
    """Read a frontend attribute of an op; "" if it has none of that name."""
    if _FRONTEND not in op.attributes:
        return ""
    given = ir.DictAttr(op.attributes[_FRONTEND])
    return ir.StringAttr(given[name]).value if name in given else ""


def _axis(attribute: ir.Attribute) -> str:
    """Spell an axis as `groups_from_mesh` wants it."""
    axis = stablehlo.AxisRefAttr(attribute)
    sub = re.search(r"\((\d+)\)(\d+)", str(axis.sub_axis_info or ""))
    return f"{axis.name}:({sub[1]}){sub[2]}" if sub else axis.name
