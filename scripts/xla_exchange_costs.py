"""Reads XLA's own times of exchanges out of its speed-of-light estimator, without a GPU.

    python scripts/xla_exchange_costs.py                    # h100:1x8, h200:1x8 and b200:1x8
    python scripts/xla_exchange_costs.py h100:1x8 --out DIR

For every kind of exchange, group size and payload a program of one exchange is compiled for GPUs
that exist for the compiler alone, and the time that XLA's scheduler reckons with is read from its
log. It has such times for Hopper and Blackwell inside one node only. The tables that
`hlo_passes/cost` ships are made by this script; nothing in them was measured.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hlo_passes.cost.table import CostTable, ExchangeTimes

if TYPE_CHECKING:
    from jax.sharding import Mesh
    from jax.stages import Lowered

TARGETS = ("h100:1x8", "h200:1x8", "b200:1x8")
KINDS = ("all_to_all", "all_reduce", "all_gather", "reduce_scatter")
GROUP_SIZES = (2, 4, 8)
SIZES = tuple(2**k for k in range(16, 30))
PROFILES = Path(__file__).parent.parent / "hlo_passes" / "cost" / "profiles"

_MARK = re.compile(r"^# (?P<kind>\w+) (?P<group>\d+) (?P<bytes>\d+)$")
_TIME = re.compile(r"Computed collective time for [\w.-]+: (?P<us>[\d.]+) us")
_LOGGING = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "TF_CPP_VMODULE": "sol_latency_estimator=10",
}

type Key = tuple[str, int, int]
"""Kind, group size, bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=TARGETS)
    parser.add_argument("--out", type=Path, default=PROFILES)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for target in arguments.targets:
        if arguments.compile:
            compile_all(target)
            continue
        table = table_of(target, run(target))
        path = arguments.out / f"exchange-{target.replace(':', '-')}.json"
        table.save(path)
        print(f"wrote {path}")
        print_all_to_all(table)


def run(target: str) -> dict[Key, float]:
    """Compile every program in a process of its own, whose log can be read, and return the us."""
    # XLA logs to the file descriptor, so the process has to be another one.
    command = [sys.executable, __file__, "--compile", target]
    done = subprocess.run(
        command, env=os.environ | _LOGGING, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"compiling for {target} failed:\n{done.stderr[-4000:]}")
    return dict(parse(done.stderr.splitlines()))


def parse(log: list[str]) -> Iterator[tuple[Key, float]]:
    """Yield the time of every program; exits if XLA gave it none, or several."""
    times: dict[Key, set[float]] = {}
    key: Key | None = None
    for line in log:
        if mark := _MARK.match(line):
            key = (mark["kind"], int(mark["group"]), int(mark["bytes"]))
            times[key] = set()
        elif key is not None and (time := _TIME.search(line)):
            times[key].add(float(time["us"]))
    for key, found in times.items():
        if len(found) != 1:
            sys.exit(f"{key}: XLA names {sorted(found)} us, not one time")
        yield key, found.pop()


def table_of(target: str, times: dict[Key, float]) -> CostTable:
    return CostTable(
        source="xla",
        target=target,
        date=datetime.date.today().isoformat(),
        versions={name: version(name) for name in ("jax", "jaxlib", "jax-cuda12-pjrt")},
        note="XLA's speed-of-light estimator, compiled without a GPU; not measured. bytes are "
        "those of one device's operand, of all_gather's result; bf16.",
        exchanges=tuple(
            ExchangeTimes(
                kind=kind,
                group_size=group,
                points=tuple((size, times[kind, group, size]) for size in SIZES),
            )
            for kind in KINDS
            for group in GROUP_SIZES
        ),
    )


def print_all_to_all(table: CostTable) -> None:
    for (kind, group, _), curve in table.curves.items():
        if kind == "all_to_all":
            points = "  ".join(f"{size / 2**20:g}: {us:.0f}" for size, us in curve.knots)
            print(f"  all-to-all of {group}, us by MiB: {points}")


def compile_all(target: str) -> None:
    """Compile one program per exchange, with a line in the log before each."""
    from lancet_jax import aot
    from lancet_jax.seams.xla_options import compile_only_options

    gpus = aot.target(target)
    options = compile_only_options(gpus.devices)
    for group in GROUP_SIZES:
        mesh = gpus.mesh(rest=len(gpus.devices) // group, group=group)
        for kind in KINDS:
            for size in SIZES:
                lowered = lower(kind, size, mesh)
                os.write(2, f"\n# {kind} {group} {size}\n".encode())
                lowered.compile(compiler_options=options)


def lower(kind: str, size: int, mesh: "Mesh") -> "Lowered":
    """Lower a program whose one exchange has a payload of `size` bytes on every device.

    Args:
        kind: of exchange, as `all_to_all`.
        size: bytes.
        mesh: with an axis `group`, over which the exchange goes, and one `rest`.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    exchange = {
        "all_to_all": lambda x: lax.all_to_all(x, "group", 0, 0, tiled=True),
        "all_reduce": lambda x: lax.psum(x, "group"),
        "all_gather": lambda x: lax.all_gather(x, "group", tiled=True),
        "reduce_scatter": lambda x: lax.psum_scatter(x, "group", tiled=True),
    }[kind]
    spec = P(("rest", "group"))
    elements = size // 2 // (mesh.shape["group"] if kind == "all_gather" else 1)
    # Something to do before and after, or XLA does not make the exchange asynchronous.
    step = jax.shard_map(
        lambda x: exchange(x * 2) * 3, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    shape = jax.ShapeDtypeStruct(
        (mesh.size * elements,), jnp.bfloat16, sharding=NamedSharding(mesh, spec)
    )
    return jax.jit(step).lower(shape)


if __name__ == "__main__":
    main()
