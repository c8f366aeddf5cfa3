"""What is missing is named, with the line that installs it."""

import pytest

import lancet_jax
from lancet_jax import doctor
from lancet_jax.cli.app import run
from lancet_jax.errors import UnsupportedError
from lancet_jax.seams import compiling, cuda


def test_no_cuda_plugin(monkeypatch, capsys):
    monkeypatch.setattr(cuda, "cuda_plugin", lambda: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'lancet-jax\[demo\]'"):
        _ = lancet_jax.aot.target("h100:1x8").devices
    findings = {f.name: f for f in doctor.examine()}
    assert findings["CUDA plugin"].ok is False
    assert "pip install" in findings["CUDA plugin"].remedy


def test_no_ptxas(monkeypatch):
    monkeypatch.setattr(cuda, "ptxas_directory", lambda: None)
    monkeypatch.setattr(cuda, "has_cuda_toolkit", lambda: False)
    monkeypatch.setattr(cuda, "load_cuda_compiler", lambda: True)
    with pytest.raises(UnsupportedError, match="pip install nvidia-cuda-nvcc-cu12"):
        _ = lancet_jax.aot.target("h100:1x8").devices


def test_no_flax(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lancet_jax.cli.demo.find_spec", lambda name: None)
    assert run(["demo"]) == 2
    printed = capsys.readouterr()
    assert "flax and optax not installed" in printed.err
    assert "pip install 'lancet-jax[demo]'" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_no_matplotlib(monkeypatch):
    import sys

    from lancet_jax.report import figure

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError, match="pip install matplotlib"):
        figure.save(None, "x.svg")


def test_a_broken_seam_is_a_finding_not_a_crash(monkeypatch):
    def broken(*args, **kwargs):
        raise AttributeError("gone")

    monkeypatch.setattr(compiling, "rewriting", broken)
    findings = {f.name: f for f in doctor.examine()}
    assert findings["post-scheduler stage: cpu"].ok is False
    assert "gone" in findings["post-scheduler stage: cpu"].detail
    assert run(["doctor", "--json"]) == 1


def test_unknown_devices_are_named():
    from lancet_jax.compile.job import resolve_target

    class Device:
        device_kind, process_index, platform = "Abacus 3000", 0, "gpu"

    with pytest.raises(lancet_jax.OptionError, match=r"(?s)Abacus 3000.*target"):
        resolve_target(None, [Device()] * 8)
