"""Partition first: turns a step that XLA would partition into one that passes can cut.

Where MoE layers have shard_maps of their own, or none at all, the exchanges come from XLA's
partitioner, or stand in regions apart from the weight gradients that could hide them. So XLA
partitions a copy, and what it made is put back as one region of per-device ops. That is done only
for steps that have something to cut, and only if nothing is lost on the way back.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from hlo_passes.base import Pass
from hlo_passes.ir.stablehlo.blocks import exchanges_of, walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.partition.put_back import partitioned
from hlo_passes.partition.regions import is_one_region
from lancet_jax.errors import LancetError
from lancet_jax.seams import compiling, programs


@dataclass(frozen=True)
class StepToCut:
    """What the passes that cut a step work on.

    Attributes:
        module: the step as it was lowered, or partitioned.
        is_partitioned: whether it was partitioned first.
        notes: what was done, or why not.
        seconds: how long XLA partitioned, and how long it took to convert what it made.
    """

    module: Module
    is_partitioned: bool = False
    notes: tuple[str, ...] = ()
    seconds: tuple[float, float] = (0.0, 0.0)


def source_of(
    module: Module, passes: Sequence[Pass], devices: int, partition: Callable[[], bytes]
) -> StepToCut:
    """Return a step as the passes need it.

    Args:
        module: the step as it was lowered.
        passes: what will be run on it.
        devices: how many it is for.
        partition: has XLA partition the step, and returns the HloModuleProto.
    """
    if devices == 1 or not any(step.per_device for step in passes):
        return StepToCut(module)
    with module.ir.context:
        if is_one_region(module):
            return StepToCut(module)
    started = time.perf_counter()
    try:
        proto = partition()
        by_xla = time.perf_counter() - started
        if b"all-to-all" not in proto:
            return StepToCut(module, notes=("not partitioned first: it has no all-to-all to cut",))
        local = partitioned(module, proto)
    except LancetError as error:
        return StepToCut(module, notes=(f"not partitioned first: {error.what}; {error.remedy}",))
    by_us = time.perf_counter() - started - by_xla
    note = (
        f"partitioned first: {_count(local)} all-to-alls to cut"
        f" (XLA {by_xla:.1f} s, back to StableHLO {by_us:.1f} s)"
    )
    return StepToCut(local, True, (note,), (by_xla, by_us))


def _count(module: Module) -> int:
    return sum(len(exchanges_of(Body(block))) for _, block in walk_blocks(module.body))


@dataclass(frozen=True)
class _Partitioner:
    """Ends a compile with what XLA's partitioner made."""

    found: list[bytes] = field(default_factory=list, compare=False)

    def compile(self, request: compiling.Request, xla: compiling.Xla) -> Any:
        self.found.append(xla.partitioned())
        raise _Stopped


class _Stopped(Exception):
    """Nothing is left to compile."""


def partition_of(lowered: jax.stages.Lowered) -> bytes:
    """Have XLA partition a lowered step, and return the HloModuleProto.

    Raises:
        UnsupportedError: if it calls back to the host, or XLA does not get that far.
    """
    partitioner = _Partitioner()
    try:
        with compiling.rewriting(partitioner):
            programs.uncached(lowered).compile()
    except _Stopped:
        pass
    return partitioner.found[-1]
