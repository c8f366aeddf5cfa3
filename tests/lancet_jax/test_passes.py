"""`lancet-jax passes`: nothing that a pass takes is left unsaid."""

import dataclasses
import json

import pytest

from hlo_passes.base import parse_pass
from hlo_passes.describe import describe
from hlo_passes.pipelines import PASSES, PRESETS
from lancet_jax.cli.app import run


@pytest.mark.parametrize("cls", PASSES)
def test_every_option_is_described(cls):
    told = describe(cls)
    assert told.summary.endswith(".")
    assert [o.name for o in told.options] == [
        field.name.replace("_", "-") for field in dataclasses.fields(cls)
    ]
    for option in told.options:
        assert option.text, option.name
        assert option.kind != "value"


@pytest.mark.parametrize("cls", PASSES)
def test_defaults_can_be_written_back(cls):
    told = describe(cls)
    spec = ",".join(f"{o.name}={o.default}" for o in told.options)
    assert parse_pass(f"{told.name}{{{spec}}}", PASSES) == cls()


def test_command(capsys):
    assert run(["passes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["presets"] == PRESETS
    assert len(found["passes"]) == len(PASSES)
    assert run(["passes"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(cls.pass_name() in out for cls in PASSES)
    assert run(["passes", "schedule-dw"]) == 0
    assert "split-region" not in capsys.readouterr().out
    assert run(["passes", "faster"]) == 2
    assert "use one of" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "completion"
    assert run(["--install-completion", "--shell", shell, "--output", str(path)]) == 0
    script = path.read_text()
    for word in ("inspect", "whatif", "--max-exposed"):
        assert word in script
    capsys.readouterr()
