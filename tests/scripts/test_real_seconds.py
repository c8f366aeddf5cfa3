"""The link's rate from a share, and the page of measured runs."""

import json

import pytest

from scripts import real_seconds_page
from scripts.planned_steps import rate_of

STEP = {"mbit": 300.0, "share": 0.45, "foreign_cores": 0.0, "quartiles": [1.0, 1.0, 1.0],
        "waits_s": {"all_to_all": 0.2, "all_reduce": 0.1}, "error": 0.0, "cpu_s": 0.5,
        "cpu_low_high_s": [0.4, 0.6],
        "hidden": 0.0, "predicted_s": 1.0, "predicted_compute_s": 0.5}  # fmt: skip


def run_of(**rows):
    made = [STEP | {"pipeline": name} | row for name, row in rows.items()]
    return {"kind": "replay", "ranks": 2, "pairs": True, "link": "paced", "rounds": 3, "shape": "layers=1",
            "machine": "16 cores x86-64", "jax": "1", "jaxlib": "1", "numpy": "1",
            "date": "2026-11-28", "commit": "abc", "rows": made}  # fmt: skip


def test_at_its_rate_exchanges_take_their_share():
    facts = {"compute_s": 0.55, "bytes": 4e6, "messages": 100}
    rate = rate_of(facts, 0.45, 500.0)
    assert facts["bytes"] / rate + 100 * 500e-6 == pytest.approx(0.45)


@pytest.mark.parametrize("foreign", [0.0, 1.0])
def test_the_page_says_what_was_reached_on_a_quiet_machine(tmp_path, foreign):
    data, page = tmp_path / "runs.json", tmp_path / "page.md"
    times = {"compute_s": 0.6, "exchange_s": 0.4, "step_s": 1.0, "speed_up": 1.0}
    full = times | {"step_s": 0.8, "compute_s": 0.65, "speed_up": 1.25, "hidden": 0.5}
    ideal = times | {"step_s": 0.6, "foreign_cores": foreign}
    data.write_text(json.dumps({"runs": [run_of(off=times, full=full, ideal=ideal)]}))
    real_seconds_page.write(str(data), str(page))
    text = page.read_text()
    words = " ".join(text.split())
    reached = "`full` 1.25 times (1.00 to 1.00), 50% hidden; bound 1.67."
    assert (reached in words) == (foreign == 0.0)
    assert ("wall times mean nothing" in words) == (foreign == 1.0)
    assert ("| `full` | - | 800 | 1.25 |" in text) == (foreign == 0.0)
    assert ("| 40% | 1.67 | - | - | - | 1.25 (50%) |" in text) == (foreign == 0.0)


def test_a_jit_of_the_whole_step_has_a_table_of_its_own(tmp_path):
    data, page = tmp_path / "runs.json", tmp_path / "page.md"
    row = {"step_s": 1.0, "speed_up": 1.0, "moves": 3, "hidden": None}
    run = run_of(off=row | {"moves": 0}, dw=row) | {"kind": "native jit"}
    data.write_text(json.dumps({"runs": [run]}))
    real_seconds_page.write(str(data), str(page))
    assert "| `dw` | 3 | 1000 | 1.00 | 1.00 to 1.00 | 500 | 0e+00 |" in page.read_text()
