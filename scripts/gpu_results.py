"""Holds what a GPU measured against what was predicted: `docs/real-gpu.json` from a run's files."""

import json
from pathlib import Path
from statistics import quantiles
from typing import Any

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable, ExchangeTimes
from hlo_passes.cost.target import parse_target
from lancet_jax.judge import judge
from scripts.gpu_kernels import kernel_times
from scripts.gpu_programs import GPUS

KINDS = ("none", "modelled", "share")
"""Exchange times of a series: nothing but the copies, as modelled, or scaled to the share."""


def collect(folder: Path, out: Path) -> dict[str, Any]:
    """Return all results of a run.

    Args:
        folder: that `gpu_programs.prepare` wrote.
        out: that `gpu_player.run` and `gpu_player.capture` wrote; what a reader has to know of the
            captures may stand in `captures.txt`.
    """
    about = json.loads((folder / "programs.json").read_text())
    measured = json.loads((out / "measured.json").read_text())
    rows = [
        _row(folder, program, kind, measured["rounds"][f"{program['share']}/{kind}"])
        for program in about["programs"]
        for kind in KINDS
        if f"{program['share']}/{kind}" in measured["rounds"]
    ]
    programs = [
        {k: v for k, v in p.items() if k != "exchanges"}
        | {"exchange_us": sum(e["us"] for e in p["exchanges"])}
        for p in about["programs"]
    ]
    kernels = {}
    for capture in sorted(out.glob("*.xplane.pb")):
        name = capture.name.removesuffix(".xplane.pb")
        text = (folder / "scheduled" / f"{name}.hlo").read_text()
        kernels[name] = kernel_times(capture, text)
    note = out / "captures.txt"
    about["capture_note"] = note.read_text().strip() if note.exists() else ""
    kept = ("machine", "steps_per_turn", "compile_s", "without_graphs")
    return about | {"programs": programs, "rows": rows, "kernels": kernels} | {
        key: measured[key] for key in kept if key in measured
    }  # fmt: skip


def _row(
    folder: Path, program: dict[str, Any], kind: str, series: dict[str, Any]
) -> dict[str, Any]:
    """Return a program's turns under one scale of exchange times, and the judge's step."""
    text = (folder / "scheduled" / f"{program['name']}.hlo").read_text()
    table = CostTable.load(folder / f"links-{program['share']}.json")
    costs = TargetCosts(parse_target(GPUS), measured=scaled(table, series["scale"]))
    verdict = judge(text, costs)
    return {
        "name": program["name"],
        "pipeline": program["pipeline"],
        "share": program["share"],
        "kind": kind,
        "scale": series["scale"],
        "us": [round(us, 1) for us in series["us"][program["name"]]],
        "predicted_us": verdict.step_us,
        "predicted_compute_us": verdict.compute_us,
        "predicted_exposed_us": verdict.exposed_us,
        "predicted_exchange_us": verdict.exchange_us,
    }


def scaled(table: CostTable, factor: float) -> CostTable:
    """Return a table whose exchanges take `factor` times as long."""
    exchanges = tuple(
        ExchangeTimes(kind=e.kind, group_size=e.group_size, nodes=e.nodes,
                      points=tuple((size, us * factor) for size, us in e.points))
        for e in table.exchanges
    )  # fmt: skip
    return CostTable(source=table.source, target=table.target, date=table.date, note=table.note,
                     exchanges=exchanges)  # fmt: skip


def summary(us: list[float]) -> tuple[float, float, float]:
    """Return (median, lower quartile, upper quartile)."""
    low, middle, high = quantiles(us, n=4, method="inclusive")
    return middle, low, high


def ratios(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Return the median and quartiles of the ratios of turns of the same round."""
    return summary([a / b for a, b in zip(above, below, strict=False)])
