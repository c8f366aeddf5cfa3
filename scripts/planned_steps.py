"""Plans of a step for `bench_wallclock`: at the times of its kernels here, for a link's rate.

`prepare` fills a folder: `stock.mlir`, the step as JAX lowers it; `table.json`, the time of every
kernel of the step and of its cuts, each alone; `facts.json`, what the step takes with nothing to
wait for; per rate and pipeline the rewritten module; `plans.json`, which is which, and what the
planner predicts. One process measures, alone on a core; then one a plan. A folder that is complete
may be carried to another machine, which then only plays.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

CUTS = ("split-region{k=2}", "split-region{k=4}", "split-exchange{k=2}")
"""Kernels of these are measured besides those of the step itself."""

_BATCH = 32
"""Kernels that are timed side by side."""


def prepare(
    folder: Path, shape: str, ranks: int, shares: Sequence[float], pipelines: Sequence[str],
    latency_us: float,
) -> None:  # fmt: skip
    """Fill the folder; what is there already is kept, plans of other calls included.

    Args:
        folder: where.
        shape: as `small_steps.Shape.parse` reads it.
        ranks: how many processes the step is for.
        shares: per link speed, the share of the stock step that exchanges take.
        pipelines: what to plan.
        latency_us: us of the smallest exchange.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "facts.json").exists():
        _start(folder, "--measure", "--shape", shape, "--ranks", f"{ranks}").wait()
    facts = json.loads((folder / "facts.json").read_text())
    index = folder / "plans.json"
    old = json.loads(index.read_text()) if index.exists() else []
    known = {(plan["share"], plan["pipeline"]) for plan in old}
    plans = []
    for share in shares:
        rate = rate_of(facts, share, latency_us)
        for name in pipelines:
            if (share, name) in known:
                continue
            file = f"{share:g}-{len(old) + len(plans)}.mlir"
            plans.append({"share": share, "bytes_per_s": rate, "pipeline": name, "file": file,
                          "latency_us": latency_us, "ranks": ranks})  # fmt: skip
    waiting = list(plans)
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < len(os.sched_getaffinity(0)):
            running.append(_start(folder, "--plan", json.dumps(waiting.pop(0)), core=len(running)))
        running = [process for process in running if process.poll() is None]
        time.sleep(0.05)
    told = [plan | json.loads((folder / plan["file"]).with_suffix(".json").read_text())
            for plan in plans]  # fmt: skip
    index.write_text(json.dumps(old + told, indent=1))


def rate_of(facts: Any, share: float, latency_us: float) -> float:
    """Return the bytes/s of a link over which exchanges take a share of the stock step.

    Args:
        facts: what the step takes with nothing to wait for, and what it sends.
        share: of the stock step, for exchanges.
        latency_us: us of the smallest exchange.
    """
    wanted = share / (1 - share) * facts["compute_s"]
    return facts["bytes"] / (wanted - facts["messages"] * latency_us * 1e-6)


def _start(folder: Path, *options: str, core: int = 0) -> Any:
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-W", "ignore", "-m", "scripts.planned_steps", str(folder), *options]
    environment = {**os.environ, "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores[core % len(cores)]}),
    )  # fmt: skip


def main() -> None:
    """Measure, or plan, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--plan")
    parser.add_argument("--shape", default="")
    parser.add_argument("--ranks", type=int, default=2)
    args = parser.parse_args()
    if args.measure:
        _measure(args.folder, args.shape, args.ranks)
    else:
        _plan(args.folder, json.loads(args.plan))


def _plan(folder: Path, plan: Any) -> None:
    from hlo_passes.cost.table import CostTable
    from hlo_passes.ir.stablehlo.module import Module
    from hlo_passes.schedule.simulate import simulate
    from scripts import small_steps

    started = time.perf_counter()
    stock = Module.parse((folder / "stock.mlir").read_bytes())
    costs = small_steps.link_costs(
        plan["ranks"], plan["bytes_per_s"], plan["latency_us"],
        CostTable.load(folder / "table.json"),
    )  # fmt: skip
    module, plans = small_steps.planned_with(stock, plan["pipeline"], costs)
    took = time.perf_counter() - started
    graph = module.snapshot()
    said = simulate(graph, costs.for_graph(graph))
    (folder / plan["file"]).write_text(module.text())
    told = {
        "plan_s": took,
        "parts": sorted({split.k for plan in plans for split in plan.splits}),
        "predicted_s": said.makespan_us / 1e6,
        "predicted_compute_s": said.compute_us / 1e6,
        "predicted_exchange_s": said.exchange_us / 1e6,
        "raced_s": {name: p.step_us / 1e6 for plan in plans for name, p in plan.race.items()},
    }
    (folder / plan["file"]).with_suffix(".json").write_text(json.dumps(told))


def _measure(folder: Path, shape: str, ranks: int) -> None:
    import jax

    from hlo_passes.ir.stablehlo.module import Module
    from lancet_jax.calibrate import kernels_of
    from scripts import small_steps

    jax.config.update("jax_num_cpu_devices", ranks)
    step, arguments = small_steps.make_step(small_steps.Shape.parse(shape), jax.devices())
    lowered = jax.jit(step).lower(*arguments)
    module = Module.copy_of(lowered.compiler_ir())
    (folder / "stock.mlir").write_text(module.text())
    facts = _facts(module, small_steps.local_shards(lowered.compile(), arguments, 0), ranks)
    profile = small_steps.profile_costs(300, ranks)
    cuts = [small_steps.planned(module, name, profile) for name in CUTS]
    kernels = list(kernels_of([module, *cuts]).values())
    _table(kernels, f"cpu:1x{ranks}").save(folder / "table.json")
    (folder / "facts.json").write_text(json.dumps(facts | {"kernels": len(kernels)}))


def _facts(module: Any, inputs: Any, ranks: int) -> dict[str, Any]:
    """Play the step with nothing to wait for, and count what it sends."""
    from lancet_jax.replay import Echo, Player, score_of
    from scripts.measured_pieces import heard

    player = Player(score_of(module), Echo(0, ranks))
    sent = heard(player, inputs)
    times = [player.run(inputs)[1] for _ in range(5)]
    passes = [2 if one.what.kind == "all_reduce" else 1 for one in sent]
    crossing = [one.bytes * n * (ranks - 1) / ranks for one, n in zip(sent, passes, strict=True)]
    sums = [size for size, n in zip(crossing, passes, strict=True) if n == 2]
    return {"compute_s": statistics.median(t.step for t in times), "bytes": sum(crossing),
            "sum_bytes": sum(sums), "messages": sum(passes), "exchanges": len(sent)}  # fmt: skip


def _table(kernels: Sequence[Any], target: str) -> Any:
    """Time kernels, each alone; what does not compile alone is left out."""
    import jax
    from msgspec.structs import replace

    from hlo_passes.cost.table import CostTable
    from lancet_jax.calibrate import time_all
    from lancet_jax.calibrate.measure import empty_run, runner

    entries = []
    for first in range(0, len(kernels), _BATCH):
        ready = []
        for kernel in kernels[first : first + _BATCH]:
            try:
                ready.append((kernel, runner(kernel.program, kernel.inputs)))
            except (jax.errors.JaxRuntimeError, TypeError, ValueError):
                continue
        empty, *timings = time_all([empty_run(), *(run for _, run in ready)], 5)
        entries += [
            replace(kernel.entry, us=t.us, spread=t.spread)
            for (kernel, _), t in zip(ready, (t.less(empty) for t in timings), strict=True)
        ]
    return CostTable(source="measured", target=target, date=f"{date.today()}", ops=tuple(entries))


if __name__ == "__main__":
    main()
