"""How a step is caught while jit compiles it.

Everything in `seams` rests on names that JAX does not promise. `tests/contract/` pins each of them,
and `lancet-jax doctor` says whether they hold here; where they do not, plain `jax.jit` runs.

The traced function runs under a user context (public, part of jit's cache keys), and the one
function through which every jit compiles is wrapped. So static and donated arguments, nesting,
grad, callbacks, the C++ fast path and the disk cache stay JAX's own. The module that jit caches is
copied before it is touched.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.extend.xla as jex
from jax._src import compiler
from jaxlib.mlir import ir

from lancet_jax.errors import UnsupportedError
from lancet_jax.seams import calls
from lancet_jax.seams.backends import has_post_scheduler, plugin_of
from lancet_jax.seams.callbacks import calling
from lancet_jax.seams.partitioning import partition

type XlaOptions = Mapping[str, str | bool | int]
"""XLA's own options by name, as `compiler_options` of JAX takes them."""

type OnScheduled = Callable[[bytes], bytes | None]
"""Is given a serialized HloModuleProto that XLA has scheduled, of whatever module; returns other
bytes to go on with, or None.
"""


@dataclass(frozen=True)
class Request:
    """What jit is about to compile.

    Attributes:
        module: what it lowered; not ours to edit.
        devices: which devices it is for.
    """

    module: ir.Module
    devices: tuple[Any, ...]


@dataclass(frozen=True)
class Xla:
    """XLA, as jit called it: for the devices of one request, with the options that the user set.

    Attributes:
        request: what jit asked for.
    """

    request: Request
    _compile: Callable[..., Any] = field(repr=False)
    _backend: Any = field(repr=False)
    _options: Any = field(repr=False)
    _callbacks: Sequence[Any] = field(repr=False)
    _devices: Any = field(repr=False)

    @property
    def given(self) -> tuple[str, ...]:
        """The XLA options that the user set, by `compiler_options` or environment."""
        overrides = (f"{name}={value}" for name, value in self._options.env_option_overrides)
        return (*sorted(overrides), os.environ.get("XLA_FLAGS", ""))

    def compile(
        self,
        module: ir.Module | None = None,
        options: XlaOptions | None = None,
        on_scheduled: Sequence[OnScheduled] = (),
    ) -> Any:
        """Return an executable, out of JAX's persistent cache if it is there.

        Args:
            module: a module of ours; None for what jit lowered.
            options: XLA options to add where the user did not set them.
            on_scheduled: called in turn once XLA has scheduled the module, each with what the one
                before made of it. None at all where the backend has no such stage.
        """
        stage, platform = jex.PipelineStage.POST_SCHEDULER, plugin_of(self._backend.platform)
        held = calling(on_scheduled, stage, platform) if on_scheduled else nullcontext()
        with _added(self._options, options or {}), held:
            return self._compile(self.request.module if module is None else module)

    def scheduled(self, module: ir.Module, salt: str, options: XlaOptions | None = None) -> bytes:
        """Let XLA compile a module until it is scheduled, and return the HloModuleProto.

        XLA has no such request: a callback that raises ends the compile there, which is after
        about 60% of it. May run in several threads at once.

        Args:
            module: a module of ours, marked with `salt`.
            salt: tells the module from others that XLA compiles meanwhile.
            options: XLA options to add where the user did not set them.

        Raises:
            UnsupportedError: if the backend does not call back once it has scheduled.
            JaxRuntimeError: if XLA cannot compile it.
        """
        platform, found = self._backend.platform, []

        def stop(proto: bytes) -> None:
            if salt.encode() in proto:
                found.append(proto)
                raise RuntimeError(f"{salt}: far enough")

        if not has_post_scheduler(platform):
            raise UnsupportedError("XLA", f"does not stop on {platform}", "use CUDA or CPU devices")
        own = type(self._options).ParseFromString(self._options.SerializeAsString())
        with (
            _added(own, options or {}),
            calling([stop], jex.PipelineStage.POST_SCHEDULER, plugin_of(platform)),
        ):
            try:
                compiler.backend_compile_and_load(
                    self._backend, module, self._devices, own, self._callbacks
                )
            except jax.errors.JaxRuntimeError:
                if not found:
                    raise
        if not found:
            raise UnsupportedError("XLA", f"does not call back on {platform}", "report this")
        return found[0]

    def partitioned(self) -> bytes:
        """Have XLA partition what jit lowered, and no more; return the HloModuleProto.

        Raises:
            UnsupportedError: if the module calls back to the host, or XLA does not get that far.
        """
        module, given = self.request.module, (self._callbacks, self._devices)
        return partition(self._backend, module, self._options, *given)

    def watch(self, executable: Any, judge: calls.Judge) -> None:
        """Let `judge` make the first call of an executable that jit is about to be given."""
        calls.watch(self.request.module, executable, judge)


class Rewriter(Protocol):
    """What is done to modules that are compiled under `rewriting`. Hashable, compared by value."""

    def compile(self, request: Request, xla: Xla) -> Any:
        """Return the executable that jit goes on with."""
        ...


@functools.cache
def _user_context() -> Any:
    """The context whose value is the active rewriter; made on first use, not on import."""
    return jax.make_user_context(None)


@functools.cache
def install() -> None:
    """Wrap the function through which every jit compiles. Does nothing outside `rewriting`."""
    original = compiler.compile_or_get_cached
    calls.install()

    @functools.wraps(original)
    def compile_or_get_cached(
        backend: Any, computation: ir.Module, devices: Any, options: Any, callbacks: Any,
        executable_devices: Any, *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        rest = (devices, options, callbacks, executable_devices, *args)
        rewriter = _user_context().value
        if rewriter is None:
            return original(backend, computation, *rest, **kwargs)
        request = Request(computation, tuple(devices.flat))

        def compile_it(module: ir.Module) -> Any:
            return original(backend, module, *rest, **kwargs)

        xla = Xla(request, compile_it, backend, options, callbacks, executable_devices)
        with _user_context()(None):
            return rewriter.compile(request, xla)

    compiler.compile_or_get_cached = compile_or_get_cached


@contextmanager
def rewriting(rewriter: Rewriter | None) -> Iterator[None]:
    """Let `rewriter`, or nobody, see every module that is compiled in this thread meanwhile."""
    install()
    with _user_context()(rewriter):
        yield


@contextmanager
def _added(options: Any, extra: XlaOptions) -> Iterator[None]:
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
