"""Tries every seam of JAX and XLA that lancet-jax rests on, and says which hold here."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
from jaxlib.mlir import ir

from lancet_jax import aot
from lancet_jax.errors import LancetError
from lancet_jax.seams import backends, compiling, cuda
from lancet_jax.seams.calls import FirstResult, Program
from lancet_jax.seams.step_module import copied, mark
from lancet_jax.seams.xla_options import compile_only_options


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        name: what was looked at.
        ok: whether it works; None for plain information.
        detail: version or reason.
        remedy: the line that mends it, or "".
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class SelfTest:
    """A rewriter that changes nothing and remembers what it was asked."""

    name: str
    calls: list[str] = field(default_factory=list, compare=False)

    def compile(self, request: compiling.Request, xla: compiling.Xla) -> Any:
        """Compile a marked copy."""
        self.calls.append("compile")
        clone = copied(request.module)
        mark(clone, self.name)

        def on_scheduled(proto: bytes) -> None:
            if self.name.encode() in proto:
                self.calls.append("scheduled")

        options = compile_only_options(request.devices)
        made = xla.compile(clone, options, (on_scheduled,))
        if not backends.is_compile_only(request.devices[0]):
            xla.watch(made, self._judge)
        try:
            xla.scheduled(clone, self.name, options)
            self.calls.append("stopped")
        except (LancetError, jax.errors.JaxRuntimeError):
            pass  # what was not called is what the table says
        return made

    def _judge(
        self, program: Program, plain: Any, module: ir.Module, args: Sequence[Any]
    ) -> FirstResult:
        """Make a first call as jit would."""
        self.calls.append("first call")
        return FirstResult(program(args), program)


def examine() -> Iterator[Finding]:
    """Yield what `lancet-jax doctor` prints."""
    cuda.load_cuda_compiler()
    yield Finding("python", None, platform.python_version())
    for package in ("lancet-jax", "jax", "jaxlib", "flax", "optax"):
        yield _package(package)
    yield _seam("capture: jit compiles through our wrapper", "cpu", ("compile",))
    yield _seam("post-scheduler stage: cpu", "cpu", ("scheduled",))
    yield _seam("first call: a judge makes it", "cpu", ("first call",))
    plugin = cuda.cuda_plugin()
    if plugin is None:
        yield Finding("CUDA plugin", False, "not installed: no GPU meshes without GPUs",
                      "pip install 'lancet-jax[demo]'")  # fmt: skip
        return
    yield Finding("CUDA plugin", True, plugin.__name__)
    yield _ptxas()
    yield _seam(
        "post-scheduler stage: cuda, compile-only", "cuda", ("compile", "scheduled", "stopped")
    )


def _ptxas() -> Finding:
    if cuda.ptxas_directory() is not None:
        return Finding("ptxas", True, "nvcc wheel")
    if cuda.has_cuda_toolkit():
        return Finding("ptxas", True, "CUDA toolkit")
    return Finding("ptxas", False, "not found", "pip install nvidia-cuda-nvcc-cu12")


def _package(name: str) -> Finding:
    try:
        return Finding(name, None, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", "pip install 'lancet-jax[demo]'")


def _seam(name: str, platform_name: str, wanted: tuple[str, ...]) -> Finding:
    """Compile a tiny function through every hook and see which were reached."""
    probe = SelfTest(f"lancet-probe-{platform_name}-{len(name)}")
    try:
        _compile(platform_name)(probe)
    except LancetError as error:
        return Finding(name, False, error.what, error.remedy)
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}".splitlines()[0],
                       "use jax 0.12 or newer")  # fmt: skip
    missing = [step for step in wanted if step not in probe.calls]
    if missing:
        return Finding(name, False, f"not called: {', '.join(missing)}", "use jax 0.12 or newer")
    return Finding(name, True, "works")


def _compile(platform_name: str) -> Callable[[SelfTest], None]:
    def run(probe: SelfTest) -> None:
        if platform_name == "cpu":
            device = jax.devices("cpu")[0]
        else:
            device = aot.target("h100:1x1").devices[0]
        argument = jax.ShapeDtypeStruct(
            (8, 128), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device)
        )
        with compiling.rewriting(probe):
            compiled = jax.jit(lambda x: jnp.sin(x) @ x.T).lower(argument).compile()
        if platform_name == "cpu":
            compiled(jnp.ones(argument.shape, argument.dtype))

    return run
