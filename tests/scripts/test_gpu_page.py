"""What the page says follows from the turns by the clock."""

from pathlib import Path

import pytest

from scripts.gpu_page import DATA, PAGE, Results, render

ROOT = Path(__file__).parents[2]


def row(pipeline, kind, us, predicted):
    scale = {"none": 0.0, "modelled": 1.0, "share": 2.0}[kind]
    return {"name": f"{pipeline}-0.45", "pipeline": pipeline, "share": 0.45, "kind": kind,
            "scale": scale, "us": us, "predicted_us": predicted}  # fmt: skip


@pytest.fixture
def results():
    programs = [{"name": f"{p}-0.45", "exchange_us": 40.0} for p in ("off", "full")]
    rows = [
        row("off", "none", [100.0, 101.0, 99.0], 90.0),
        row("off", "share", [180.0, 200.0, 190.0], 171.0),
        row("full", "none", [110.0, 110.0, 110.0], 99.0),
        row("full", "share", [120.0, 160.0, 130.0], 117.0),
    ]
    return Results({"programs": programs, "rows": rows})


def test_what_is_exposed_is_the_step_beyond_its_compute(results):
    full = results.facts(0.45, "share", "full")
    assert full["step"] == 130.0
    assert full["compute"] == 110.0
    assert full["exchange"] == 80.0
    assert full["exposed"] == 20.0
    assert full["hidden"] == pytest.approx(0.75)
    assert full["error"] == pytest.approx(-0.1)


def test_ratios_are_of_turns_of_one_round(results):
    assert results.facts(0.45, "share", "full")["ratio"][0] == pytest.approx(190 / 130)
    assert results.facts(0.45, "share", "off")["ratio"] == (1.0, 1.0, 1.0)


def test_without_exchanges_nothing_is_exposed(results):
    assert results.facts(0.45, "none", "full")["exposed"] == 0.0


def test_the_page_is_what_the_results_say(tmp_path):
    made = tmp_path / "page.md"
    render(ROOT / DATA, made)
    assert made.read_text() == (ROOT / PAGE).read_text()
