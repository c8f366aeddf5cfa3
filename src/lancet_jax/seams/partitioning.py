"""Has XLA partition a module and no more."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend.xla as jex
import numpy as np
from jax._src import compiler, xla_bridge
from jaxlib import _jax as jaxlib_client
from jaxlib.mlir import ir

from hlo_passes.ir.hlo.wire import fields
from lancet_jax.errors import UnsupportedError
from lancet_jax.seams.backends import has_post_scheduler, plugin_of
from lancet_jax.seams.callbacks import calling, names
from lancet_jax.seams.step_module import copied, mark

_DUMP: dict[str, str | bool | int] = {
    "xla_dump_hlo_module_re": ".*",
    "xla_dump_hlo_pass_re": "^spmd-partitioning$",
    "xla_dump_hlo_as_proto": True,
}
"""XLA options that write down what the partitioner made."""


def partition(
    backend: Any, module: ir.Module, options: Any, callbacks: Any, devices: Any, *_: Any
) -> bytes:
    """Let XLA compile a copy of a module until it is about to fuse, and read what was partitioned.

    XLA has no such request. It does dump what a pass left, and a callback before scheduling that
    raises ends the compile there.

    Raises:
        UnsupportedError: if the module calls back to the host, or XLA does not get that far.
    """
    if callbacks:
        raise UnsupportedError("lancet_jax.jit", "it calls back to the host", "leave it out")
    if not has_post_scheduler(backend.platform):
        raise UnsupportedError("lancet_jax.jit", f"XLA does not stop on {backend.platform}",
                               "use CUDA or CPU devices")  # fmt: skip
    salt = f"lancet-partition-{next(names)}"
    copy_of_it = copied(module)
    mark(copy_of_it, salt)

    def stop(proto: bytes) -> None:
        if salt.encode() in proto:
            raise RuntimeError(f"{salt}: far enough")

    given = list(options.env_option_overrides)
    stage, platform = jex.PipelineStage.PRE_SCHEDULER, plugin_of(backend.platform)
    with tempfile.TemporaryDirectory(prefix="lancet-jax-") as folder:
        asked = _DUMP | {"xla_dump_to": folder}
        if platform != "cpu":
            asked["xla_gpu_autotune_level"] = 0
        options.env_option_overrides = [*(o for o in given if o[0] not in asked), *asked.items()]
        try:
            with calling([stop], stage, platform):
                compiler.backend_compile_and_load(backend, copy_of_it, devices, options, ())
        except jax.errors.JaxRuntimeError as error:
            if salt not in str(error):
                reason = str(error).splitlines()[0]
                raise UnsupportedError("lancet_jax.jit", f"XLA fails: {reason}",
                                       "see what plain jax.jit says") from None  # fmt: skip
        finally:
            options.env_option_overrides = given
        found = sorted(Path(folder).glob("*after_spmd-partitioning*.hlo.pb"))
        if len(found) != 1:
            raise UnsupportedError("lancet_jax.jit", "XLA does not partition it", "give it a mesh")
        data = found[0].read_bytes()
    return next(v for number, _, v, *_ in fields(data) if number == 1 and isinstance(v, bytes))


def partition_module(
    module: ir.Module, devices: Sequence[Any], given: Sequence[bool], made: Sequence[bool]
) -> bytes:
    """Have XLA partition a module that no jit lowered, and return the HloModuleProto.

    Args:
        module: the module; it is copied.
        devices: who runs it, in the order of its partitions.
        given, made: which arguments and results it spreads itself; XLA chooses for the others.

    Raises:
        UnsupportedError: if XLA does not get that far.
    """
    backend = xla_bridge.get_device_backend(devices[0])
    options = compiler.get_compile_options(
        num_replicas=1, num_partitions=len(devices),
        device_assignment=np.array(devices, dtype=object).reshape(1, -1), backend=backend,
    )  # fmt: skip
    build = options.executable_build_options
    build.allow_spmd_sharding_propagation_to_parameters = [not is_spread for is_spread in given]
    build.allow_spmd_sharding_propagation_to_output = [not is_spread for is_spread in made]
    return partition(backend, module, options, (), jaxlib_client.DeviceList(tuple(devices)))
