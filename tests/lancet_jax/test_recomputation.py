"""Reports tell recomputation from the rest of the backward pass."""

import json

import jax
import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.plans import Plan
from lancet_jax.cli import app
from lancet_jax.report.recomputation import RECOMPUTED, with_recomputation
from lancet_jax.report.report import Report
from tests.hlo_passes.facts.test_recompute import lowered, module_of

COSTS = TargetCosts(parse_target("h100:1x8"))


def reported(wrap):
    module = module_of(lowered(wrap))
    graph = module.snapshot()
    report = Report.of_plan("step", graph, COSTS.for_graph(graph), Plan(module="", target="t"))
    return report, with_recomputation(report, module)


def test_its_time_is_a_role_of_its_own():
    """What the note says is what the other roles have lost."""
    before, after = reported(jax.checkpoint)
    assert after.roles[RECOMPUTED] > 0
    assert sum(after.roles.values()) == pytest.approx(sum(before.roles.values()))
    assert any("repeat ops of the forward pass" in note for note in after.notes)
    before, after = reported(lambda layer: layer)
    assert after == before


def test_inspect_shows_it(tmp_path, capsys):
    """As a role, and in a note."""
    path = tmp_path / "step.mlir"
    path.write_text(module_of(lowered(jax.checkpoint)).text(locations=True))
    assert app.run(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["roles_us"][RECOMPUTED] > 0
    assert any("scoped as checkpointed" in note for note in found["notes"])
