"""All five pipelines on one step, compiled for GPUs that are not there, and judged on networks.

    python -m scripts.bench_splitting --models gpt2_s_moe --gates switch --json splitting.json
    python -m scripts.bench_splitting --models gpt2_s_moe --layers 4 --dispatch one_hot

Every step is compiled for `--compile` once per pipeline and network in `--judge`, planned for it,
the number of parts included (`k=2`; `-` where the plan is to leave the step uncut):
the final schedule is read back, its compute priced by XLA's own cost model (products of 16-bit
numbers with 32-bit results, fusions given to Triton, and other devices, by the roofline), its
exchanges by XLA's table or, on networks, by the link tiers; ragged exchanges by the rows that
balanced routing fills. Nothing here is measured. `bound` is the longer of compute and exchange,
which no schedule can beat.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import lancet_jax
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.schedule.simulate import simulate
from lancet_jax.aot import Target
from scripts.gpu_steps import GpuStep, model_step

PIPELINES = ("off", "dw", "exchange", "lancet", "full")
_OPTIONS = {"xla_gpu_collect_cost_model_stats": True}


def main() -> None:
    """Compile, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", default="h100:1x8")
    parser.add_argument("--judge", default="h100:1x8,h100:8x8,a100:8x8,v100:8x8")
    parser.add_argument("--models", default="gpt2_s_moe")
    parser.add_argument("--gates", default="switch")
    parser.add_argument("--dispatch", default="scatter", help="how the models dispatch")
    parser.add_argument("--steps", default="", help="steps of tests/steps.py, by name")
    parser.add_argument("--pipelines", default=";".join(PIPELINES))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--layers", type=int, help="instead of the model's own")
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    gpus = lancet_jax.aot.target(args.compile)
    rows = []
    for step in steps(args, gpus):
        for pipeline in args.pipelines.split(";"):
            print(f"{step.name} {pipeline} ...", file=sys.stderr, flush=True)
            for network in args.judge.split(","):
                timed = step.compile(pipeline, network, _OPTIONS)
                rows.append({"step": step.name, "pipeline": pipeline, "network": network}
                            | judge(timed, gpus.devices[0].device_kind, network))  # fmt: skip
        show([row for row in rows if row["step"] == step.name])
        save(rows, args)


def save(rows: list[dict[str, Any]], args: Any) -> None:
    """Write the rows so far to the file that was asked for."""
    if args.json:
        data = {"jax": jax.__version__, "compiled": args.compile, "dtype": args.dtype, "rows": rows}
        with open(args.json, "w") as file:
            json.dump(data, file, indent=1)


def steps(args: Any, gpus: Target) -> Iterator[GpuStep]:
    """Yield everything that is asked for."""
    for model in filter(None, args.models.split(",")):
        for gate in args.gates.split(","):
            yield model_step(
                model, gpus, args.layers, gate=gate, dtype=args.dtype, dispatch=args.dispatch
            )
    for name in filter(None, args.steps.split(",")):
        from tests.steps import CASES, Size

        size = Size(batch=64, seq=512, model=1024, hidden=4096, layers=4, dtype=jnp.bfloat16)
        case = CASES[name](gpus.devices, size, abstract=True)
        yield GpuStep(name, case.step, case.args, case.jit_kwargs)


def judge(timed: Any, kind: str, network: str) -> dict[str, Any]:
    """Replay a final schedule with the exchanges of a network and return its figures.

    Args:
        timed: a compiled step, and the seconds that took.
        kind: the device that it was compiled for, as JAX calls it.
        network: the target whose links count.
    """
    compiled, seconds = timed
    graph = compiled.scheduled.snapshot()
    target = parse_target(network)
    is_same = kind in target.profile.device_kinds
    costs = TargetCosts(target, xla_compute=is_same).for_graph(graph)
    timeline = simulate(graph, costs, source="compiled")
    drift = compiled.report().drift
    return {
        "step_us": timeline.makespan_us,
        "compute_us": timeline.compute_us,
        "exchange_us": timeline.exchange_us,
        "exposed_us": timeline.exposed_us,
        "exposed_all_to_all_us": timeline.exposed_all_to_all_us,
        "bound_us": max(timeline.compute_us, timeline.exchange_us),
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "parts": sorted({split.k for plan in compiled.outcome.cuts for split in plan.splits}),
        "python_s": compiled.outcome.seconds,
        "compile_s": seconds,
        "drift": drift.moved if drift else 0,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print one step's table."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    for network in networks:
        print(f"\n{rows[0]['step']}, exchanges of {network}")
        print(f"  {'':9}{'k':>4}{'step us':>11}{'x stock':>9}{'compute':>10}{'exchange':>10}"
              f"{'exposed':>10}{'a2a':>10}{'of stock':>9}{'temp MB':>9}{'drift':>6}"
              f"{'plan s':>7}")  # fmt: skip
        chosen = [row for row in rows if row["network"] == network]
        stock = chosen[0]
        for row in chosen:
            share = row["exposed_all_to_all_us"] / max(stock["exposed_all_to_all_us"], 1e-9)
            parts = ",".join(map(str, row["parts"])) or "-"
            print(f"  {row['pipeline']:9}{parts:>4}{row['step_us']:>11,.0f}"
                  f"{stock['step_us'] / row['step_us']:>9.3f}{row['compute_us']:>10,.0f}"
                  f"{row['exchange_us']:>10,.0f}{row['exposed_us']:>10,.0f}"
                  f"{row['exposed_all_to_all_us']:>10,.0f}{share:>9.0%}"
                  f"{row['temp_bytes'] / 1e6:>9,.0f}{row['drift']:>6}{row['python_s']:>7.1f}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
