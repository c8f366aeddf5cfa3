"""The first call of a compiled step, where it can be held against the same step compiled otherwise.

jit calls an executable through a `MeshExecutable`, and from the second call on through C++, which
takes over what stands there once the first call is done. So the first call is where two programs
can run on the same arguments, and where one can take the other's place for good. Like `_jax`, this
knows JAX's insides, and `tests/contract/` pins them.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import jax
from jax._src.interpreters import pxla
from jaxlib.mlir import ir

from lancet_jax.seams.step_module import copied


@dataclass(frozen=True)
class Program:
    """A compiled step as jit calls it.

    Attributes:
        made: what jit keeps of it.
        run: runs it, on all arguments that jit hands over.
    """

    made: pxla.MeshExecutable
    run: Callable[..., Any]

    @property
    def executable(self) -> Any:
        """XLA's executable."""
        return self.made.xla_executable

    @property
    def effect(self) -> str:
        """What it does besides giving results, as far as JAX knows; "" for nothing."""
        unloaded = self.made._unloaded_executable
        if unloaded.host_callbacks or unloaded.ordered_effects or unloaded.unordered_effects:
            return "it calls back to the host"
        return "it writes to references" if unloaded.mut is not None else ""

    def __call__(self, args: Sequence[Any]) -> list[Any]:
        """Return the results, once they are there."""
        return jax.block_until_ready(self.run(*args))

    def spared(self, args: Sequence[Any], donated: frozenset[int]) -> list[Any]:
        """Return arguments that may be donated, so that the given ones survive.

        Args:
            args: all that jit hands over.
            donated: places of the donated ones among the arguments of the module.
        """
        kept = sorted(self.made._kept_var_idx)
        places = {kept[place] for place in donated}
        return [_copied(x) if i in places else x for i, x in enumerate(args)]


@dataclass(frozen=True)
class FirstResult:
    """What came of a first call.

    Attributes:
        results: what the call returns.
        program: what runs from now on.
    """

    results: list[Any]
    program: Program


type Judge = Callable[[Program, Callable[[], Program], ir.Module, Sequence[Any]], FirstResult]
"""Makes the first call: is given the program, what makes jit compile the step's own module under
the same options, that module, and the arguments.
"""


@dataclass
class _Watched:
    """An executable whose first call is not like the others.

    Attributes:
        executable: XLA's.
        judge: makes that call; None once it is made.
        instead: what runs since then, if it is another program.
    """

    executable: Any
    judge: Judge | None
    instead: Program | None = None
    lock: Any = field(default_factory=threading.RLock)


@functools.cache
def _watched() -> "WeakKeyDictionary[ir.Module, list[_Watched]]":
    """Executables by the modules that jit lowered; jit keeps both for the same time."""
    return WeakKeyDictionary()


def watch(module: ir.Module, executable: Any, judge: Judge) -> None:
    """Let `judge` make the first call of what was compiled for `module`.

    Args:
        module: what jit lowered. The judge must not hold it, or it is never freed.
        executable: what jit is about to keep.
        judge: called once, unless it raises.
    """
    _watched().setdefault(module, []).append(_Watched(executable, judge))


@functools.cache
def install() -> None:
    """Wrap the function in which jit makes what it calls. Does nothing to what nobody watches."""
    original = pxla.UnloadedMeshExecutable.from_hlo

    @functools.wraps(original)
    def from_hlo(name: str, hlo: ir.Module, *args: Any, **kwargs: Any) -> pxla.MeshExecutable:
        made = original(name, hlo, *args, **kwargs)
        for watched in _watched().get(hlo, ()):
            if watched.executable is made.xla_executable:
                whole = functools.partial(_compiled, original, name, hlo, *args, **kwargs)
                made._unsafe_call = _first_call(made, watched, whole, hlo)
        return made

    pxla.UnloadedMeshExecutable.from_hlo = staticmethod(from_hlo)


def _compiled(
    from_hlo: Callable[..., Any], name: str, hlo: ir.Module, *args: Any, **kwargs: Any
) -> Program:
    """Compile a copy of jit's module, so that JAX does not find what it compiled for this one."""
    return _program(from_hlo(name, copied(hlo), *args, **kwargs))


def _program(made: pxla.MeshExecutable) -> Program:
    return Program(made, made.build_unsafe_call())


class _FirstCall(pxla.ExecuteReplicated):
    """What jit calls once; it looks like any other call, so that C++ takes over behind it."""

    call: Callable[[Sequence[Any]], Any]

    def __call__(self, *args: Any) -> Any:
        return self.call(args)


def _first_call(
    made: pxla.MeshExecutable, watched: _Watched, whole: Callable[[], Program], module: ir.Module
) -> _FirstCall:
    """Return what judges, and then puts what is kept in its own place."""
    program = _program(made)

    def call(args: Sequence[Any]) -> Any:
        with watched.lock:
            if watched.judge is None:
                _replace(made, watched.instead or program)
                return made.unsafe_call(*args)
            verdict = watched.judge(program, whole, module, args)
            watched.judge = None
            watched.instead = verdict.program if verdict.program is not program else None
            _replace(made, verdict.program)
            return verdict.results

    first = _FirstCall.__new__(_FirstCall)
    for slot in pxla.ExecuteReplicated.__slots__:
        if not slot.startswith("__"):
            setattr(first, slot, getattr(program.run, slot))
    first.call = call
    return first


def _replace(made: pxla.MeshExecutable, program: Program) -> None:
    """Let what jit keeps be `program` from now on."""
    if program.made is not made:
        for slot in pxla.MeshExecutable.__slots__:
            setattr(made, slot, getattr(program.made, slot))
    made._unsafe_call = program.run


def _copied(x: Any) -> Any:
    """Copy an array where it lies; anything else is copied on its way to the devices."""
    if not isinstance(x, jax.Array):
        return x
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            _copied(jax.random.key_data(x)), impl=jax.random.key_impl(x)
        )
    shards = [shard.data for shard in x.addressable_shards]
    parts = [jax.device_put(part, part.sharding, may_alias=False) for part in shards]
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)
