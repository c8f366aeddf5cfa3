"""What planning costs: seconds and memory against the number of ops, beside XLA's own compile.

    python scripts/bench_planner.py --layers 12,24,48 --json planner.json

The steps are compiled for 8 x H100 without any; seconds are of this machine, each the median of
`--repeats` runs of the planner on the schedule that XLA handed over.
"""

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

import lancet_jax
from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.verify import verify_reordering
from lancet_jax import nn


def main() -> None:
    """Compile, plan again under the clock, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="12,24,48")
    parser.add_argument("--model", default="gpt2_s_moe")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    rows = []
    columns = ("layers", "ops", "plan s", "ms/op", "MiB", "all s", "XLA s", "share")
    print("".join(f"{name:>9}" for name in columns))
    for layers in map(int, args.layers.split(",")):
        print(f"{layers} layers ...", file=sys.stderr, flush=True)
        row = measure(args.model, layers, args.repeats)
        rows.append(row)
        cells = (
            f"{layers}", f"{row['ops']:,}", f"{row['plan_s']:.2f}",
            f"{1e3 * row['plan_s'] / row['ops']:.2f}", f"{row['plan_mib']:.0f}",
            f"{row['python_s']:.2f}", f"{row['xla_s']:.1f}",
            f"{row['python_s'] / row['xla_s']:.1%}",
        )  # fmt: skip
        print("".join(f"{cell:>9}" for cell in cells), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


def measure(model: str, layers: int, repeats: int) -> dict[str, Any]:
    """Return seconds and MiB of planning one step, and XLA's own seconds.

    Args:
        model: name of a preset.
        layers: how many it is to have.
        repeats: how often to plan; the median counts.
    """
    mesh = lancet_jax.aot.target("h100:1x8").mesh(expert=8)
    config = replace(nn.preset(model), layers=layers, dtype=jnp.bfloat16)
    optimizer = nn.sgd_momentum()
    step = lancet_jax.jit(nn.make_train_step(config, mesh, optimizer), donate_argnums=0)
    lowered = step.lower(
        nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    )
    started = time.perf_counter()
    compiled = lowered.compile()
    total = time.perf_counter() - started
    python = compiled.outcome.seconds
    text = compiled.as_text()
    seconds = statistics.median(plan(text)[0] for _ in range(repeats))
    tracemalloc.start()
    _, ops = plan(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"layers": layers, "ops": ops, "plan_s": seconds, "plan_mib": peak / 2**20,
            "python_s": python, "xla_s": total - python}  # fmt: skip


def plan(text: str) -> tuple[float, int]:
    """Read, plan, verify and edit a scheduled module; return seconds and its number of ops."""
    started = time.perf_counter()
    module = ScheduledModule(text, devices=8)
    graph = module.snapshot()
    reorder = ReorderScheduled()
    costs = TargetCosts(parse_target("h100:1x8"))
    decided = reorder.plan(graph, Context(costs=costs, fingerprint=module.fingerprint))
    verify_reordering(graph, decided.orders)
    reorder.apply(module, decided)
    return time.perf_counter() - started, graph.size


if __name__ == "__main__":
    main()
