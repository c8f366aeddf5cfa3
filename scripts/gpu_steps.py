"""Steps for GPUs that are not there: what the benchmarks compile, and how."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp

import lancet_jax
from lancet_jax import nn
from lancet_jax.aot import Target
from lancet_jax.stages import Compiled


@dataclass(frozen=True)
class GpuStep:
    """A train step and the shapes of its arguments on compile-only devices.

    Attributes:
        name: what tables call it.
        function: the step.
        arguments: `jax.ShapeDtypeStruct`s.
        jit_options: for `jax.jit`.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    jit_options: dict[str, Any] = field(default_factory=dict)

    def compile(
        self, pipeline: str, target: str | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Compiled, float]:
        """Compile with a pipeline, planned for a target; return it and the seconds it took.

        Args:
            pipeline: preset or passes.
            target: what to plan for; by default the devices of the arguments.
            options: XLA options.
        """
        wrapped = lancet_jax.jit(
            self.function, pipeline=pipeline, target=target, **self.jit_options
        )
        lowered = wrapped.lower(*self.arguments)
        started = time.perf_counter()
        compiled = lowered.compile(compiler_options=options or {})
        return compiled, time.perf_counter() - started


def model_step(model: str, gpus: Target, layers: int | None = None, **changes: Any) -> GpuStep:
    """Return the step of one of our models.

    Args:
        model: a preset's name.
        gpus: where its experts live, all of them.
        layers: instead of the model's own.
        **changes: of the model's configuration; `dtype` may be a name.
    """
    if "dtype" in changes:
        changes["dtype"] = jnp.dtype(changes["dtype"])
    config = nn.preset(model, **changes)
    config = replace(config, layers=layers) if layers else config
    mesh, optimizer = gpus.mesh(expert=len(gpus.devices)), nn.sgd_momentum()
    arguments = nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    train_step = nn.make_train_step(config, mesh, optimizer)
    return GpuStep(f"{model} {config.gate}", train_step, arguments, {"donate_argnums": 0})
