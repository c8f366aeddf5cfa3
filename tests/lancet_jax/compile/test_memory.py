"""A memory limit and the table of time against memory, from a step and from the command line."""

import json

import jax
import numpy as np
import pytest

import lancet_jax
from hlo_passes.facts.footprint import footprint_of
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.pipelines import parse_pipeline
from hlo_passes.split_pass import MARGIN
from lancet_jax.cli import app
from lancet_jax.compile.cut_memory import CutMemory
from lancet_jax.errors import OptionError
from tests.hlo_passes.facts.test_footprint import greedy_step
from tests.steps import CASES

STEP = greedy_step(4096)


@pytest.fixture
def dump(tmp_path):
    path = tmp_path / "step.hlo.txt"
    path.write_text(STEP)
    return path


def run(capsys, *words):
    code = app.run([str(word) for word in words])
    return code, capsys.readouterr()


def copied(case):
    """Arguments that may be donated."""
    return jax.tree.map(lambda x: x.copy(), case.args)


def test_a_limit_binds_files(dump, capsys):
    """Of two limits the smaller keeps the order that needs less."""
    slack = ("-p", "schedule-dw{memory-slack=1}", "--json")
    free = json.loads(run(capsys, "plan", dump, *slack)[1].out)
    held = footprint_of(ScheduledModule(STEP).snapshot()).resident
    need = free["after"]["peak_bytes"]
    for limit, fits in ((held + need, True), (held + need - 1, False)):
        code, out = run(capsys, "plan", dump, *slack, "--memory-limit", limit)
        found = json.loads(out.out)
        assert code == 0
        assert (found["after"]["peak_bytes"] == need) is fits
        assert any("of arguments" in note for note in found["notes"])
    code, out = run(capsys, "plan", dump, "--memory-limit", "lots")
    assert code == 2
    assert "70GiB" in out.err


def test_the_table_is_shown_when_asked_for(dump, capsys):
    code, out = run(capsys, "plan", dump, "--pareto")
    assert code == 0
    assert "time against memory (predicted)" in out.out
    assert "order, memory +0%" in out.out
    assert "as planned" in out.out
    found = json.loads(run(capsys, "plan", dump, "--pareto", "--json")[1].out)
    times = [point["step_us"] for point in found["pareto"]]
    assert len(times) > 1
    assert times == sorted(times, reverse=True)
    assert "time against memory" not in run(capsys, "plan", dump)[1].out
    assert "pareto" not in json.loads(run(capsys, "plan", dump, "--json")[1].out)


def test_a_step_keeps_its_bits_and_its_limit():
    """With no room at all XLA's order stays, and the outcome says what is missing."""
    case = CASES["scatter"](jax.devices())
    expected = jax.jit(case.step, **case.jit_kwargs)(*copied(case))
    salts = set()
    for limit in (None, "1GiB", 1):
        step = lancet_jax.jit(case.step, target="h100:1x8", memory_limit=limit, **case.jit_kwargs)
        got = step(*copied(case))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        outcome = step.outcomes[-1]
        assert outcome.error is None
        salts.add(outcome.salt)
        said = [note for note in outcome.notes if note.startswith("memory limit")]
        assert len(said) == (limit is not None)
        assert any("no order is known that fits" in note for note in said) == (limit == 1)
        if limit == 1:
            assert not outcome.plan.orders
    assert len(salts) == 3
    report = lancet_jax.jit(case.step, target="h100:1x8", pipeline="best", **case.jit_kwargs)
    points = report.lower(*case.args).report().pareto()
    assert points
    assert [p.peak_bytes for p in points] == sorted(p.peak_bytes for p in points)


def test_no_cut_without_room():
    """A cut that needs more than there is loses the race, however short it makes the step."""
    case = CASES["scatter"](jax.devices())
    step = lancet_jax.jit(case.step, target="h100:1x8", pipeline="split-exchange{k=2}",
                          memory_limit=1, **case.jit_kwargs)  # fmt: skip
    plan = step.lower(*case.args).plan
    assert not plan.splits
    (said,) = {refusal.reason for refusal in plan.refusals if "needs" in refusal.reason}
    assert said.startswith("k=2 needs ")
    assert "a larger memory_limit" in said


def test_a_margin_for_cuts():
    """With a margin the race is run within it, orders included."""
    case = CASES["gshard_einsum"](jax.devices())

    def planned(pipeline):
        step = lancet_jax.jit(case.step, target="h100:1x8", pipeline=pipeline, **case.jit_kwargs)
        return step.lower(*case.args).plan

    free, bound = planned("choose-split{memory-slack=none}"), planned("choose-split")
    stock = free.race["off"].peak_bytes
    assert free.after.peak_bytes > (1 + MARGIN) * stock
    assert bound.after.peak_bytes <= (1 + MARGIN) * stock
    assert bound.race["off"].peak_bytes == stock


@pytest.mark.parametrize(("spec", "margin"), [
    ("split-region", MARGIN), ("choose-split", MARGIN), ("split-region{k=2}", None),
    ("split-exchange{k=2,memory-slack=0.3}", 0.3), ("split-region{memory-slack=none}", None),
])  # fmt: skip
def test_the_margin_is_off_where_parts_are_asked_for(spec, margin):
    (step,) = parse_pipeline(spec).passes
    assert step.margin == margin
    assert parse_pipeline(step.spec).passes == (step,)


def test_what_xla_makes_of_a_cut_step_is_held_against_the_margin():
    case = CASES["scatter"](jax.devices())
    step = lancet_jax.jit(case.step, target="h100:1x8", pipeline="split-exchange{k=2}",
                          **case.jit_kwargs)  # fmt: skip
    compiled = step.lower(*case.args).compile()
    needed = compiled.memory_analysis().temp_size_in_bytes
    (said,) = [n for n in compiled.outcome.notes if n.startswith("memory of the cut step")]
    assert f"{needed / 1e6:,.1f} MB of temporaries as compiled" in said
    executable = compiled.runtime_executable()
    (said,) = CutMemory(needed, 0.1).notes(executable, None)
    assert "margin" not in said
    _, said = CutMemory(needed, 0.1).notes(executable, 1000)
    assert "more than the limit of 0.0 MB" in said
    (said, *_) = CutMemory(needed * 10 // 12, 0.1).notes(executable, None)
    assert "+20%, more than the margin of +10%" in said


def test_a_bad_limit_is_an_error_at_once():
    with pytest.raises(OptionError, match="70GiB"):
        lancet_jax.jit(lambda x: x, memory_limit="a lot")
