"""Which module files are what one device runs, and how to partition those that are not yet."""

import math
import re
from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.base import AnyModule, Pass
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import Cluster
from hlo_passes.errors import InputError
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.partition.regions import is_one_region
from lancet_jax import aot
from lancet_jax.compile.partition import StepToCut, source_of
from lancet_jax.errors import UnsupportedError
from lancet_jax.seams import backends, partitioning

_MESH = re.compile(r"sdy\.mesh @\S+ = <\[(.*?)\]")
_MARK = re.compile(r"Sharding|SPMD(?:FullToShard|ShardToFull)Shape|xla\.sdy\.\w+")
_ENTERS = "xla.sdy.GlobalToLocalShape"
"""Target of the call that hands local pieces to a computation of local ops."""


def local_source(module: AnyModule, passes: Sequence[Pass], costs: TargetCosts) -> StepToCut | None:
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
        spread = _spread(module)
        if spread > 1:
            note = (
                f"not partitioned first: it has a mesh of {spread} devices, and does not say how"
                " many run it (mhlo.num_partitions); dump it whole: lower(...).as_text()"
            )
            return StepToCut(module, notes=(note,))
    return source_of(module, passes, devices, lambda: _partition(module, costs.target, devices))


def require_partitioned(module: AnyModule, graph: Graph) -> None:
    """Raise unless a module's ops are those that one device runs.

    Raises:
        InputError: if XLA has yet to partition it: then it has exchanges that nobody can see.
    """
    is_partitioned = (
        _is_local(module, graph) if isinstance(module, Module)
        else graph.scheduled or graph.devices == 1 or not _is_marked(graph)
        or not _is_heavy(graph)
    )  # fmt: skip
    if not is_partitioned:
        raise InputError(
            module.path, "XLA has yet to partition it: its exchanges are not there to be checked",
            "check what was compiled: lower(...).compile().as_text(), or the dump after"
            " optimizations",
        )  # fmt: skip


def _is_local(module: Module, graph: Graph) -> bool:
    """Whether StableHLO has nothing left to partition: all that is work is in one local region."""
    attributes = module.ir.operation.attributes
    name = "mhlo.num_partitions"
    count = ir.IntegerAttr(attributes[name]).value if name in attributes else _spread(module)
    with module.ir.context:
        is_done = module.body == module.main and _talks(graph)
        return count == 1 or is_done or is_one_region(module)


def _talks(graph: Graph) -> bool:
    """Whether there is an exchange outside regions of local ops, as the partitioner makes them."""
    return any(
        op.collective is not None or any(map(_talks, op.inner))
        for op in graph.ops if op.kind != "manual_computation"
    )  # fmt: skip


def _is_marked(graph: Graph) -> bool:
    """Whether HLO has marks that the partitioner takes away."""
    return any(_MARK.fullmatch(op.target) for inside, _ in graph.walk() for op in inside.ops)


def _is_heavy(graph: Graph) -> bool:
    """Whether HLO has matrix products outside computations of local ops, which it calls."""
    return any(
        op.matmul or any(map(_is_heavy, op.inner)) for op in graph.ops if not _is_entered(op, graph)
    )


def _is_entered(op: Op, graph: Graph) -> bool:
    """Whether an op calls a computation of local ops."""
    makers = [graph.ops[graph.values[v].op] for v in op.operands if graph.values[v].op >= 0]
    makers += [graph.ops[graph.values[v].op] for m in makers if m.kind == "get_tuple_element"
               for v in m.operands]  # fmt: skip
    return op.kind == "call" and any(maker.target == _ENTERS for maker in makers)


def _spread(module: Module) -> int:
    """Return the devices of the largest mesh in a module; 1 if it has none."""
    return max(map(_size_of, _MESH.findall(module.text())), default=1)


def _size_of(axes: str) -> int:
    """Read the size of a mesh from its axes, `"data"=2, "ep"=4`."""
    return math.prod(int(size) for size in re.findall(r"=\s*(\d+)", axes))


def _partition(module: Module, target: Cluster, count: int) -> bytes:
    """Have XLA partition a module, and return the HloModuleProto.

    Raises:
        UnsupportedError: if there are no devices for it, or XLA does not get that far.
    """
    with module.ir.context:
        main = module.main.owner
        given = _has_shardings(main, "arg_attrs", len(main.regions[0].blocks[0].arguments))
        made = _has_shardings(main, "res_attrs", len(ir.FunctionType(
            ir.TypeAttr(main.attributes["function_type"]).value).results))  # fmt: skip
        return partitioning.partition_module(module.ir, _devices(target, count), given, made)


def _has_shardings(main: ir.Operation, name: str, count: int) -> list[bool]:
    """Say which arguments or results of a function the module spreads itself."""
    if name not in main.attributes:
        return [False] * count
    facts = map(ir.DictAttr, ir.ArrayAttr(main.attributes[name]))
    return ["sdy.sharding" in said or "mhlo.sharding" in said for said in facts]


def _devices(target: Cluster, count: int) -> tuple[object, ...]:
    """Return devices to partition for: the target's kind if XLA can compile for it, else CPUs."""
    if target.profile.compute_capability:
        try:
            aot.require_compiler()
        except UnsupportedError:
            pass  # CPU devices do as well
        else:
            nodes = -(-count // 8)
            return aot.target(f"{target.profile.name}:{nodes}x{-(-count // nodes)}").devices[:count]
    return backends.cpu_devices(count)
