"""The evaluation's cells, its results file, and the page made of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench_paper import load, save
from scripts.paper_cells import ABLATED, Cell, all_cells, skewed_load
from scripts.paper_page import render
from scripts.paper_table import Table

ROOT = Path(__file__).parents[2]


def verdict(step, compute=80.0, exchange=60.0):
    exposed = step - compute
    return {
        "step_us": step, "compute_only_us": compute - (exchange - exposed),
        "overlapped_us": exchange - exposed, "exposed_us": exposed,
        "exposed_all_to_all_us": exposed, "idle_us": 0.0, "compute_us": compute,
        "exchange_us": exchange, "sources": {},
    }  # fmt: skip


def cell(step, **more):
    return {
        "parts": [2], "verdict": verdict(step), "planner": {"step_us": step}, "peak_bytes": 1,
        "memory_bytes": 2, "plan_s": 1.0, "seconds": 2.0, "date": "2026-11-24", "commit": "abc",
        "versions": {"jax": "0.12"},
    } | more  # fmt: skip


DATA = {
    "schema": 1,
    "cells": {
        "gpt2_s_moe/switch/v100:8x8/off": cell(120.0, serial=verdict(140.0), parts=[]),
        "gpt2_s_moe/switch/v100:8x8/full": cell(90.0, skewed=verdict(100.0)),
        "gpt2_s_moe/switch/v100:8x8/lancet": {"error": "broke", "seconds": 1.0},
        "gpt2_s_moe/switch/a100:2x8/reach=1,k=2": cell(110.0),
        "gpt2_s_moe/switch/v100:8x8/dw?layers=2": cell(1.0),
    },
}


def test_cells_have_names_of_their_own():
    cells = all_cells()
    assert len({c.key for c in cells}) == len(cells)
    assert all(Cell.of(c.key) == c for c in cells)
    assert cells[0] == Cell("gpt2_s_moe", "switch", "v100", "8x8", "off")
    # The paper's grid whole: models, gates, clusters, sizes, and five pipelines each.
    grid = [c for c in cells if not c.pipeline.startswith("reach") and c.pipeline not in ABLATED]
    assert len(grid) == 2 * 2 * 3 * 4 * 5


def test_ratios_are_over_the_row_that_is_named():
    table = Table(DATA)
    place = ("gpt2_s_moe", "switch", "v100", "8x8")
    assert table.speed_up(*place, "full", "off") == pytest.approx(120 / 90)
    assert table.speed_up(*place, "full", "none") == pytest.approx(140 / 90)
    assert table.speed_up(*place, "full", "off", skewed=True) == pytest.approx(120 / 100)
    assert table.speed_up(*place, "lancet", "off") is None
    assert table.cut(*place, "full", "none") == pytest.approx(1 - 10 / 60)
    assert table.over_all("switch", "v100", "full", "off", "speed_up") == [pytest.approx(4 / 3)]
    assert Table(DATA, layers=2).cells.keys() == {Cell(*place, "dw")}


def test_a_page_is_made_of_whatever_is_there(tmp_path):
    render(DATA, tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| 64 | full | 2 | 0.1 | 1.556 | 1.333 |" in page
    assert "| 64 | lancet | not run |" in page
    assert "failed: `gpt2_s_moe/switch/v100:8x8/lancet`: broke" in page
    for link in ("speed-up", "parts", "ranges"):
        assert f"](figures/{link}.svg)" in page
        assert "<svg" in (tmp_path / "figures" / f"{link}.svg").read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    render({"schema": 1, "cells": {}}, empty)
    assert "*Not run.*" in (empty / "results.md").read_text()


def test_results_are_added_one_by_one(tmp_path):
    path = tmp_path / "results.json"
    save(path, "b", {"seconds": 1.23456})
    save(path, "a", {"seconds": 2})
    assert load(path) == {"schema": 1, "cells": {"a": {"seconds": 2}, "b": {"seconds": 1.23}}}
    assert path.read_text().count("\n") == 7
    path.write_text(json.dumps({"schema": 9}))
    with pytest.raises(SystemExit, match="schema 9"):
        load(path)


@pytest.mark.parametrize("parts", [2, 3, 4, 8])
def test_a_balanced_routing_is_the_load_of_one(parts):
    load = skewed_load(parts, busiest=1.0)
    assert (load.fill, load.trips) == (pytest.approx(1.0), 1)


def test_a_skewed_routing_fills_the_busiest_early():
    # Two parts: the device at twice the mean is full after the first, which carries 1 instead of
    # 1/2; in the second those at the mean receive most, 1/2.
    load = skewed_load(2)
    assert load.fill == pytest.approx(1.5, abs=0.01)
    assert load.trips == 2
    assert skewed_load(8).fill > skewed_load(4).fill > load.fill


@pytest.mark.slow
def test_a_cell_is_computed_once(tmp_path):
    path = tmp_path / "results.json"
    command = [sys.executable, "-m", "scripts.bench_paper", "--results", str(path),
               "--layers", "2", "--only", "gpt2_s_moe/switch/v100:1x8/off"]  # fmt: skip
    for told in (True, False):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ("step" in done.stdout) is told
    (found,) = load(path)["cells"].values()
    assert found["serial"]["step_us"] > found["verdict"]["step_us"] > 0
    assert found["planner"]["step_us"] == pytest.approx(found["verdict"]["step_us"], rel=2e-3)
