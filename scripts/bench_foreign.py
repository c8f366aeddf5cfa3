"""Models that others wrote: verified on CPU devices, compiled for GPUs that are not there.

    python -m scripts.bench_foreign --steps nano-moe --json rows.json
    python -m scripts.bench_foreign --read rows.json --page docs/someone-elses-code.md

Every step of `tests/foreign_steps.py` runs small on 8 virtual CPU devices beside plain `jax.jit`
and is compiled large for the GPUs, once per pipeline. The final schedule is read back; times are
XLA's own costs and nothing is measured on a GPU.
"""

import argparse
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import lancet_jax
from hlo_passes.files import write_atomically
from lancet_jax.errors import LancetError
from tests.foreign_steps import FOREIGN, Foreign

_PAGE = "<!-- table -->"


def main() -> None:
    """Verify, compile, read back, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", default="h100:1x8")
    parser.add_argument("--steps", default=",".join(FOREIGN))
    parser.add_argument("--pipelines", default="dw,exchange,full")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--read", nargs="*", help="take rows from these files; compile nothing")
    parser.add_argument("--page", help="put the table between the marks of this page")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.read:
        for path in args.read:
            rows += json.loads(Path(path).read_text())
    else:
        jax.config.update("jax_num_cpu_devices", 8)
        devices = lancet_jax.aot.target(args.compile).devices
        for name in args.steps.split(","):
            rows.append(_row(name, FOREIGN[name], devices, args.pipelines.split(",")))
    if args.json:
        write_atomically(Path(args.json), json.dumps(rows, indent=1).encode())
    table = show(rows)
    print(table)
    if args.page:
        before, _, after = Path(args.page).read_text().split(_PAGE)
        page = _PAGE.join((before, f"\n{table}\n", after))
        write_atomically(Path(args.page), page.encode())


def _row(name: str, foreign: Foreign, devices: Any, pipelines: list[str]) -> dict[str, Any]:
    """Verify and compile one step with every pipeline."""
    importlib.import_module(foreign.module)
    row: dict[str, Any] = {"step": name, "version": version(foreign.package), "pipelines": {}}
    for pipeline in ["off", *pipelines]:
        print(f"{name} {pipeline} ...", file=sys.stderr, flush=True)
        found = _compiled(foreign, devices, pipeline)
        if pipeline != "off" and foreign.runs_on_cpu:
            found["verified"] = _verified(foreign, pipeline)
        row["pipelines"][pipeline] = found
    return row


def _compiled(foreign: Foreign, devices: Any, pipeline: str) -> dict[str, Any]:
    case = foreign.build(devices, True)
    with case.mesh():
        step = lancet_jax.jit(
            case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs
        )
        try:
            # Without it a step that is left as it was is priced by another yardstick.
            result = step.lower(*case.args).compile()
        except LancetError as error:
            return {"error": error.what}
    timeline, cuts = result.schedule(), result.outcome.cuts
    return {
        "step_us": timeline.makespan_us,
        "exposed_us": timeline.exposed_us,
        "exposed_all_to_all_us": timeline.exposed_all_to_all_us,
        "cuts": [f"{split.along} k={split.k}" for plan in cuts for split in plan.splits],
        "notes": list(result.outcome.notes),
    }


def _verified(foreign: Foreign, pipeline: str) -> str:
    case = foreign.build(jax.devices("cpu")[:8], False)
    with case.mesh():
        step = lancet_jax.jit(
            case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs
        )
        result = lancet_jax.verify(step, *case.args)
    same = sum(leaf.is_identical for leaf in result.leaves)
    differ = "" if result else f", worst {result.largest_difference:.1e}"
    return f"{same}/{len(result.leaves)} outputs identical{differ}"


def show(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    columns = ("package", "dispatch", "spread", "pipeline", "step µs", "exposed µs",
               "exposed all-to-all µs", "cut", "verified on 8 CPU devices")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---|---|---|---|---:|---:|---:|---|---|"]
    for row in rows:
        foreign = FOREIGN[row["step"]]
        for pipeline, found in row["pipelines"].items():
            first = pipeline == "off"
            head = (f"{foreign.package} {row['version']}", foreign.idiom, foreign.spread)
            cells = [*(head if first else ("", "", "")), f"`{pipeline}`"]
            if "error" in found:
                cells += ["-", "-", "-", found["error"], "-"]
            else:
                cells += [f"{found[key]:,.0f}" for key in
                          ("step_us", "exposed_us", "exposed_all_to_all_us")]  # fmt: skip
                checked = "not run: an op that XLA's CPU backend lacks"
                cells += [", ".join(found["cuts"]) or "-",
                          "" if first else found.get("verified", checked)]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
