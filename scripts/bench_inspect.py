"""What `lancet-jax inspect` costs: seconds and memory against the number of instructions.

    python scripts/bench_inspect.py --ops 1000,10000,100000 --json inspect.json

The modules are scheduled HLO text of made-up MoE training steps: layers of matrix products with a
dispatch and a combine, a backward pass with dX and dW products and all-to-alls, gradient sums and
updates. Every size runs in a process of its own; seconds are of this machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_T, _W = "bf16[4096,1024]", "bf16[1024,1024]"
_PER_LAYER = 72
"""Instructions of one made-up layer, both directions."""


def main() -> None:
    """Make modules, inspect them, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops", default="1000,10000,100000")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one))))
        return
    rows = []
    print("".join(f"{n:>11}" for n in ("ops", "exchanges", "MiB text", "read s", "inspect s",
                                       "all s", "CPU s", "peak MiB")))  # fmt: skip
    for count in map(int, args.ops.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "step.txt"
            path.write_text(make_module(count))
            started = time.perf_counter()
            done = subprocess.run([sys.executable, __file__, "--one", str(path)],
                                  check=True, capture_output=True, text=True,
                                  env={**os.environ, "JAX_PLATFORMS": "cpu"})  # fmt: skip
            row = json.loads(done.stdout.splitlines()[-1])
            row["all_s"] = time.perf_counter() - started
            row["text_mib"] = path.stat().st_size / 2**20
        rows.append(row)
        print(f"{row['ops']:>11,}{row['exchanges']:>11,}{row['text_mib']:>11.1f}"
              f"{row['read_s']:>11.2f}{row['inspect_s']:>11.2f}{row['all_s']:>11.2f}"
              f"{row['cpu_s']:>11.2f}{row['peak_mib']:>11.0f}", flush=True)  # fmt: skip
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


def measure(path: Path) -> dict[str, Any]:
    """Inspect one file in this process."""
    from lancet_jax.cli.app import spare_garbage_collection
    from lancet_jax.cli.files import open_source
    from lancet_jax.report.inspection import inspection_of

    spare_garbage_collection()
    started = time.perf_counter()
    source = open_source(path, None)
    read = time.perf_counter() - started
    started = time.perf_counter()
    found = inspection_of(source.name, source.simulator)
    return {
        "ops": found.ops, "exchanges": len(found.exchanges), "read_s": read,
        "inspect_s": time.perf_counter() - started, "cpu_s": time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }  # fmt: skip


def make_module(count: int) -> str:
    """Return scheduled HLO text of about `count` instructions."""
    layers = max(1, count // _PER_LAYER)
    lines = [*_forward(layers), *_backward(layers)]
    body = "\n".join(f"  {line}" for line in lines)
    return (f"HloModule jit_step, is_scheduled=true, num_partitions=8\n\n"
            f"ENTRY %main (x: {_T}) -> {_T} {{\n{body}\n}}\n")  # fmt: skip


def _op(name: str, shape: str, kind: str, operands: str, scope: str, more: str = "") -> str:
    return f'%{name} = {shape}{{1,0}} {kind}({operands}){more}, metadata={{op_name="{scope}"}}'


def _dot(name: str, out: str, a: str, b: str, scope: str) -> str:
    dims = ", lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    return _op(name, out, "dot", f"%{a}, %{b}", f"{scope}/dot_general", dims)


def _exchange(name: str, operand: str, scope: str, kind: str = "all-to-all") -> Iterator[str]:
    more = ", channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}"
    more = more if kind == "all-to-all" else ", channel_id=2, replica_groups=[1,8]<=[8]"
    shape = _T if kind == "all-to-all" else _W
    yield (f"%{name}-start = (({shape}{{1,0}}), {shape}{{1,0}}) {kind}-start(%{operand}){more}, "
           f'metadata={{op_name="{scope}/exchange"}}')  # fmt: skip
    yield _op(f"{name}-done", shape, f"{kind}-done", f"%{name}-start", scope)


def _forward(layers: int) -> Iterator[str]:
    yield f"%x.0 = {_T}{{1,0}} parameter(0)"
    for i in range(layers):
        for j in range(4):
            yield f"%w.{i}.{j} = {_W}{{1,0}} parameter({1 + 4 * i + j})"
        scope = f"jit(step)/jvp(layer_{i})/moe"
        yield _dot(f"a.{i}", _T, f"x.{i}", f"w.{i}.0", scope)
        yield from _pointwise(f"fa.{i}", f"a.{i}", 8, scope)
        yield from _exchange(f"out.{i}", f"fa.{i}.7", scope)
        yield _dot(f"b.{i}", _T, f"out.{i}-done", f"w.{i}.1", scope)
        yield from _pointwise(f"fb.{i}", f"b.{i}", 8, scope)
        yield _dot(f"c.{i}", _T, f"fb.{i}.7", f"w.{i}.2", scope)
        yield from _exchange(f"home.{i}", f"c.{i}", scope)
        yield _op(f"x.{i + 1}", _T, "add", f"%home.{i}-done, %x.{i}", f"{scope}/add")


def _backward(layers: int) -> Iterator[str]:
    yield _op(f"g.{layers}", _T, "multiply", f"%x.{layers}, %x.{layers}", "jit(step)/loss/mul")
    for i in reversed(range(layers)):
        scope = f"jit(step)/transpose(jvp(layer_{i}))/moe"
        yield from _exchange(f"bhome.{i}", f"g.{i + 1}", scope)
        for name, grad, saved, weight in (
            (f"c.{i}", f"bhome.{i}-done", f"fb.{i}.7", f"w.{i}.2"),
            (f"b.{i}", f"fdc.{i}.7", f"out.{i}-done", f"w.{i}.1"),
        ):
            yield _dot(f"d{name}", _T, grad, weight, scope)
            yield _dot(f"w{name}", _W, grad, saved, scope)
            yield from _pointwise(f"fd{name}", f"d{name}", 8, scope)
        yield from _exchange(f"bout.{i}", f"fdb.{i}.7", scope)
        yield _dot(f"da.{i}", _T, f"bout.{i}-done", f"w.{i}.0", scope)
        yield _dot(f"wa.{i}", _W, f"bout.{i}-done", f"x.{i}", scope)
        yield _op(f"g.{i}", _T, "add", f"%da.{i}, %g.{i + 1}", f"{scope}/add")
        for j, name in enumerate((f"wa.{i}", f"wb.{i}", f"wc.{i}")):
            if j == 0:
                yield from _exchange(f"sum.{i}", name, "jit(step)/psum", "all-reduce")
            name = f"sum.{i}-done" if j == 0 else name
            yield _op(f"u.{i}.{j}", _W, "subtract", f"%w.{i}.{j}, %{name}", "jit(step)/sgd/sub")
    tail = ", ".join(f"%u.{i}.{j}" for i in range(layers) for j in range(3))
    shapes = ", ".join([_W] * 3 * layers)
    yield f"ROOT %out = ({shapes}) tuple({tail})"


def _pointwise(name: str, operand: str, count: int, scope: str) -> Iterator[str]:
    for j in range(count):
        yield _op(f"{name}.{j}", _T, "add", f"%{operand}, %{operand}", f"{scope}/add")
        operand = f"{name}.{j}"


if __name__ == "__main__":
    main()
