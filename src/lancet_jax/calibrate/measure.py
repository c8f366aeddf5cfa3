"""Measures kernels and exchanges in small batches, and keeps what is done in a table file."""

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import batched
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec.structs import replace

from hlo_passes.cost.table import CostTable, ExchangeTimes
from hlo_passes.errors import InputError
from hlo_passes.ir.types import TensorType
from lancet_jax.calibrate.clock import time_all
from lancet_jax.calibrate.exchanges import Probe
from lancet_jax.calibrate.kernels import Kernel
from lancet_jax.seams import programs

_BATCH = 16
"""Programs that are timed side by side; what an interruption loses at most."""

_EMPTY = """
func.func @main(%x: tensor<1xf32>) -> tensor<1xf32> {
  %y = stablehlo.add %x, %x : tensor<1xf32>
  return %y : tensor<1xf32>
}"""
"""What every program takes beside its work: a call from Python."""


@dataclass
class Measuring:
    """A table in the making.

    Attributes:
        path: the table's file; what it holds already is not measured again.
        target: what it holds for.
        rounds: samples of each program.
        table: what is known so far.
    """

    path: Path
    target: str
    rounds: int
    table: CostTable = field(init=False)

    def __post_init__(self) -> None:
        made = {name: version(name) for name in ("jax", "jaxlib")}
        made["device"] = jax.devices()[0].device_kind
        self.table = CostTable(
            source="measured", target=self.target, date=f"{datetime.date.today()}", versions=made,
            note="lancet-jax calibrate: medians of interleaved samples, one kernel at a time",
        )  # fmt: skip
        if self.path.exists():
            self._resume(CostTable.load(self.path))

    def _resume(self, old: CostTable) -> None:
        """Go on with a table that was made alike.

        Raises:
            InputError: if it was not.
        """
        for name, then, now in (
            ("source", old.source, self.table.source),
            ("target", old.target, self.table.target),
            ("versions", old.versions, self.table.versions),
        ):
            if then != now:
                raise InputError(str(self.path), f"its {name} is {then}, not {now}",
                                 "write to another file, or delete this one")  # fmt: skip
        self.table = replace(old, date=self.table.date)

    def missing(
        self, kernels: dict[str, Kernel], probes: Sequence[Probe]
    ) -> tuple[list[Kernel], list[Probe]]:
        """Return what is not in the table yet."""
        done = {(e.kind, e.group_size, size) for e in self.table.exchanges for size, _ in e.points}
        rest = [p for p in probes if (p.kind, p.group_size, p.bytes) not in done]
        return [k for name, k in kernels.items() if name not in self.table.kernels], rest

    def run(self, kernels: Sequence[Kernel], probes: Sequence[Probe]) -> Iterator[int]:
        """Measure, and yield how many programs are done after every batch; each is in the file.

        A kernel that does not compile alone is left to its formula, and noted.
        """
        done = 0
        for batch in batched(kernels, _BATCH):
            self._time_kernels(batch)
            done += len(batch)
            yield done
        for batch in batched(probes, _BATCH):
            self._time_exchanges(batch)
            done += len(batch)
            yield done

    def _time_kernels(self, batch: Sequence[Kernel]) -> None:
        ready, failed = [], []
        for kernel in batch:
            try:
                ready.append((kernel, runner(kernel.program, kernel.inputs)))
            except (jax.errors.JaxRuntimeError, TypeError, ValueError) as error:
                reason = str(error).splitlines()[0][:80]
                failed.append(f"{kernel.entry.kind} {kernel.entry.kernel}: {reason}")
        empty, *timings = time_all([empty_run(), *(run for _, run in ready)], self.rounds)
        entries = [
            replace(kernel.entry, us=_digits(t.us), spread=_digits(t.spread))
            for (kernel, _), t in zip(ready, (t.less(empty) for t in timings), strict=True)
        ]
        notes = [*self.table.note.splitlines(), *(f"not measured: {line}" for line in failed)]
        note = "\n".join(dict.fromkeys(notes))
        self._save(replace(self.table, ops=(*self.table.ops, *entries), note=note))

    def _time_exchanges(self, batch: Sequence[Probe]) -> None:
        timings = time_all([probe.program() for probe in batch], self.rounds)
        points = {(e.kind, e.group_size): list(e.points) for e in self.table.exchanges}
        for probe, t in zip(batch, timings, strict=True):
            point = (probe.bytes, _digits(t.us))
            points.setdefault((probe.kind, probe.group_size), []).append(point)
        exchanges = tuple(
            ExchangeTimes(kind=kind, group_size=size, points=rising(found))
            for (kind, size), found in sorted(points.items())
        )
        self._save(replace(self.table, exchanges=exchanges))

    def _save(self, table: CostTable) -> None:
        table.save(self.path)
        self.table = table


def rising(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Return points (bytes, us) by size, none faster than a smaller one.

    Where a larger payload was faster, which is noise, both take the mean of the two.
    """
    pools: list[tuple[float, list[int]]] = []
    for size, us in sorted(points):
        pools.append((us, [size]))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, high), (a, low) = pools.pop(), pools.pop()
            mean = (a * len(low) + b * len(high)) / (len(low) + len(high))
            pools.append((mean, low + high))
    return tuple((size, us) for us, sizes in pools for size in sizes)


def runner(program: str, inputs: Sequence[TensorType]) -> Callable[[], Any]:
    """Compile a program for the first device, with made-up arguments, and return how to run it."""
    run = programs.compile_segment(program)
    rng = np.random.default_rng(0)
    rows = max(
        (t.shape[0] for t in inputs if t.shape and t.dtype.startswith(("f", "b"))), default=1
    )
    device = jax.local_devices()[0]
    arrays = [jax.device_put(_made_up(t, rng, rows), device) for t in inputs]
    return lambda: run(arrays)


def empty_run() -> Callable[[], Any]:
    """Return how to run a program that does next to nothing."""
    return runner(_EMPTY, (TensorType((1,), "f32"),))


def _made_up(kind: TensorType, rng: np.random.Generator, rows: int) -> Any:
    """Return an array: small numbers, and for integers places of rows that there are."""
    dtype = _jax_dtype(kind.dtype)
    if kind.dtype.startswith(("i", "ui")):
        high = 2 if kind.dtype == "i1" else max(min(rows, 127), 1)
        return jnp.asarray(rng.integers(0, high, kind.shape), dtype)
    return jnp.asarray(rng.standard_normal(kind.shape) * 0.1, dtype)


def _jax_dtype(name: str) -> Any:
    """Translate StableHLO's name of an element type."""
    if name == "i1":
        return jnp.bool_
    match = re.fullmatch(r"(bf|f|ui|i|c)(\d+)", name)
    if match is None:
        return jnp.dtype(name.lower().replace("f8e", "float8_e"))
    words = {"bf": "bfloat", "f": "float", "ui": "uint", "i": "int", "c": "complex"}
    return jnp.dtype(f"{words[match[1]]}{match[2]}")


def _digits(value: float) -> float:
    """Keep four digits: more were never measured."""
    return float(f"{value:.4g}")
