"""The evaluation of Lancet's paper, again: ours, modelled, beside what the paper published.

    python -m scripts.bench_paper                 # compute what is missing, cell by cell
    python -m scripts.bench_paper --only 'gpt2_s_moe/switch/*:8x8/*'
    python -m scripts.bench_paper --list          # what there is, and what is missing
    python -m scripts.bench_paper --render        # docs/results.md and docs/figures from the cells

A cell takes 10 s to 5 min and a process of its own; it is put into `docs/results.json` when it is
done, so a run may be stopped at any time and goes on where it was. GPT2-S-MoE and GPT2-L-MoE with
two gates on p3dn (V100), p4de (A100) and H100 nodes, 8 to 64 GPUs, no GPU needed: each is compiled
by XLA for its own cluster with every pipeline, and its final schedule judged by
`lancet_jax.judge`, which is not the planner. Nothing is measured.
"""

import argparse
import fcntl
import json
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hlo_passes.files import write_atomically

SCHEMA = 1


def main() -> None:
    """Compute, list or render."""
    args = _arguments()
    if args.cell:
        from scripts.paper_cells import Cell, compute

        print(json.dumps(compute(Cell.of(args.cell), args.layers)))
        return
    if args.render:
        from scripts.paper_page import render

        render(load(args.results), Path(args.docs), args.layers)
        return
    run(args)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("docs/results.json"))
    parser.add_argument("--docs", default="docs", help="folder of the page and its figures")
    parser.add_argument("--only", default="*", help="globs of cells, with commas between them")
    parser.add_argument("--layers", type=int, help="instead of the models' own; kept apart")
    parser.add_argument("--again", action="store_true", help="cells that failed, too")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one cell")
    parser.add_argument("--list", action="store_true", help="show the cells, compute none")
    parser.add_argument("--render", action="store_true", help="write the page, compute nothing")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(args: Any) -> None:
    """Compute what is asked for and not there yet."""
    from scripts.paper_cells import all_cells

    globs = args.only.replace(",k=", ";k=").split(",")
    keys = [c.key for c in all_cells() if any(fnmatch(c.key, g.replace(";", ",")) for g in globs)]
    for number, key in enumerate(keys, 1):
        name = _name(key, args.layers)
        there = load(args.results)["cells"].get(name)
        if args.list:
            state = (
                "missing" if there is None else there.get("error") or f"{there['seconds']:.0f} s"
            )
            print(f"{name:58} {state}")
        elif there is None or ("error" in there and args.again):
            result = _in_process(key, args)
            save(args.results, name, result)
            said = result.get("error") or f"step {result['verdict']['step_us']:,.0f} us"
            print(f"[{number}/{len(keys)}] {name}: {said}, {result['seconds']:.0f} s", flush=True)


def _name(key: str, layers: int | None) -> str:
    return key if layers is None else f"{key}?layers={layers}"


def _in_process(key: str, args: Any) -> dict[str, Any]:
    """Compute one cell in a fresh process; what goes wrong there becomes its result."""
    command = [sys.executable, "-m", "scripts.bench_paper", "--cell", key]
    command += ["--layers", str(args.layers)] if args.layers else []
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {args.timeout:.0f} s", "seconds": args.timeout}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    reason = f"exit code {done.returncode}: {lines[-1][:300]}"
    return {"error": reason, "seconds": time.perf_counter() - started}


def load(path: Path) -> dict[str, Any]:
    """Return the results so far; none if there is no file."""
    if not path.is_file():
        return {"schema": SCHEMA, "cells": {}}
    data = json.loads(path.read_text())
    if data.get("schema") != SCHEMA:
        sys.exit(f"{path}: schema {data.get('schema')}, this script reads {SCHEMA}")
    return data


def save(path: Path, name: str, result: dict[str, Any]) -> None:
    """Add one cell, whole or not at all; another run that adds others waits.

    Args:
        path: the file of all cells.
        name: the cell's.
        result: what is kept of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = load(path)
        data["cells"][name] = result
        rows = [f"  {json.dumps(key)}: {json.dumps(_rounded(cell))}"
                for key, cell in sorted(data["cells"].items())]  # fmt: skip
        body = ",\n".join(rows)
        write_atomically(
            path, f'{{\n "schema": {SCHEMA},\n "cells": {{\n{body}\n }}\n}}\n'.encode()
        )


def _rounded(value: Any) -> Any:
    """Round times to a hundredth: the file is read by people, too."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
