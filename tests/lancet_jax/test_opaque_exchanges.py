"""Custom calls named as exchanges, from a step and from the command line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.ir.opaque import SYNCHRONOUS
from lancet_jax.cli import app
from tests.hlo_passes.ir.test_opaque import PAIR

FACTORS = lancet_jax.OpaqueExchange("lapack_spotrf_ffi", us=120.0)
"""A target that XLA:CPU has; that it moves no tokens is no matter here."""


@pytest.fixture(scope="module")
def body():
    """A step with an FFI call between its exchanges."""
    mesh = Mesh(np.array(jax.devices()), ("ep",))

    def inside(x, w):
        def loss(w):
            y = lax.all_to_all(x @ w, "ep", 0, 0, tiled=True)
            y = y @ jnp.linalg.cholesky(w @ w.T + 9 * jnp.eye(16))
            return jnp.sum(lax.all_to_all(y, "ep", 0, 0, tiled=True) ** 2)

        return w - 1e-4 * lax.pmean(jax.grad(loss)(w), "ep")

    return jax.shard_map(inside, mesh=mesh, in_specs=(P("ep"), P()), out_specs=P(), check_vma=False)


@pytest.fixture(scope="module")
def args():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((64, 16), (16, 16)))


def test_a_step_with_an_ffi_call(body, args):
    """It is priced as told, blocking with a reason, and the step gives the same bits."""
    step = lancet_jax.jit(lambda x, w: body(x, w), target="h100:1x8", opaque=(FACTORS,))
    expected = jax.jit(body)(*args)
    assert np.asarray(step(*args)).tobytes() == np.asarray(expected).tobytes()
    outcome = step.outcomes[-1]
    assert outcome.error is None
    assert any(SYNCHRONOUS in note for note in outcome.notes)
    report = step.lower(*args).compile().report()
    given = [w for w in report.after.windows if w.source == "given"]
    assert given
    assert all(w.us == w.exposed_us == 120.0 for w in given)
    assert SYNCHRONOUS.split()[-1] in str(report)


def test_another_list_is_another_program(body, args):
    """The list is part of what a compiled step is marked with, and of its plan."""
    salts, plans = set(), set()
    for opaque in ((), (FACTORS,), (lancet_jax.OpaqueExchange("lapack_spotrf_ffi", us=7.0),)):
        lowered = lancet_jax.jit(lambda x, w: body(x, w), target="h100:1x8", opaque=opaque)
        compiled = lowered.lower(*args).compile()
        salts.add(compiled.outcome.salt)
        plans.add(compiled.plan.module)
    assert len(salts) == len(plans) == 3


@pytest.fixture
def dump(tmp_path):
    path = tmp_path / "step.hlo.txt"
    path.write_text(PAIR)
    return path


def run(capsys, *words):
    code = app.run([str(word) for word in words])
    return code, capsys.readouterr()


def test_files(dump, tmp_path, capsys):
    """All commands on a step take the same option."""
    named = ("--opaque", "go+wait=200")
    code, out = run(capsys, "inspect", dump, *named, "--json")
    (found,) = json.loads(out.out)["exchanges"]
    assert (code, found["us"], found["source"]) == (0, 200.0, "given")
    plan = tmp_path / "plan.json"
    code, out = run(capsys, "plan", dump, *named, "-o", plan, "--json")
    totals = json.loads(out.out)
    assert code == 0
    assert totals["after"]["exposed_us"] < totals["before"]["exposed_us"] == 200.0
    moved = tmp_path / "moved.hlo"
    assert run(capsys, "opt", dump, *named, "--plan", plan, "-o", moved)[0] == 0
    assert moved.read_text() != PAIR
    assert run(capsys, "check", dump, *named, "--max-exposed", "199us")[0] == 1
    assert run(capsys, "check", moved, *named, "--max-exposed", "199us")[0] == 0
    assert "200" in run(capsys, "diff", dump, moved, *named)[1].out
    assert run(capsys, "view", dump, *named, "-o", tmp_path / "step.svg")[0] == 0
    code, out = run(capsys, "opt", dump, "--plan", plan, "-o", moved)
    assert code == 2
    assert "made for module" in out.err


def test_a_target_that_is_not_there(dump, capsys):
    """Is told, and bad spelling is an error of one line."""
    code, out = run(capsys, "inspect", dump, "--opaque", "gone=3")
    assert code == 0
    assert "no custom call has the target gone" in out.out
    code, out = run(capsys, "plan", dump, "--opaque", "go=fast")
    assert code == 2
    assert "START+DONE=US" in out.err
