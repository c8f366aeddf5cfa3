"""GPU meshes without GPUs: compile a step for 8 or 64 GPUs on any machine, and read it back.

    mesh = lancet_jax.aot.target("h100:1x8").mesh(expert=8)
    args = ...                                    # jax.ShapeDtypeStruct with shardings on the mesh
    compiled = lancet_jax.jit(step).lower(*args).compile()
    print(compiled.report())

Nothing runs: XLA's CUDA compiler works from a description of the device. Costs are XLA's own where
it has them (Hopper and newer), and figures from `hlo_passes/cost/profiles` elsewhere.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from hlo_passes.cost.device import DeviceProfile
from hlo_passes.cost.target import Cluster as CostTarget
from hlo_passes.cost.target import parse_target
from lancet_jax.errors import OptionError, UnsupportedError
from lancet_jax.seams import cuda

_CUDA = {"major": 12, "minor": 8}
_DNN = {"major": 9, "minor": 10}


@dataclass(frozen=True)
class Target:
    """GPUs that exist for the compiler alone.

    Attributes:
        costs: profile and links of the target.
    """

    costs: CostTarget

    @property
    def name(self) -> str:
        """As a user writes it; see `target`."""
        return self.costs.name

    @cached_property
    def devices(self) -> tuple[Any, ...]:
        """Compile-only devices, node by node.

        Raises:
            UnsupportedError: if the CUDA plugin or ptxas is missing, naming the line that
                installs it.
        """
        require_compiler()
        topology = self.costs.topology
        description = topologies.get_topology_desc(
            platform="cuda",
            target_config=target_config(self.costs.profile),
            topology=f"1x{topology.nodes}x{topology.per_node}",
        )
        return tuple(description.devices)

    def mesh(self, **axes: int) -> Mesh:
        """Return a mesh of compile-only devices with the given axis names and sizes.

        Raises:
            OptionError: if the sizes do not multiply to the number of devices.
        """
        axes = axes or {"expert": len(self.devices)}
        count = math.prod(axes.values())
        if count != len(self.devices):
            raise OptionError(
                f"mesh {axes}", f"{count} devices of the {len(self.devices)} in {self.name}",
                f"choose sizes whose product is {len(self.devices)}",
            )  # fmt: skip
        grid = np.array(self.devices).reshape(tuple(axes.values()))
        return Mesh(grid, tuple(axes))


def target(name: str) -> Target:
    """Return the target `device:nodesxgpus` (`h100:1x8`, `a100:8x8`).

    Raises:
        OptionError: if the name is not one, or no GPU.
    """
    found = parse_target(name)
    if not found.profile.compute_capability:
        raise OptionError(f"target {name!r}", "is no GPU, so there is nothing to compile for",
                          "choose h100:1x8, say")  # fmt: skip
    return Target(found)


def require_compiler() -> None:
    """Make sure that XLA's CUDA compiler works here.

    Raises:
        UnsupportedError: naming what is missing and the line that installs it.
    """
    if not cuda.load_cuda_compiler():
        raise UnsupportedError(
            "lancet_jax.aot", "JAX's CUDA plugin is not installed",
            "pip install 'lancet-jax[demo]'   (no GPU is needed)",
        )  # fmt: skip
    if cuda.ptxas_directory() is None and not cuda.has_cuda_toolkit():
        raise UnsupportedError(
            "lancet_jax.aot", "XLA needs ptxas to compile for CUDA, and finds none",
            "pip install nvidia-cuda-nvcc-cu12",
        )  # fmt: skip


def target_config(profile: DeviceProfile) -> str:
    """Return XLA's `GpuTargetConfigProto` of a device, as text."""
    major, _, minor = profile.compute_capability.partition(".")
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": profile.shared_memory_per_core,
        "threads_per_core_limit": 2048,
        "core_count": profile.sm_count,
        "fpus_per_core": profile.fpus_per_core,
        "block_dim_limit_x": 2147483647,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(profile.hbm_bytes_per_s),
        "l2_cache_size": profile.l2_bytes,
        "clock_rate_ghz": profile.clock_ghz,
        "device_memory_size": profile.memory_bytes,
        "shared_memory_per_block_optin": profile.shared_memory_per_block_optin,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    info = " ".join(f"{name}: {value}" for name, value in fields.items())
    capability = f"cuda_compute_capability {{ major: {major} minor: {minor or 0} }}"
    return (
        f"gpu_device_info {{ {info} {capability} }}\n"
        f'platform_name: "CUDA"\n'
        f"dnn_version_info {{ {_version(_DNN)} }}\n"
        f"runtime_version {{ {_version(_CUDA)} }}\n"
        f'device_description_str: "{profile.device_kinds[0]}"'
    )


def _version(parts: dict[str, int]) -> str:
    return " ".join(f"{name}: {value}" for name, value in parts.items())
