"""Every block of the README does what it says."""

import re
import shlex
from pathlib import Path

import jax
import pytest

import lancet_jax
from lancet_jax.cli.app import run
from tests.hlo import STEP
from tests.steps import CASES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(name, language):
    """Return the code under the marker `<!-- name -->`."""
    match = re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    return match[1]


def test_your_own_step(capsys):
    case = CASES["scatter"](jax.devices())
    scope = {"train_step": case.step, "state": case.args[0], "batch": case.args[1]}
    exec(block("example", "python"), scope)
    assert "us per step" in capsys.readouterr().out
    assert float(scope["loss"]) > 0


def test_the_judge(capsys):
    case = CASES["scatter"](jax.devices())
    lowered = lancet_jax.jit(case.step, target="cpu:1x8").lower(*case.args)
    exec(block("judge", "python"), {"lowered": lowered, "compiled": lowered.compile()})
    assert "Verdict(step_us=" in capsys.readouterr().out


def test_compiling_for_a_cluster(capsys):
    code = block("aot", "python")
    exec(code, {})
    printed = capsys.readouterr().out
    shown = re.search(rf"{re.escape(code)}```\n\n```text\n(.*?)```", README, re.DOTALL)[1]
    assert printed == shown


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("step.txt").write_text(STEP)
    for line in block("cli", "sh").splitlines():
        command = shlex.split(line, comments=True)
        assert command[0] == "lancet-jax"
        assert run(command[1:]) == 0, line
    assert Path("plan.json").exists()
    assert Path("out.txt").read_text().startswith("HloModule")
    assert Path("page.html").read_text().startswith("<!doctype html>")
    capsys.readouterr()


def test_the_commands_are_the_ones_that_ci_runs():
    assert "lancet-jax demo" in block("demo", "sh")
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()
    assert block("tests", "sh").count("\n") == 1


def test_the_picture_is_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", README):
        assert (ROOT / path).stat().st_size > 1000


@pytest.mark.slow
def test_the_picture_can_be_made_again(tmp_path):
    import subprocess
    import sys

    out = tmp_path / "picture.svg"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.make_picture", str(out), "--layers", "2"], cwd=ROOT,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "<svg" in out.read_text()


@pytest.mark.slow
def test_the_demo(tmp_path):
    """In a process of its own, as a user runs it."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "from lancet_jax.cli import main; main()", "demo", "--layers", "2",
         "--steps", "20", "-o", str(tmp_path / "out")],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "bit-identical to plain jax.jit" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "report.txt", "report.json", "plan.json",
    }  # fmt: skip
