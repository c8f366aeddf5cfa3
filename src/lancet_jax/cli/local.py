"""Partitions a module file first, where a pass that cuts it needs the ops of one device."""

import math
import re
from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.base import AnyModule, Pass
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import Target
from hlo_passes.ir.module import Module
from lancet_jax import _jax, aot
from lancet_jax.errors import UnsupportedError
from lancet_jax.partition import Source, source_of

_MESH = re.compile(r"sdy\.mesh @\S+ = <\[(.*?)\]")


def local_source(module: AnyModule, passes: Sequence[Pass], costs: TargetCosts) -> Source | None:
    """Return a module file as the passes need it, as `lancet_jax.jit` does; None for HLO.

    XLA partitions for GPUs that are not there if the target is one and XLA's CUDA compiler is
    installed, else for virtual CPU devices.

    Args:
        module: what the file holds.
        passes: what will be run on it.
        costs: prices for the target.
    """
    if not isinstance(module, Module):
        return None
    devices = module.devices
    if devices == 1 and any(step.per_device for step in passes):
        spread = max(map(_size_of, _MESH.findall(module.text())), default=1)
        if spread > 1:
            note = (
                f"not partitioned first: it has a mesh of {spread} devices, and does not say how"
                " many run it (mhlo.num_partitions); dump it whole: lower(...).as_text()"
            )
            return Source(module, notes=(note,))
    return source_of(module, passes, devices, lambda: _partition(module, costs.target, devices))


def _size_of(axes: str) -> int:
    """Read the size of a mesh from its axes, `"data"=2, "ep"=4`."""
    return math.prod(int(size) for size in re.findall(r"=\s*(\d+)", axes))


def _partition(module: Module, target: Target, count: int) -> bytes:
    """Have XLA partition a module, and return the HloModuleProto.

    Raises:
        UnsupportedError: if there are no devices for it, or XLA does not get that far.
    """
    with module.ir.context:
        main = module.main.owner
        given = _has_shardings(main, "arg_attrs", len(main.regions[0].blocks[0].arguments))
        made = _has_shardings(main, "res_attrs", len(ir.FunctionType(
            ir.TypeAttr(main.attributes["function_type"]).value).results))  # fmt: skip
        return _jax.partition_module(module.ir, _devices(target, count), given, made)


def _has_shardings(main: ir.Operation, name: str, count: int) -> list[bool]:
    """Say which arguments or results of a function the module spreads itself."""
    if name not in main.attributes:
        return [False] * count
    facts = map(ir.DictAttr, ir.ArrayAttr(main.attributes[name]))
    return ["sdy.sharding" in said or "mhlo.sharding" in said for said in facts]


def _devices(target: Target, count: int) -> tuple[object, ...]:
    """Return devices to partition for: the target's kind if XLA can compile for it, else CPUs."""
    if target.profile.compute_capability:
        try:
            aot.require_compiler()
        except UnsupportedError:
            pass  # CPU devices do as well
        else:
            nodes = -(-count // 8)
            return aot.target(f"{target.profile.name}:{nodes}x{-(-count // nodes)}").devices[:count]
    return _jax.cpu_devices(count)
