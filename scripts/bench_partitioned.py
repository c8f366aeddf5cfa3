"""Steps that XLA partitions, cut all the same: exposed all-to-all, and what it costs to compile.

    python -m scripts.bench_partitioned --compile h100:8x8 --steps auto_sharded,linen

Every step of `tests/auto_steps.py` is compiled for GPUs that are not there, once as XLA alone does
(`off`) and once per pipeline. The final schedule is read back; times are XLA's own costs, and
nothing is measured but seconds of compiling: `XLA` without us, `first` for XLA to partition a copy,
`back` to convert and check what it made.
"""

import argparse
import json
import sys
import time
from typing import Any

import jax.numpy as jnp

import lancet_jax
from tests.auto_steps import IDIOMS
from tests.steps import Size


def main() -> None:
    """Compile, read back, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", default="h100:8x8")
    parser.add_argument("--steps", default="auto_sharded,linen")
    parser.add_argument("--pipelines", default="off;dw;best")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--model", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    gpus = lancet_jax.aot.target(args.compile)
    size = Size(args.batch, args.seq, args.model, args.hidden, args.experts, args.layers,
                jnp.bfloat16)  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name in args.steps.split(","):
        case = IDIOMS[name](gpus.devices, size, abstract=True)
        for pipeline in args.pipelines.split(";"):
            print(f"{name} {pipeline} ...", file=sys.stderr, flush=True)
            rows.append({"step": name, "pipeline": pipeline} | compiled(case, pipeline))
    show(rows)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"compiled": args.compile, "rows": rows}, file, indent=1)


def compiled(case: Any, pipeline: str) -> dict[str, Any]:
    """Compile a step with a pipeline and read its schedule back."""
    step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs)
    lowered = step.lower(*case.args)
    started = time.perf_counter()
    result = lowered.compile()
    seconds = time.perf_counter() - started
    outcome, timeline = result.outcome, result.schedule()
    first, back = outcome.partition_seconds
    cut = ", ".join(f"{split.along} k={split.k}" for plan in outcome.cuts for split in plan.splits)
    return {
        "step_us": timeline.makespan_us,
        "exchange_us": timeline.exchange_us,
        "exposed_us": timeline.exposed_all_to_all_us,
        "cut": cut,
        "xla_s": seconds - outcome.seconds,
        "first_s": first,
        "back_s": back,
        "notes": list(outcome.notes),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    print("| step | pipeline | step us | exchanges us | exposed all-to-all us | XLA s | first s |"
          " back s | cut |")  # fmt: skip
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        print(f"| {row['step']} | {row['pipeline']} | {row['step_us']:,.0f} |"
              f" {row['exchange_us']:,.0f} | {row['exposed_us']:,.0f} | {row['xla_s']:.1f} |"
              f" {row['first_s']:.1f} | {row['back_s']:.1f} | {row['cut'] or '-'} |")  # fmt: skip
    for row in rows:
        for note in row["notes"]:
            print(f"{row['step']} {row['pipeline']}: {note}")


if __name__ == "__main__":
    main()
