"""What a backend can do, and which devices and processes there are."""

from typing import Any

import jax
import jax.extend.xla as jex
from jax._src import distributed, xla_bridge
from jaxlib import _jax as jaxlib_client

from lancet_jax.errors import UnsupportedError


def plugin_of(platform: str) -> str:
    """Translate a device's platform to the plugin's name: `gpu` devices are run by `cuda`."""
    if platform != "gpu":
        return platform
    return "rocm" if "rocm" in xla_bridge._backend_factories else "cuda"


def has_post_scheduler(platform: str) -> bool:
    """Whether XLA calls back after scheduling on a platform (`cpu`, `gpu`)."""
    return hasattr(jex, "PipelineStage") and plugin_of(platform) in ("cpu", "cuda")


def is_compile_only(device: Any) -> bool:
    """Whether a device exists for the compiler alone."""
    return isinstance(device.client, jaxlib_client.CompileOnlyPyClient)


def cpu_devices(count: int) -> tuple[Any, ...]:
    """Return virtual CPU devices of this process, as many as asked for.

    Raises:
        UnsupportedError: if JAX runs already, with fewer.
    """
    if not xla_bridge.backends_are_initialized():
        jax.config.update("jax_num_cpu_devices", count)
    found = jax.local_devices(backend="cpu")
    if len(found) < count:
        raise UnsupportedError(
            "jax", f"{count} devices are needed to partition it, and this process has {len(found)}",
            f"set JAX_NUM_CPU_DEVICES={count}, or pip install 'lancet-jax[demo]' for GPU targets",
        )  # fmt: skip
    return tuple(found[:count])


def job_client() -> tuple[Any, int] | None:
    """Return the client of the job's coordination service, and this process's rank.

    None if `jax.distributed` was not initialized.
    """
    state = distributed.global_state
    return None if state.client is None else (state.client, state.process_id)
