"""`lancet-jax opt` and `plan` on files of steps that XLA has yet to partition."""

import json

import jax
import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.files import load
from hlo_passes.plans import Plan
from lancet_jax.cli.app import run
from lancet_jax.cli.opt import as_planned, follow
from lancet_jax.errors import UnsupportedError
from lancet_jax.seams import backends, compiling, programs
from tests.auto_steps import IDIOMS
from tests.lancet_jax.test_split import BOUND, distance

CUT = "split-exchange{k=2}"
CPU = ["--target", "cpu:1x8"]
COSTS = TargetCosts(parse_target("cpu:1x8"))


@pytest.fixture(scope="module")
def case():
    return IDIOMS["auto_sharded"](jax.devices()[:8])


@pytest.fixture(scope="module")
def lowered(case):
    return jax.jit(case.step).lower(*case.args)


@pytest.fixture(scope="module")
def dump(lowered, tmp_path_factory):
    path = tmp_path_factory.mktemp("auto") / "step.mlir"
    path.write_text(lowered.as_text())
    return path


class Given:
    """Compiles a module of our own instead of what jit lowered."""

    def __init__(self, module):
        self.module = module

    def compile(self, request, xla):
        return xla.compile(self.module if len(request.devices) > 1 else None)


def test_a_dump_is_partitioned_cut_and_computes_the_same(case, lowered, dump, tmp_path, capsys):
    """Its plan is of the partitioned step, and can be followed."""
    plan, out = tmp_path / "plan.json", tmp_path / "out.mlir"
    assert run(["plan", str(dump), "-p", CUT, *CPU, "-o", str(plan), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert any(note.startswith("partitioned first") for note in found["notes"])
    assert run(["opt", str(dump), "-p", CUT, *CPU, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "cut into 2 parts" in said
    assert "partitioned first: " in said
    module = load(out)
    assert module.is_local
    assert Plan.load(plan).splits
    assert follow(as_planned(load(dump), Plan.load(plan), COSTS), Plan.load(plan)).fingerprint == (
        module.fingerprint
    )
    expected = jax.jit(case.step)(*case.args)
    with compiling.rewriting(Given(module.ir)):
        got = programs.uncached(lowered).compile()(*case.args)
    assert distance(expected, got) <= BOUND


def test_what_is_not_cut_is_not_partitioned(dump, tmp_path, capsys):
    out = tmp_path / "out.mlir"
    assert run(["opt", str(dump), "-p", "dw", *CPU, "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
    assert load(out).fingerprint == load(dump).fingerprint


def test_a_module_that_does_not_say_how_many_devices_says_what_to_do(dump, tmp_path, capsys):
    path, out = tmp_path / "bare.mlir", tmp_path / "out.mlir"
    path.write_text(dump.read_text().replace("mhlo.num_partitions = 8", "mhlo.num_partitions = 1"))
    assert run(["opt", str(path), "-p", CUT, *CPU, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "not partitioned first: it has a mesh of 8 devices" in said
    assert "dump it whole" in said


def test_too_few_devices_are_named_with_a_remedy():
    with pytest.raises(UnsupportedError, match="JAX_NUM_CPU_DEVICES=4096"):
        backends.cpu_devices(4096)
