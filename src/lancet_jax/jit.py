"""`lancet_jax.jit`: the one line that a user changes."""

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import jax

from lancet_jax.compile.options import OPTIONS, Options, declared
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.rewriter import StepRewriter, is_disabled
from lancet_jax.errors import OptionError
from lancet_jax.seams import compiling, programs
from lancet_jax.stages import Lowered


@declared
def jit(fun: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Compile `fun` as `jax.jit` does, with its exchanges hidden behind its compute.

    The step gives the same outputs, bit for bit unless a pass of the pipeline says otherwise. One
    that XLA would partition is partitioned first where the pipeline cuts (`exchange`, `lancet`,
    `full`, `best`): XLA runs up to its partitioner once more.

    Args:
        fun: a function, or what `jax.jit` or `nnx.jit` made of one. Without it: a decorator.
        {options}
        **kwargs: passed on to `jax.jit`. Not allowed around a function that is jitted already.

    Returns:
        A function like that of `jax.jit`, whose `lower(...)` gives a `lancet_jax.Lowered`.

    Raises:
        OptionError: if an option makes no sense. Calling the step raises `PeerError` if another
            process would run another program, or does not come.
        InputError: if the table of costs cannot be read.
    """
    if fun is None:
        return functools.partial(jit, **kwargs)
    options = Options(**{name: value for name, value in kwargs.items() if name in OPTIONS})
    rest = {name: value for name, value in kwargs.items() if name not in OPTIONS}
    is_jitted = programs.is_jitted(fun)
    if is_jitted and rest:
        raise OptionError("lancet_jax.jit", f"{sorted(rest)} given for a jitted function",
                          "give them to the inner jit, or pass the plain function")  # fmt: skip
    return Step(fun if is_jitted else jax.jit(fun, **rest), StepRewriter(options))


_TRACED = (
    "called while JAX traces another function: it is compiled as a part of that, and planned and "
    "audited only if that one is wrapped itself"
)


class Step:
    """A function wrapped by `lancet_jax.jit`.

    Args:
        jitted: what `jax.jit` made of it.
        rewriter: what to do when it is compiled.
    """

    def __init__(self, jitted: Any, rewriter: StepRewriter) -> None:
        self._jitted = jitted
        self._rewriter = rewriter
        self._traced: tuple[Outcome, ...] = ()
        functools.update_wrapper(self, jitted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step, compiling it for new shapes."""
        if is_disabled():
            return self._jitted(*args, **kwargs)
        with compiling.rewriting(self._rewriter):
            results = self._jitted(*args, **kwargs)
        if not self._rewriter.outcomes and _is_traced(results):
            self._traced = (Outcome(notes=(_TRACED,)),)
        return results

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Lower for arguments or `jax.ShapeDtypeStruct`s, and plan."""
        if is_disabled():
            return Lowered(self._jitted.lower(*args, **kwargs), self._rewriter)
        with compiling.rewriting(self._rewriter):
            return Lowered(self._jitted.lower(*args, **kwargs), self._rewriter)

    @property
    def plain(self) -> Any:
        """The function as `jax.jit` made it, untouched."""
        return self._jitted

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of every compile that calling the step caused, oldest first.

        Helpers that JAX compiles on one device meanwhile are left out, unless there is nothing
        else. A step wrapped twice alike shares JAX's caches, and is compiled once.
        """
        found = tuple(self._rewriter.outcomes) or self._traced
        return tuple(o for o in found if o.devices > 1) or found

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._jitted, name)


def _is_traced(results: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(results))
