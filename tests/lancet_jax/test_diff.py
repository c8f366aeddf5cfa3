"""`lancet-jax diff`: ops are known by what they compute, not by name or place."""

import json

import jax
import pytest

from hlo_passes.facts.diff import changes_between
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from lancet_jax.cli.app import run
from tests.hlo import STEP
from tests.steps import CASES


@pytest.fixture(scope="module")
def module():
    case = CASES["scatter"](jax.devices())
    return Module.parse(jax.jit(case.step).lower(*case.args).as_text())


def test_a_module_is_no_different_from_itself(module):
    graph = module.snapshot()
    assert not changes_between(graph, module.copy().snapshot())
    same = changes_between(graph, module.copy().snapshot()).same
    assert len(same) == sum(not op.is_free for op in graph.ops)


def test_a_schedule_moves_and_changes_nothing_else(module):
    from hlo_passes.base import Context
    from hlo_passes.cost.roofline import TargetCosts
    from hlo_passes.cost.target import parse_target
    from hlo_passes.schedule_dw import ScheduleDw

    graph = module.snapshot()
    costs = TargetCosts(parse_target("v100:1x8")).for_graph(graph)
    step = ScheduleDw(memory_slack=10.0)
    plan = step.plan(graph, Context(costs=costs, fingerprint=module.fingerprint))
    assert plan.orders
    found = changes_between(graph, step.apply(module, plan).module.snapshot())
    assert found.moved
    assert not (found.added)
    assert not (found.gone)
    assert not (found.changed)


def test_what_changed_came_and_went():
    first = ScheduledModule(STEP).snapshot()
    wider = ScheduledModule(STEP.replace("%dw = bf16[64,64]", "%dw = f32[64,64]")).snapshot()
    found = changes_between(first, wider)
    assert [(x.name, y.name) for x, y in found.changed] == [("dw", "dw")]
    assert not (found.added)
    assert not (found.gone)
    assert not (found.moved)
    lines = STEP.splitlines()
    at = next(i for i, line in enumerate(lines) if "%dw =" in line)
    lines.insert(at, "  %new = bf16[8,64]{1,0} negate(%y)")
    found = changes_between(first, ScheduledModule("\n".join(lines)).snapshot())
    assert [op.name for op in found.added] == ["new"]
    assert not (found.gone)
    assert not (found.changed)
    assert not (found.moved)
    found = changes_between(ScheduledModule("\n".join(lines)).snapshot(), first)
    assert [op.name for op in found.gone] == ["new"]


def test_renaming_is_no_change():
    text = STEP.replace("a2a", "talk").replace("%dw", "%grad")
    assert not changes_between(ScheduledModule(STEP).snapshot(), ScheduledModule(text).snapshot())


def test_an_op_far_up_does_not_change_all_below_it(module):
    text = module.text()
    at = text.index("stablehlo.tanh") if "stablehlo.tanh" in text else text.index("stablehlo.rsqrt")
    name = text[at : text.index(" ", at)]
    other = "stablehlo.sqrt" if name != "stablehlo.sqrt" else "stablehlo.cbrt"
    changed = Module.parse(text[:at] + other + text[at + len(name) :])
    found = changes_between(module.snapshot(), changed.snapshot())
    assert len(found.added) + len(found.changed) <= 1
    assert len(found.gone) + len(found.changed) <= 1
    assert found.added or found.changed


def test_command(tmp_path, capsys):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    lines = STEP.splitlines()
    moved = next(i for i, line in enumerate(lines) if "%dw =" in line)
    done = next(i for i, line in enumerate(lines) if "%a2a-done =" in line)
    lines.insert(done, lines.pop(moved))
    first.write_text(STEP)
    second.write_text("\n".join(lines))
    assert run(["diff", str(first), str(second), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["added"], found["gone"], found["changed"]) == ([], [], [])
    assert len(found["moved"]) == 1
    before, after = found["totals"]["exposed us"]
    assert after < before
    (layer,) = found["layers"]
    assert layer["exposed_us"] == pytest.approx([before, after])
    assert run(["diff", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "1 of them moved" in out
    assert run(["diff", str(first), str(tmp_path / "none")]) == 2
    capsys.readouterr()
