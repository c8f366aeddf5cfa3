"""What auditing a cut step costs: the first call without it, and what an audit adds.

    python -m scripts.audit_cost --steps scatter,remat,two_axes --models tiny --repeat 3

Runs on 8 virtual CPU devices. Seconds are those of all cores together, so that other work on the
machine does not count, and the least of all repeats.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

import lancet_jax
from lancet_jax import nn
from lancet_jax.audit.first_call import Audit
from tests.steps import CASES, Case

PIPELINE = "split-region{k=2},schedule-dw{strategy=greedy}"
COLUMNS = (
    "first call without",
    "audit",
    "of it compiling uncut",
    "of it copies, runs, comparing",
)


def main() -> None:
    """Measure, print a table for `docs/audit.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default="scatter,remat,two_axes", help="of tests/steps.py")
    parser.add_argument("--models", default="tiny", help="presets of lancet_jax.nn")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    makers = {name: CASES[name] for name in args.steps.split(",") if name}
    makers |= {name: model_maker(name) for name in args.models.split(",") if name}
    print(f"| step | outputs | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for name, make in makers.items():
        found = [measured(make) for _ in range(args.repeat)]
        best = [min(column) for column in zip(*(seconds for _, seconds in found), strict=True)]
        cells = " | ".join(f"{second:.2f} s" for second in best)
        print(f"| {name} | {found[0][0]} | {cells} |", flush=True)


def model_maker(preset: str) -> Callable[[Sequence[Any]], Case]:
    """Return what makes a train step of a preset, and its arguments."""

    def make(devices: Sequence[Any]) -> Case:
        config = dataclasses.replace(nn.preset(preset), dispatch="scatter")
        mesh, optimizer = jax.make_mesh((len(devices),), ("expert",)), nn.sgd_momentum()
        state = nn.init_state(config, mesh, optimizer, 0)
        tokens = next(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh)))
        return Case(nn.make_train_step(config, mesh, optimizer), (state, tokens),
                    {"donate_argnums": 0})  # fmt: skip

    return make


def measured(make: Callable[[Sequence[Any]], Case]) -> tuple[int, tuple[float, ...]]:
    """Return how many outputs a step has, and the seconds of every column."""
    without, _ = first_call(make, audit=False)
    spent: dict[str, float] = {}
    with clocked("__call__", spent), clocked("_compiled", spent):
        _, step = first_call(make)
    (note,) = [note for note in step.outcomes[-1].notes if "audited" in note]
    assert " of " in note, note
    total, compiling = spent["__call__"], spent["_compiled"]
    return int(note.split(" of ")[1].split()[0]), (without, total, compiling, total - compiling)


def first_call(make: Callable[[Sequence[Any]], Case], **options: Any) -> tuple[float, Any]:
    """Wrap a step and call it once; return the seconds, and what was called."""
    case = make(jax.devices())
    step = lancet_jax.jit(case.step, pipeline=PIPELINE, **case.jit_kwargs, **options)
    started = time.process_time()
    jax.block_until_ready(step(*case.args))
    return time.process_time() - started, step


@contextmanager
def clocked(name: str, spent: dict[str, float]) -> Generator[None]:
    """Note how many seconds a method of `Audit` takes."""
    method = getattr(Audit, name)

    def clocked_method(*args: Any) -> Any:
        started = time.process_time()
        try:
            return method(*args)
        finally:
            spent[name] = time.process_time() - started

    setattr(Audit, name, clocked_method)
    try:
        yield
    finally:
        setattr(Audit, name, method)


if __name__ == "__main__":
    main()
