"""Tables of the race: what is best, by how much the choice is longer, how far figures are off."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.race_table import apart_errors_of, best_of, errors_of, needed_of, show, worse_by

ROOT = Path(__file__).parents[2]


def form(name, predicted, judged, compiled, fits=True):
    return {
        "name": name, "predicted_us": predicted, "judged_us": judged, "compiled_us": compiled,
        "fits": fits,
    }  # fmt: skip


ROW = {
    "step": "toy", "choice": "exchange k=2", "choice_us": 91.0, "plain_us": 110.0,
    "plain_s": 1.0, "best_s": 4.0, "again_s": 1.0, "xla_runs": 4,
    "forms": [
        form("as it is", 120.0, 100.0, 100.0),
        form("exchange k=2", 126.0, 91.0, 91.0),
        form("exchange k=2 (without dot-merger)", 126.0, 90.0, 90.0),
        form("full k=2", 114.0, 0.0, 80.0, fits=False),
    ],
}  # fmt: skip
DATA = {
    "target": "h100:8x8", "date": "2026-12-01", "commit": "abc", "jax": "0.12", "jaxlib": "0.12",
    "numpy": "2", "rows": [ROW],
}  # fmt: skip


def test_what_fits_is_best_and_the_choice_is_held_against_it():
    assert best_of(ROW)["name"] == "exchange k=2 (without dot-merger)"
    assert worse_by(ROW) == pytest.approx(91 / 90 - 1)


def test_errors_are_of_ratios_to_the_step_as_it_is():
    assert errors_of(ROW, "predicted_us") == pytest.approx(
        {"exchange k=2": 1.05 / 0.91 - 1, "full k=2": 0.95 / 0.8 - 1}
    )
    assert errors_of(ROW, "judged_us") == pytest.approx(
        {"exchange k=2": 0.0, "exchange k=2 (without dot-merger)": 0.0}
    )
    assert apart_errors_of(ROW) == pytest.approx(
        {"exchange k=2": 1.05 / 0.9 - 1, "full k=2": 0.95 / 0.8 - 1}
    )
    assert needed_of(ROW) == pytest.approx((126 / 114 - 1, 0.05))


def test_rows_that_were_read_are_shown(tmp_path):
    rows, page = tmp_path / "race.json", tmp_path / "page.md"
    rows.write_text(json.dumps(DATA))
    page.write_text("# Race\n<!-- table -->\n<!-- table -->\nEnd\n")
    subprocess.run(
        [sys.executable, "-m", "scripts.bench_race", "--read", str(rows), "--page", str(page)],
        cwd=ROOT, check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    said = page.read_text()
    assert show(DATA) in said
    assert "| toy | 110 | 91 | exchange k=2 | 90 |" in said
    assert "does not fit" in said
    assert said.endswith("<!-- table -->\nEnd\n")
