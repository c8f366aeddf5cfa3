"""Lowered and compiled steps as JAX keeps them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import compiler
from jaxlib import _jax as jaxlib_client
from jaxlib.mlir import ir

from lancet_jax.seams.step_module import copied


def is_jitted(fun: Any) -> bool:
    """Whether `fun` is what `jax.jit` (or a wrapper with its silhouette, as `nnx.jit`) returns."""
    return callable(getattr(fun, "lower", None))


def jax_lowered(lowered: Any) -> jax.stages.Lowered:
    """Unwrap Flax's Lowered to JAX's."""
    return getattr(lowered, "lowered", lowered)


def module_of(lowered: jax.stages.Lowered) -> ir.Module:
    """Return jit's cached module. Never edit it."""
    return lowered._lowering._hlo


def devices_of(lowered: jax.stages.Lowered) -> tuple[Any, ...]:
    """Return the devices that a step was lowered for, compile-only ones included."""
    devices = lowered._lowering._device_list
    return tuple(devices) if devices is not None else tuple(jax.devices()[:1])


def uncached(lowered: jax.stages.Lowered) -> jax.stages.Lowered:
    """Return the same lowering as if it had never been compiled.

    A lowering keeps its executable, and JAX keeps one per module object besides; both may be those
    of a compile under other circumstances.
    """
    lowering = copy.copy(lowered._lowering)
    lowering._executable = None
    lowering._hlo = copied(lowering._hlo)
    fresh = copy.copy(lowered)
    fresh._lowering = lowering
    return fresh


def final_hlo(compiled: jax.stages.Compiled) -> str:
    """Return the HLO that will run, in the order in which it will run."""
    return hlo_of(compiled.runtime_executable())


def hlo_of(executable: Any) -> str:
    """Return the HLO of an executable as XLA's client knows it."""
    return "\n\n".join(module.to_string() for module in executable.hlo_modules())


def compile_segment(text: str) -> Callable[[Sequence[Any]], list[Any]]:
    """Compile StableHLO text of one function for the first local device.

    Returns:
        A function from that device's arrays to the results, which returns once they are there.
    """
    device = jax.local_devices()[0]
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    devices = jaxlib_client.DeviceList((device,))
    program = device.client.compile_and_load(text.encode(), devices, options)

    def run(arrays: Sequence[Any]) -> list[Any]:
        results = program.execute_sharded(list(arrays))
        made = [shards[0] for shards in results.disassemble_into_single_device_arrays()]
        return jax.block_until_ready(made)

    return run
