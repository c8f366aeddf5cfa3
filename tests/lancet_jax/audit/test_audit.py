"""The first call of a cut step is held against the uncut one, on the arguments of that call."""

import functools
import json
import re
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.mlir.dialects import stablehlo

import lancet_jax
from lancet_jax.audit import first_call, room
from lancet_jax.compile import before_xla, rewriter
from lancet_jax.errors import AuditWarning, OptionError
from tests.lancet_jax.audit.audit_steps import (
    PIPELINE,
    adding,
    arguments,
    inside,
    noisy,
    planting,
    rounding,
    stepped,
)

EQUAL = re.compile(
    r"audited at the first call: (\d+) of \1 outputs (bit-identical|equal within \S+)"
)


@functools.cache
def plain(body=inside):
    return jax.jit(stepped(body))


def wrapped(body=inside, **options):
    options = {"pipeline": PIPELINE, "on_unsupported": "raise", "donate_argnums": 0} | options
    return lancet_jax.jit(stepped(body), **options)


def said(outcome):
    """Return what is noted of the audit."""
    return [note for note in outcome.notes if "audited" in note]


def same(a, b, bound=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=0, atol=bound * np.abs(x).max())


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """Let folders be written to a place that is cleared away."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def wrong(monkeypatch):
    plant(monkeypatch, adding)


@pytest.fixture
def inexact(monkeypatch):
    plant(monkeypatch, rounding)


def plant(monkeypatch, fault):
    monkeypatch.setattr(before_xla, "candidates_of", fault(before_xla.candidates_of))
    monkeypatch.setattr(first_call, "_dropped", set())


def test_a_first_call_is_audited_and_later_ones_are_not():
    step, (state, x) = wrapped(), arguments()
    expected, again = plain()(state, x), plain()(*arguments())
    state, loss = step(state, x)
    same(expected, (state, loss))
    (outcome,) = step.outcomes
    assert outcome.cuts
    (note,) = said(outcome)
    assert EQUAL.match(note).group(1) == "5"
    same(plain()(again[0], x), step(state, x))
    assert said(step.outcomes[-1]) == [note]
    assert len(step.outcomes) == 1


def test_a_step_compiled_ahead_is_audited_when_it_is_called():
    state, x = arguments()
    compiled = wrapped().lower(state, x).compile()
    assert said(compiled.outcome) == [first_call.DUE]
    assert first_call.DUE in compiled.report().notes
    state, _ = compiled(state, x)
    (note,) = said(compiled.outcome)
    assert EQUAL.match(note)
    assert note in compiled.report().notes
    compiled(state, x)


def test_what_is_donated_is_gone_and_nothing_else():
    step, (state, x) = wrapped(), arguments()
    step(state, x)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state["w"]))
    assert not x.is_deleted()
    kept, x = arguments()
    wrapped(donate_argnums=())(kept, x)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept["w"]))


def test_every_shape_is_audited_once():
    step = wrapped()
    for rows in (16, 32, 16):
        step(*arguments(rows))
    assert [len(said(outcome)) for outcome in step.outcomes] == [1, 1]


def test_a_wrong_cut_is_dropped_for_good(wrong):
    expected = plain()(*arguments())
    step = wrapped()
    with pytest.warns(AuditWarning, match=r"result\[0\]\['w'\]\['down'\]") as caught:
        got = step(*arguments())
    same(expected, got, 0)
    (outcome,) = step.outcomes
    assert not outcome.cuts
    assert "left whole" in said(outcome)[0]
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert "1 of 5 outputs differ" in text
    folder = Path(re.search(r"send in (\S+);", text).group(1))
    check_folder(folder)
    same(plain()(expected[0], arguments()[1]), step(*got[:1], arguments()[1]), 0)
    with pytest.raises(lancet_jax.LancetError, match="other numbers than uncut"):
        wrapped().lower(*arguments()).compile()
    other = wrapped(on_unsupported="ignore")
    same(expected, other(*arguments()), 0)
    assert not other.outcomes[-1].cuts


def check_folder(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {"step.mlir", "cut.mlir", "cut.hlo", "uncut.hlo", "plan-0.json", "plan-1.json",
                     "versions.json", "outputs.txt"}  # fmt: skip
    step, cut = ((folder / name).read_text() for name in ("step.mlir", "cut.mlir"))
    assert cut.count("stablehlo.all_to_all") > step.count("stablehlo.all_to_all") > 0
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert versions["pipeline"] == PIPELINE
    marked = [line for line in (folder / "outputs.txt").read_text().splitlines() if "WRONG" in line]
    assert len(marked) == 1
    assert marked[0].startswith("result[0]['w']['down']  (16, 4) float32")


def test_a_wrong_cut_compiled_ahead_is_replaced(wrong):
    state, x = arguments()
    expected = plain()(state, x)
    compiled = wrapped().lower(state, x).compile()
    before = compiled.as_text()
    with pytest.warns(AuditWarning):
        got = compiled(state, x)
    same(expected, got, 0)
    same(plain()(expected[0], x), compiled(got[0], x), 0)
    assert compiled.as_text().count("all-to-all(") < before.count("all-to-all(")
    assert any("left whole" in note for note in compiled.report().notes)


def test_no_audit_where_it_is_turned_off(wrong):
    step = wrapped(audit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = step(*arguments())
    assert not said(step.outcomes[-1])
    with pytest.raises(AssertionError):
        same(plain()(*arguments()), got)
    with pytest.raises(OptionError, match="audit"):
        wrapped(audit="always")


def test_a_step_that_is_only_ordered_is_not_audited():
    step = wrapped(pipeline="schedule-dw")
    step(*arguments())
    assert not said(step.outcomes[-1])


def test_a_step_that_calls_back_runs_once_and_says_so():
    calls = []

    def body(state, x):
        jax.debug.callback(lambda value: calls.append(float(value)), jnp.sum(x))
        return inside(state, x)

    step = wrapped(body)
    step(*arguments())
    jax.effects_barrier()
    assert len(calls) == 8
    assert said(step.outcomes[-1]) == [
        "not audited: it calls back to the host, and is not run twice"
    ]


def test_rounding_that_a_step_blows_up_is_no_fault(inexact):
    step = wrapped(noisy, donate_argnums=())
    got, _ = step(*arguments())
    expected, _ = plain(noisy)(*arguments())
    assert np.abs(expected["shift"]).max() > 0.5
    same(expected, got, 0)
    (outcome,) = step.outcomes
    assert outcome.cuts
    assert (
        "1 of 2 outputs bit-identical; 1 more (result[0]['shift']) differ no more"
        in said(outcome)[0]
    )


def test_projections_are_compared_where_there_is_no_room(monkeypatch):
    monkeypatch.setattr(room.Room, "of", staticmethod(lambda *_: room.Room.ONE))
    step = wrapped()
    same(plain()(*arguments()), step(*arguments()), 0)
    (note,) = said(step.outcomes[-1])
    assert EQUAL.match(note)
    assert "by random projections" in note
    assert step.outcomes[-1].cuts


def test_projections_find_a_wrong_cut(monkeypatch, wrong):
    monkeypatch.setattr(room.Room, "of", staticmethod(lambda *_: room.Room.ONE))
    step = wrapped()
    with pytest.warns(AuditWarning, match=r"result\[0\]\['w'\]\['down'\]"):
        got = step(*arguments())
    same(plain()(*arguments()), got, 0)


def test_no_audit_where_there_is_no_room_at_all(monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda _: 100.0)
    step = wrapped()
    same(plain()(*arguments()), step(*arguments()))
    assert said(step.outcomes[-1]) == ["not audited: the uncut results do not fit into memory"]


def test_static_arguments_and_methods():
    class Model:
        @functools.partial(lancet_jax.jit, pipeline=PIPELINE, static_argnums=(0, 3))
        def train(self, state, x, is_fast):
            state, loss = stepped()(state, x)
            return (state, loss) if is_fast else (state, loss + 1)

    model = Model()
    state, loss = model.train(*arguments(), True)
    same(plain()(*arguments()), (state, loss))
    slow = model.train(*arguments(), False)
    same((state, loss + 1), slow)
    assert [EQUAL.match(said(o)[0]) is not None for o in Model.train.outcomes] == [True, True]


def test_inside_another_function_it_is_said_who_is_audited():
    step = wrapped(donate_argnums=())
    same(plain()(*arguments()), jax.jit(lambda *args: step(*args))(*arguments()))
    (outcome,) = step.outcomes
    assert "audited only if that one is wrapped itself" in outcome.notes[0]
    outer = lancet_jax.jit(lambda *args: step(*args), pipeline=PIPELINE)
    same(plain()(*arguments()), outer(*arguments()))
    assert EQUAL.match(said(outer.outcomes[-1])[0])


def test_what_is_compiled_and_cached_is_the_same_with_and_without():
    audited, plainly = (wrapped(audit=a).lower(*arguments()).compile() for a in ("first", False))
    assert audited.outcome.salt == plainly.outcome.salt != ""
    assert audited.as_text() == plainly.as_text()


def test_plain_jit_is_not_audited(monkeypatch):
    monkeypatch.setenv("LANCET_JAX_DISABLE", "1")
    step = wrapped()
    same(plain()(*arguments()), step(*arguments()), 0)
    assert step.outcomes == ()


def test_what_is_compiled_for_another_machine_is_not_audited(monkeypatch):
    monkeypatch.setattr(rewriter.backends, "is_compile_only", lambda device: True)
    compiled = wrapped().lower(*arguments()).compile()
    assert compiled.outcome.cuts
    assert not said(compiled.outcome)


def test_a_cut_that_makes_no_numbers_is_wrong(monkeypatch):
    def no_number(op):
        return stablehlo.log(stablehlo.negate(stablehlo.abs(op.operands[0])))

    def fault(rewrite):
        return planting(rewrite, lambda op: op.name == "stablehlo.tanh", no_number)

    plant(monkeypatch, fault)
    step = wrapped()
    with pytest.warns(AuditWarning, match="differs in where it is a number"):
        same(plain()(*arguments()), step(*arguments()), 0)


@pytest.mark.parametrize("failing", ["first", "second"])
def test_a_program_that_cannot_run_beside_the_other_is_no_hindrance(monkeypatch, failing):
    calls, run = [], first_call.calls.Program.__call__

    def short_of_memory(program, args):
        calls.append(program)
        if len(calls) == {"first": 1, "second": 2}[failing]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 90 GB")
        return run(program, args)

    monkeypatch.setattr(first_call.calls.Program, "__call__", short_of_memory)
    step = wrapped()
    same(plain()(*arguments()), step(*arguments()))
    assert said(step.outcomes[-1]) == ["not audited: RESOURCE_EXHAUSTED: 90 GB"]


def test_an_uncut_step_that_does_not_compile_is_no_hindrance(monkeypatch):
    def fail(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 90 GB\nmore")

    monkeypatch.setattr(first_call.calls, "_compiled", fail)
    step = wrapped()
    same(plain()(*arguments()), step(*arguments()))
    assert said(step.outcomes[-1])[0].startswith("not audited: uncut it does not compile: RESOURCE")
