"""Where XLA's CUDA compiler is, with a GPU and without. Like `_jax`, it knows JAX's insides.

JAX's CUDA plugin can compile with no GPU and no driver. JAX itself leaves it out there.
"""

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from jax._src import config, hardware_utils, xla_bridge
from jax._src.lib import xla_client

_PLUGINS = ("xla_cuda13", "xla_cuda12")


def cuda_plugin() -> ModuleType | None:
    """Return the installed CUDA plugin package, or None."""
    for name in _PLUGINS:
        if importlib.util.find_spec(f"jax_plugins.{name}") is not None:
            return importlib.import_module(f"jax_plugins.{name}")
    return None


def load_cuda_compiler() -> bool:
    """Make the CUDA plugin's compiler known to JAX, on machines without a GPU as well.

    JAX leaves the plugin out where cuDNN is missing, which no compile-only work needs. Nothing
    else changes: the default backend stays what it was.

    Returns:
        Whether `jax.experimental.topologies` can now make CUDA topologies.
    """
    plugin = cuda_plugin()
    if plugin is None:
        return False
    with _quiet("jax._src.xla_bridge"), _platforms_if_unset("cpu"):
        xla_bridge._discover_and_register_pjrt_plugins()
    if "cuda" not in xla_bridge._topology_factories:
        xla_bridge.register_plugin(
            "cuda",
            priority=-1,
            library_path=str(plugin._get_library_path()),
            options=xla_client.generate_pjrt_gpu_plugin_options(),
        )
    return "cuda" in xla_bridge._topology_factories


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep one logger silent: a missing cuDNN is no news to a machine without a GPU."""
    log = logging.getLogger(name)
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


@contextmanager
def _platforms_if_unset(value: str) -> Iterator[None]:
    """Skip the plugin's check for GPU libraries, unless the user chose platforms or has a GPU."""
    chosen = config.jax_platforms.value or xla_bridge.backends_are_initialized()
    if chosen or hardware_utils.has_visible_nvidia_gpu():
        yield
        return
    with config.jax_platforms(value):
        yield


def ptxas_directory() -> Path | None:
    """Return the directory of the nvcc wheel, whose ptxas XLA needs; None if not installed."""
    for package, part in (("nvidia.cuda_nvcc", ""), ("nvidia.cu13", "")):
        spec = _find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(place) / part / "bin" / "ptxas").exists():
                return Path(place) / part
    return None


def has_cuda_toolkit() -> bool:
    """Whether a CUDA toolkit with ptxas is where XLA looks for one by itself."""
    return Path("/usr/local/cuda/bin/ptxas").exists()


def _find_spec(package: str) -> Any:
    try:
        return importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
