"""Steps of `bench_race`: our models, and steps as other people write them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from lancet_jax.aot import Target
from scripts.gpu_steps import GpuStep, model_step


def _gpt2(layers: int, batch: int, **changes: Any) -> Callable[[Target], GpuStep]:
    def build(gpus: Target) -> GpuStep:
        more = {"gate": "switch", "dtype": "bfloat16", "batch_per_device": batch, **changes}
        return model_step("gpt2_s_moe", gpus, layers, **more)

    return build


def _written(module: str, name: str) -> Callable[[Target], GpuStep]:
    """Return a builder of a step that is none of our models."""

    def build(gpus: Target) -> GpuStep:
        from tests import auto_steps, steps

        known = {"steps": steps.CASES, "auto_steps": auto_steps.IDIOMS}[module]
        size = steps.Size(512, 1024, 1024, 4096, len(gpus.devices), 2, jnp.bfloat16)
        case = known[name](gpus.devices, size, abstract=True)
        return GpuStep(name, case.step, case.args, case.jit_kwargs)

    return build


STEPS: dict[str, Callable[[Target], GpuStep]] = {
    "gpt2-2-layers-batch-2": _gpt2(2, 2),
    "gpt2-2-layers-batch-16": _gpt2(2, 16),
    "gpt2-4-layers-batch-2": _gpt2(4, 2),
    "gpt2-4-layers-batch-16": _gpt2(4, 16),
    "gpt2-batch-prioritised": _gpt2(2, 16, gate="batch_prioritised"),
    "gpt2-dropless": _gpt2(2, 2, gate="top_k", dispatch="ragged", capacity_factor=None),
    "scatter": _written("steps", "scatter"),
    "gshard_einsum": _written("steps", "gshard_einsum"),
    "accumulation": _written("steps", "accumulation"),
    "auto_sharded": _written("auto_steps", "auto_sharded"),
    "nnx_layers": _written("auto_steps", "nnx_layers"),
    "linen": _written("auto_steps", "linen"),
}
"""Builders of steps by name: GPT2-S-MoE, steps as people write them, steps that XLA partitions."""
