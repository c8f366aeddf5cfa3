"""What the library knows of JAX's insides; catching a compile.

Everything here rests on names that JAX does not promise. `tests/contract/` pins each of them, and
`self_test` says at run time whether they still hold; where they do not, plain `jax.jit` runs.

How a step is caught: the traced function runs under a user context (public, part of jit's cache
keys), and the one function through which every jit compiles is wrapped. So static and donated
arguments, nesting, grad, callbacks, the C++ fast path and the disk cache stay JAX's own. The
module that jit caches is copied before it is touched.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.extend.xla as jex
from jax._src import compiler
from jaxlib.mlir import ir

from lancet_jax.seams import calls
from lancet_jax.seams.backends import plugin_of
from lancet_jax.seams.callbacks import calling
from lancet_jax.seams.partitioning import partition


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
    first_call: Callable[[], calls.Judge | None] = nobody


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
        backend: Any, computation: ir.Module, devices: Any, options: Any, *args: Any, **kwargs: Any
    ) -> Any:
        rewriter = _user_context().value
        prepared = None
        if rewriter is not None:
            with _user_context()(None):
                run = functools.partial(partition, backend, computation, options, *args, **kwargs)
                prepared = rewriter.prepare(Request(computation, tuple(devices.flat), run))
        if prepared is None:
            return original(backend, computation, devices, options, *args, **kwargs)

        def compile_it(prepared: Prepared) -> Any:
            stage, platform = jex.PipelineStage.POST_SCHEDULER, plugin_of(backend.platform)
            with _added(options, prepared.compiler_options), ExitStack() as stack:
                for callback in prepared.on_scheduled:
                    stack.enter_context(calling(callback, stage, platform))
                executable = original(backend, prepared.module, devices, options, *args, **kwargs)
            prepared.on_finished(executable)
            return executable

        with _user_context()(None):
            compile_with = prepared.compile_with or (lambda compile_it: compile_it(prepared))
            executable = compile_with(compile_it)
        judge = prepared.first_call()
        if judge is not None:
            calls.watch(computation, executable, judge)
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
