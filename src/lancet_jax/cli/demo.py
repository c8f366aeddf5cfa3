"""`lancet-jax demo`: a Flax MoE step trained on 8 virtual CPU devices, and compiled for 8 H100."""

import json as jsonlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import jax
from cyclopts import Parameter
from rich.console import Console

from hlo_passes.files import write_atomically
from lancet_jax import aot
from lancet_jax.cli.files import print_json, stdout, working
from lancet_jax.cli.options import Json
from lancet_jax.equivalence import Verification, verify
from lancet_jax.errors import LancetWarning, UnsupportedError
from lancet_jax.jit import jit
from lancet_jax.report.text import show

_DEVICES = 8


def demo(
    *,
    steps: int = 30,
    target: str = "h100:1x8",
    layers: int = 4,
    text: Path | None = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("lancet-demo"),
    json: Json = False,
) -> int:
    """Train a small Flax MoE model on real text, check every bit, and compile GPT2-S-MoE for GPUs.

    No GPU is needed: the model trains on 8 virtual CPU devices, and XLA's CUDA compiler works from
    a description of the GPUs.

    Parameters
    ----------
    steps
        Training steps on the CPU.
    target
        GPUs to compile for.
    layers
        Layers of the GPT2-S-MoE that is compiled for them; the paper has 12.
    text
        Text to train on; by default Python's own language reference.
    output
        Folder for report.txt, report.json and plan.json.
    json
        Print JSON instead of tables.
    """
    _check_extras()
    _use_virtual_devices()
    warnings.simplefilter("ignore", LancetWarning)
    console = Console(quiet=True) if json else stdout()
    losses, checked = _train(steps, target, text, console)
    with working(f"compiling GPT2-S-MoE, {layers} layers, for {target}"):
        compiled = _compile(target, layers)
        report = compiled.report()
    console.print()
    show(report, console)
    _save(output, report, compiled.plan)
    console.print(f"wrote {output}/report.txt, report.json, plan.json", style="dim")
    fell = losses[-1] < losses[0]
    if json:
        print_json({"losses": losses, "bit_identical": bool(checked), "report": report.to_dict()})
    return 0 if fell and checked else 1


def _check_extras() -> None:
    """Raise unless Flax and optax are installed.

    Raises:
        UnsupportedError: with the line that installs them.
    """
    missing = [name for name in ("flax", "optax") if find_spec(name) is None]
    if missing:
        raise UnsupportedError("lancet-jax demo", f"{' and '.join(missing)} not installed",
                               "pip install 'lancet-jax[demo]'")  # fmt: skip


def _use_virtual_devices() -> None:
    """Run on CPU, with as many devices as the demo needs; this process is ours to configure."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", _DEVICES)


def _train(
    steps: int, target: str, text: Path | None, console: Console
) -> tuple[list[float], Verification]:
    """Train the tiny model under `lancet_jax.jit`; compare one step with plain jit, bit for bit."""
    from lancet_jax import nn

    config = nn.preset("tiny")
    mesh = jax.make_mesh((_DEVICES,), ("expert",))
    optimizer = nn.adamw(3e-3)
    step = jit(nn.make_train_step(config, mesh, optimizer), target=target, donate_argnums=0)
    tokens = nn.read_text(text) if text else nn.sample_text()
    batches = nn.batches(tokens, *nn.batch_shape(config, mesh))
    state = nn.init_state(config, mesh, optimizer)
    console.print(f"training a {config.layers}-layer MoE, 16 experts, on {_DEVICES} virtual CPU "
                  f"devices; order planned for {target}", style="bold")  # fmt: skip
    with working("comparing with plain jit"):
        checked = verify(step, state, next(batches))
    losses = []
    for i in range(steps):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics.loss))
        if i in (0, steps - 1) or (i + 1) % 10 == 0:
            console.print(f"  step {i + 1:>3}  loss {losses[-1]:.3f}")
    same = sum(leaf.is_identical for leaf in checked.leaves)
    console.print(f"  {same} of {len(checked.leaves)} outputs of a step bit-identical to plain "
                  f"jax.jit, {checked.moved} ops moved")  # fmt: skip
    return losses, checked


def _compile(target: str, layers: int) -> Any:
    """Compile a GPT2-S-MoE train step for compile-only GPUs."""
    from lancet_jax import nn

    gpus = aot.target(target)
    mesh = gpus.mesh(expert=len(gpus.devices))
    config = replace(nn.preset("gpt2_s_moe"), layers=layers, dtype="bfloat16")
    optimizer = nn.sgd_momentum()
    step = jit(nn.make_train_step(config, mesh, optimizer), donate_argnums=0)
    return step.lower(
        nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    ).compile()


def _save(folder: Path, report: Any, plan: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(report, plan):
        write_atomically(folder / name, content)


def _files(report: Any, plan: Any) -> Iterator[tuple[str, bytes]]:
    yield "report.txt", str(report).encode()
    yield "report.json", jsonlib.dumps(report.to_dict(), indent=1).encode()
    if plan is not None:
        yield "plan.json", plan.to_json()
