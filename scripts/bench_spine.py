"""Stock XLA beside lancet-jax on the paper's models, compiled for GPUs that are not there.

    python -m scripts.bench_spine --target h100:1x8 --json spine.json

For every model and GEMM library: the step as XLA schedules it (latency-hiding scheduler on, its
default on Hopper) and as lancet-jax re-orders it, both read back from the final schedule. Compute
is priced by XLA's own cost model where it has one, exchanges by XLA's table or the link tiers;
nothing here is measured.
"""

import argparse
import json
import sys
from typing import Any

import jax

import lancet_jax
from scripts.gpu_steps import GpuStep, model_step


def main() -> None:
    """Compile, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="h100:1x8")
    parser.add_argument("--models", default="gpt2_s_moe,gpt2_l_moe")
    parser.add_argument("--gates", default="switch")
    parser.add_argument("--gemm", default="cublas,triton")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--layers", type=int, help="instead of the model's own")
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    gpus = lancet_jax.aot.target(args.target)
    rows = []
    for model in args.models.split(","):
        for gate in args.gates.split(","):
            step = model_step(model, gpus, args.layers, gate=gate, dtype=args.dtype)
            for gemm in args.gemm.split(","):
                print(f"{model} {gate} {gemm} ...", file=sys.stderr, flush=True)
                rows.append({"model": model, "gate": gate, "gemm": gemm, **compare(step, gemm)})
                show(rows[-1])
    if args.json:
        data = {"jax": jax.__version__, "target": args.target, "dtype": args.dtype, "rows": rows}
        with open(args.json, "w") as file:
            json.dump(data, file, indent=1)


def compare(step: GpuStep, gemm: str) -> dict[str, Any]:
    """Compile one model twice and return what both expose, in us and bytes."""
    options = {"xla_gpu_enable_triton_gemm": gemm == "triton",
               "xla_gpu_collect_cost_model_stats": True}  # fmt: skip
    row: dict[str, Any] = {}
    for name, pipeline in (("stock", "off"), ("ours", "dw")):
        compiled, seconds = step.compile(pipeline, options=options)
        report = compiled.report()
        row[name] = {
            "step_us": report.after.makespan_us,
            "compute_us": report.after.compute_us,
            "exposed_us": report.after.exposed_us,
            "exposed_all_to_all_us": report.after.exposed_all_to_all_us,
            "backward_us": sum(w.after_us * w.times for w in report.windows if w.backward),
            "forward_us": sum(w.after_us * w.times for w in report.windows if not w.backward),
            "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
            "compile_s": seconds,
            "python_s": compiled.outcome.seconds,
            "drift": report.drift.moved if report.drift else 0,
            "strategy": report.plan.strategy if report.plan else "",
            "bound_us": report.plan.bound_us if report.plan else 0.0,
            "ops": len(compiled.scheduled.parsed.entry.instructions),
        }
    return row


def show(row: dict[str, Any]) -> None:
    """Print one comparison."""
    stock, ours = row["stock"], row["ours"]
    name = f"{row['model']} {row['gate']} {row['gemm']}"
    print(f"\n{name}: {ours['ops']} ops, strategy {ours['strategy']}, drift {ours['drift']}, "
          f"bound {ours['bound_us']:,.0f} us")  # fmt: skip
    print(f"  {'':24}{'stock':>12}{'ours':>12}{'change':>10}")
    for key, label in (
        ("step_us", "step us"), ("compute_us", "compute us"), ("exposed_us", "exposed us"),
        ("backward_us", "  backward all-to-alls"), ("forward_us", "  forward all-to-alls"),
        ("temp_bytes", "temp memory, bytes"), ("compile_s", "compile s"),
    ):  # fmt: skip
        a, b = stock[key], ours[key]
        change = f"{(b - a) / a:+.1%}" if a else ""
        print(f"  {label:24}{a:>12,.0f}{b:>12,.0f}{change:>10}")
    share = ours["python_s"] / ours["compile_s"]
    print(
        f"  planning and editing {ours['python_s']:.2f} s, {share:.1%} of the compile", flush=True
    )


if __name__ == "__main__":
    main()
