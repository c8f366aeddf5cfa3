"""Runs a scheduled HLO module as it is: XLA adds kernels, memory and nothing else.

JAX compiles a placeholder with the module's arguments and results. Where XLA has scheduled the
placeholder, the module takes its place: no pass before that stage, fusion and scheduling included,
ever sees it. This file needs jax and jaxlib alone.
"""

import ctypes
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.extend.xla as jex
from jax.sharding import SingleDeviceSharding
from jaxlib import _hlo

from scripts.emulated_exchanges import DONE, START

_numbers = itertools.count()
_TENSOR = re.compile(r"(?:/\*[^*]*\*/)?\s*([a-z]\w*)\[([\d,]*)\]")
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "s32": "int32", "s64": "int64",
           "u32": "uint32", "u8": "uint8", "s8": "int8", "pred": "bool"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """Arguments and results of a module.

    Attributes:
        arguments, results: shapes and types, as (name of the type, sizes).
        donated: (result, argument) pairs that share memory.
    """

    arguments: tuple[tuple[str, tuple[int, ...]], ...]
    results: tuple[tuple[str, tuple[int, ...]], ...]
    donated: tuple[tuple[int, int], ...]


def signature_of(text: str) -> Signature:
    """Read a module's signature from its first line."""
    header = text[: text.index("\n")]
    layout = header[header.index("entry_computation_layout={") :]
    before, _, after = layout.partition("->")
    alias = header[: header.index("entry_computation_layout={")]
    pairs = re.findall(r"\{(\d*)\}: \((\d+), \{\}", alias)
    return Signature(
        _tensors(before.removeprefix("entry_computation_layout=")), _tensors(after),
        tuple((int(result or 0), int(argument)) for result, argument in pairs),
    )  # fmt: skip


def _tensors(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    found = _TENSOR.findall(text)
    return tuple((_DTYPES[t], tuple(int(n) for n in sizes.split(",") if n)) for t, sizes in found)


def compile_scheduled(text: str, device: Any, options: dict[str, Any] | None = None) -> Any:
    """Compile a scheduled module for one device, a compile-only one included.

    Args:
        text: the module, scheduled HLO.
        device: what to compile for.
        options: XLA options.

    Returns:
        A `jax.stages.Compiled` that takes the module's arguments one by one.

    Raises:
        RuntimeError: if XLA did not ask for the module.
    """
    module = _hlo.hlo_module_from_text(text)
    proto = module.as_serialized_hlo_module_proto()
    signature = signature_of(text)
    sharding = SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(s, t, sharding=sharding) for t, s in signature.arguments]
    results = [jax.ShapeDtypeStruct(s, t) for t, s in signature.results]

    name = f"lancet_placeholder_{next(_numbers)}_"

    def placeholder(*values: Any) -> Any:
        return jax.ffi.ffi_call(name, results, has_side_effect=True)(*values)

    placeholder.__name__ = module.name.removeprefix("jit_")
    donated = tuple(argument for _, argument in signature.donated)
    jitted = jax.jit(placeholder, donate_argnums=donated, keep_unused=True)
    with _instead(name, proto) as asked:
        compiled = jitted.lower(*arguments).compile(compiler_options=options or {})
    if not asked:
        raise RuntimeError("XLA did not ask for the scheduled module")
    return compiled


@contextmanager
def _instead(name: str, proto: bytes) -> Iterator[list[bool]]:
    """Hand a module to XLA in place of the placeholder that calls `name`, once that is scheduled.

    XLA asks for every module that the process compiles meanwhile, those of other threads included.
    """
    asked: list[bool] = []

    def replace(scheduled: bytes) -> bytes | None:
        if name.encode() not in scheduled:
            return None
        asked.append(True)
        return proto

    stage = jex.PipelineStage.POST_SCHEDULER
    jex.register_hlo_module_transformation(replace, name=name, stage=stage, platforms="cuda")
    try:
        yield asked
    finally:
        jex.clear_hlo_module_transformation(name, stage=stage, platforms="cuda")


class Links:
    """The library of emulated exchanges.

    Args:
        path: the shared library, made of `emulated_exchanges.cu`.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.lancet_set_scale.argtypes = [ctypes.c_double]
        self._library.lancet_starts.restype = ctypes.c_longlong
        for name in (START, DONE):
            handler = jax.ffi.pycapsule(getattr(self._library, name))
            jax.ffi.register_ffi_target(name, handler, platform="CUDA")

    def scale(self, value: float) -> None:
        """Multiply every exchange's time from now on; 0 leaves the copies."""
        self._library.lancet_set_scale(value)

    @property
    def starts(self) -> int:
        """Exchanges started so far."""
        return self._library.lancet_starts()


def fresh_arguments(text: str, device: Any, seed: int = 0) -> list[Any]:
    """Return arguments as of a fresh model: what parameters are is read off their names.

    Scales are one; biases, optimizer state and counters zero; embeddings normal of width 0.02;
    other matrices normal with the variance of 1 / rows; token ids even over the largest embedding.

    Args:
        text: the module, whose parameters carry the names that jit gave them.
        device: where they go.
        seed: of all draws.
    """
    names = parameter_names(text)
    signature = signature_of(text)
    rows = [s[0] for i, (_, s) in enumerate(signature.arguments) if "embedding" in names[i]]
    most = max(rows, default=2)

    def make() -> list[Any]:
        keys = jax.random.split(jax.random.key(seed), len(signature.arguments))
        return [
            _fresh(names[i], key, dtype, sizes, most)
            for i, (key, (dtype, sizes)) in enumerate(zip(keys, signature.arguments, strict=True))
        ]

    return jax.jit(make, out_shardings=SingleDeviceSharding(device))()


def parameter_names(text: str) -> dict[int, str]:
    """Return what jit called the entry's parameters, by number; "" for one without a name."""
    entry = text[text.index("\nENTRY ") :]
    found = re.findall(r" parameter\((\d+)\)(.*)", entry)
    return {int(n): (re.findall(r'op_name="([^"]*)"', rest) or [""])[0] for n, rest in found}


def _fresh(name: str, key: Any, dtype: str, sizes: tuple[int, ...], most: int) -> Any:
    if dtype.startswith(("int", "uint")):
        return jax.random.randint(key, sizes, 0, most if sizes else 1, dtype)
    if "scale" in name:
        return jax.numpy.ones(sizes, dtype)
    if "bias" in name or "opt_state" in name or len(sizes) < 2:
        return jax.numpy.zeros(sizes, dtype)
    width = 0.02 if "embedding" in name else sizes[-2] ** -0.5
    return (width * jax.random.normal(key, sizes)).astype(dtype)
