"""Steps that XLA partitions, and steps on meshes of several axes: cut, verified, read back.

    python -m scripts.bench_partitioned --json rows.json
    python -m scripts.bench_partitioned --read rows.json --page docs/meshes.md

Every step of `tests/auto_steps.py` and `tests/mesh_steps.py` is

- run small on 8 virtual CPU devices, its exchanges cut in two and its tokens cut in two, beside
  plain `jax.jit`: how far the outputs are apart;
- compiled large for GPUs that are not there, once as XLA alone does (`off`) and once per pipeline.
  The final schedule is read back; times are XLA's own costs, and of links, and nothing is measured
  but seconds of compiling: `XLA` without us, `capture` what planning and rewriting took, of which
  `first` for XLA to partition a copy and `back` to convert and check what it made.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import lancet_jax
from hlo_passes.files import write_atomically
from lancet_jax.errors import LancetError
from tests.auto_steps import IDIOMS
from tests.mesh_steps import MESHES
from tests.steps import CASES, Size

STEPS = IDIOMS | {"two_axes": CASES["two_axes"]} | MESHES
CUTS = {"exchanges": "split-exchange{k=2},schedule-dw", "tokens": "split-region{k=2},schedule-dw"}
_PAGE = "<!-- table -->"
_PLACE = re.compile(r"/\S*?/(?:site-packages/)?((?:tests|src|flax|jax|optax)/[\w/]+\.py:\d+)")
_WHOLE = re.compile(r"^\S+ (?P<why>stays whole: .*?) (?P<place>\S+:\d+)$")


def main() -> None:
    """Verify, compile, read back, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", default="h100:8x8")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--pipelines", default="off;dw;best")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--model", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--json", help="write the rows to this file, after every step")
    parser.add_argument("--read", nargs="*", help="take rows from these files; compile nothing")
    parser.add_argument("--page", help="put the tables between the marks of this page")
    args = parser.parse_args()
    rows = []
    for path in args.read or ():
        rows += json.loads(Path(path).read_text())
    if args.read is None:
        rows = made(args)
    tables = show(rows)
    print(tables)
    if args.page:
        before, _, after = Path(args.page).read_text().split(_PAGE)
        write_atomically(Path(args.page), _PAGE.join((before, f"\n{tables}\n", after)).encode())


def made(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Verify and compile every step that was asked for."""
    jax.config.update("jax_num_cpu_devices", 8)
    gpus = lancet_jax.aot.target(args.compile)
    size = Size(args.batch, args.seq, args.model, args.hidden, args.experts, args.layers,
                jnp.bfloat16)  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name in args.steps.split(","):
        row: dict[str, Any] = {"step": name, "pipelines": {}}
        for cut, pipeline in CUTS.items():
            print(f"{name} {cut} ...", file=sys.stderr, flush=True)
            row[cut] = verified(name, pipeline)
        for pipeline in args.pipelines.split(";"):
            print(f"{name} {pipeline} ...", file=sys.stderr, flush=True)
            case = STEPS[name](gpus.devices, size, abstract=True)
            row["pipelines"][pipeline] = compiled(case, pipeline)
        rows.append(row)
        if args.json:
            write_atomically(Path(args.json), json.dumps(rows, indent=1).encode())
    return rows


def _first_line(builder: Any) -> str:
    said = (builder.__doc__ or builder.__name__.replace("_", " ")).split("\n")[0]
    return said.rstrip(".")


def verified(name: str, pipeline: str) -> dict[str, Any]:
    """Run a small step cut and plain on 8 CPU devices; say how far the outputs are apart."""
    case = STEPS[name](jax.devices("cpu")[:8])
    step = lancet_jax.jit(
        case.step, pipeline=pipeline, target="h100:1x8", on_unsupported="raise", **case.jit_kwargs
    )
    try:
        found = lancet_jax.verify(step, *case.args)
    except LancetError as error:
        return {"error": error.what}
    outcome = step.outcomes[-1]
    return {
        "cut": bool(outcome.cuts),
        "identical": sum(leaf.is_identical for leaf in found.leaves),
        "outputs": len(found.leaves),
        "difference": found.largest_difference,
        "notes": list(outcome.notes),
    }


def compiled(case: Any, pipeline: str) -> dict[str, Any]:
    """Compile a step with a pipeline and read its schedule back."""
    step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs)
    lowered = step.lower(*case.args)
    started = time.perf_counter()
    try:
        result = lowered.compile()
    except LancetError as error:
        return {"error": error.what}
    seconds = time.perf_counter() - started
    outcome, timeline = result.outcome, result.schedule()
    first, back = outcome.partition_seconds
    cut = ", ".join(f"{split.along} k={split.k}" for plan in outcome.cuts for split in plan.splits)
    return {
        "step_us": timeline.makespan_us,
        "exchange_us": timeline.exchange_us,
        "exposed_us": timeline.exposed_us,
        "exposed_all_to_all_us": timeline.exposed_all_to_all_us,
        "temp_bytes": result.memory_analysis().temp_size_in_bytes,
        "cut": cut,
        "xla_s": seconds - outcome.seconds,
        "capture_s": outcome.seconds,
        "first_s": first,
        "back_s": back,
        "notes": list(outcome.notes),
    }


def show(rows: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown: what is equal, what is exposed, what was refused."""
    lines = [
        "| step | what it is | exchanges cut in two | tokens cut in two |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = (_closeness(row[cut]) for cut in CUTS)
        lines.append(
            f"| `{row['step']}` | {_first_line(STEPS[row['step']])} | {' | '.join(cells)} |"
        )
    columns = ("step", "pipeline", "step µs", "exchanges µs", "exposed µs", "exposed all-to-all µs",
               "temp MB", "cut", "capture s", "of it XLA first, back", "XLA s")  # fmt: skip
    lines += [
        "",
        f"| {' | '.join(columns)} |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        for pipeline, found in row["pipelines"].items():
            name = f"`{row['step']}`" if pipeline == next(iter(row["pipelines"])) else ""
            lines.append(f"| {name} | `{pipeline}` | {_figures(found)} |")
    lines += ["", *_refusals(rows)]
    return "\n".join(lines)


def _closeness(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"not run: {found['error']}"
    same = f"{found['identical']}/{found['outputs']} outputs identical"
    if found["identical"] < found["outputs"]:
        same += f", worst {found['difference']:.0e}"
    return same if found["cut"] else f"left whole; {same}"


def _figures(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"{found['error']} " + "| - " * 8
    times = (found[key] for key in
             ("step_us", "exchange_us", "exposed_us", "exposed_all_to_all_us"))  # fmt: skip
    return (
        " | ".join(f"{us:,.0f}" for us in times)
        + f" | {found['temp_bytes'] / 1e6:,.0f} | {found['cut'] or '-'} | {found['capture_s']:.1f}"
        f" | {found['first_s']:.1f}, {found['back_s']:.1f} | {found['xla_s']:.1f}"
    )


def _refusals(rows: list[dict[str, Any]]) -> list[str]:
    """List what was left whole, once for every reason in a step, with the lines that it is at."""
    lines = []
    for row in rows:
        found: dict[str, dict[str, None]] = {}
        for result in (*(row[cut] for cut in CUTS), *row["pipelines"].values()):
            for note in result.get("notes", ()):
                said = _PLACE.sub(r"\1", note)
                if match := _WHOLE.match(said):
                    found.setdefault(match["why"], {})[match["place"]] = None
                elif "not partitioned" in said or "no cut" in said:
                    found[said.removeprefix("main ")] = {}
        if found:
            lines.append(f"- `{row['step']}`")
        for why, places in found.items():
            lines.append(f"  - {why}" + (f" ({', '.join(places)})" if places else ""))
    return ["What was left whole, and why:", "", *lines] if lines else []


if __name__ == "__main__":
    main()
