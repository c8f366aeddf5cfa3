"""What the library knows of JAX's insides; first calls are in `_calls`, CUDA's compiler in `_cuda`.

Everything here rests on names that JAX does not promise. `tests/contract/` pins each of them, and
`self_test` says at run time whether they still hold; where they do not, plain `jax.jit` runs.

How a step is caught: the traced function runs under a user context (public, part of jit's cache
keys), and the one function through which every jit compiles is wrapped. So static and donated
arguments, nesting, grad, callbacks, the C++ fast path and the disk cache stay JAX's own. The
module that jit caches is copied before it is touched.
"""

import copy
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.extend.xla as jex
import numpy as np
from jax._src import compiler, distributed, xla_bridge
from jaxlib import _jax as jaxlib_client
from jaxlib.mlir import ir

from hlo_passes.ir.wire import fields
from lancet_jax import _calls
from lancet_jax.errors import UnsupportedError
from lancet_jax.step_module import copied, mark

logger = logging.getLogger("lancet_jax")


def nobody() -> None:
    """Let jit make the first call."""


@dataclass(frozen=True)
class Prepared:
    """What to compile instead of the module that jit handed over.

    Attributes:
        module: a module of our own.
        compiler_options: XLA options to add where the user did not set them.
        on_scheduled: called in turn with the serialized HloModuleProto after XLA has scheduled it,
            each with what the one before made of it; they return other bytes to go on with, or
            None. None at all where the backend has no such stage.
        on_finished: called with the executable once XLA is done.
        compile_with: called, instead of compiling this and no more, with a function that compiles
            what was prepared, for the same devices; returns the executable to go on with.
        first_call: called once it is compiled; returns what makes the executable's first call, if
            jit is not to.
    """

    module: ir.Module
    compiler_options: dict[str, str | bool | int]
    on_scheduled: tuple[Callable[[bytes], bytes | None], ...] = ()
    on_finished: Callable[[Any], None] = lambda executable: None
    compile_with: "Callable[[Compile], Any] | None" = None
    first_call: Callable[[], _calls.Judge | None] = nobody


type Compile = Callable[[Prepared], Any]
"""Compiles what was prepared, and returns the executable."""


@dataclass(frozen=True)
class Request:
    """What jit is about to compile.

    Attributes:
        module: what it lowered; not ours to edit.
        devices: which devices it is for.
        partition: has XLA partition the module and no more, and returns the HloModuleProto;
            raises `UnsupportedError` where it cannot.
    """

    module: ir.Module
    devices: tuple[Any, ...]
    partition: Callable[[], bytes]


class Rewriter(Protocol):
    """What is done to modules that are compiled under `rewriting`. Hashable, compared by value."""

    def prepare(self, request: Request) -> Prepared | None:
        """Return what to compile instead, or None to compile the module as it is."""
        ...


# ---------------------------------------------------------------------------- catching a compile


@functools.cache
def _user_context() -> Any:
    """The context whose value is the active rewriter; made on first use, not on import."""
    return jax.make_user_context(None)


@functools.cache
def install() -> None:
    """Wrap the function through which every jit compiles. Does nothing outside `rewriting`."""
    original = compiler.compile_or_get_cached
    _calls.install()

    @functools.wraps(original)
    def compile_or_get_cached(
        backend: Any, computation: ir.Module, devices: Any, options: Any, *args: Any, **kwargs: Any
    ) -> Any:
        rewriter = _user_context().value
        prepared = None
        if rewriter is not None:
            with _user_context()(None):
                run = functools.partial(_partition, backend, computation, options, *args, **kwargs)
                prepared = rewriter.prepare(Request(computation, tuple(devices.flat), run))
        if prepared is None:
            return original(backend, computation, devices, options, *args, **kwargs)

        def compile_it(prepared: Prepared) -> Any:
            stage, platform = jex.PipelineStage.POST_SCHEDULER, plugin_of(backend.platform)
            with _added(options, prepared.compiler_options), ExitStack() as calling:
                for callback in prepared.on_scheduled:
                    calling.enter_context(_calling(callback, stage, platform))
                executable = original(backend, prepared.module, devices, options, *args, **kwargs)
            prepared.on_finished(executable)
            return executable

        with _user_context()(None):
            compile_with = prepared.compile_with or (lambda compile_it: compile_it(prepared))
            executable = compile_with(compile_it)
        judge = prepared.first_call()
        if judge is not None:
            _calls.watch(computation, executable, judge)
        return executable

    compiler.compile_or_get_cached = compile_or_get_cached


@contextmanager
def rewriting(rewriter: Rewriter | None) -> Iterator[None]:
    """Let `rewriter`, or nobody, see every module that is compiled in this thread meanwhile."""
    install()
    with _user_context()(rewriter):
        yield


@contextmanager
def _added(options: Any, extra: dict[str, str | bool | int]) -> Iterator[None]:
    """Add XLA options to a `CompileOptions` for one compile, below those that the user set."""
    overrides = list(options.env_option_overrides)
    given = {name for name, _ in overrides}
    options.env_option_overrides = [
        *((name, value) for name, value in extra.items() if name not in given), *overrides,
    ]  # fmt: skip
    try:
        yield
    finally:
        options.env_option_overrides = overrides


_DUMP: dict[str, str | bool | int] = {
    "xla_dump_hlo_module_re": ".*",
    "xla_dump_hlo_pass_re": "^spmd-partitioning$",
    "xla_dump_hlo_as_proto": True,
}
"""XLA options that write down what the partitioner made."""


def _partition(
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
    salt = f"lancet-partition-{next(_names)}"
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
            with _calling(stop, stage, platform):
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
    return _partition(backend, module, options, (), jaxlib_client.DeviceList(tuple(devices)))


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


_names = iter(range(10**9))


@contextmanager
def _calling(
    callback: Callable[[bytes], bytes | None], stage: Any, platform: str
) -> Iterator[None]:
    """Let XLA call back at a stage of its pipeline for the time of one compile.

    XLA calls it for every module that the process compiles meanwhile, helpers and other threads'
    modules included: the callback has to recognise its own. Each registration has a name of its
    own, so that compiles in several threads do not clear each other's.
    """
    name = f"lancet-jax-{next(_names)}"
    jex.register_hlo_module_transformation(callback, name=name, stage=stage, platforms=platform)
    try:
        yield
    finally:
        jex.clear_hlo_module_transformation(name, stage=stage, platforms=platform)


# ---------------------------------------------------------------------------- lowered and compiled


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


# ---------------------------------------------------------------------------- other processes


def job_client() -> tuple[Any, int] | None:
    """Return the client of the job's coordination service, and this process's rank.

    None if `jax.distributed` was not initialized.
    """
    state = distributed.global_state
    return None if state.client is None else (state.client, state.process_id)


# ---------------------------------------------------------------------------- backends


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
