"""`lancet-jax whatif`: one module on many machines, under stated assumptions."""

import json

import jax
import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import OptionError
from hlo_passes.facts.other_meshes import experts_of, on_devices, with_experts
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.schedule.simulate import simulate
from lancet_jax.cli.app import run
from lancet_jax.report.whatif import what_if
from tests.steps import CASES


def graph_of(name):
    case = CASES[name](jax.devices())
    return Module.parse(jax.jit(case.step).lower(*case.args).as_text()).snapshot()


@pytest.fixture(scope="module")
def graph():
    return graph_of("scatter")


def targets(*names):
    return [parse_target(name) for name in names]


def test_the_own_machine_is_what_a_simulation_says(graph):
    (row,) = what_if("m", graph, targets("h100:1x8")).rows
    timeline = simulate(graph, TargetCosts(parse_target("h100:1x8")).for_graph(graph))
    assert row.step_us == timeline.makespan_us
    assert row.exposed_us == timeline.exposed_us
    assert row.bound_us <= row.dw_exposed_us + 1e-6
    assert row.dw_step_us <= row.step_us


def test_more_devices_keep_the_work_and_widen_the_exchanges(graph):
    near, far = what_if("m", graph, targets("h100:1x8", "h100:8x8")).rows
    assert near.compute_us == far.compute_us
    assert far.exchange_us > near.exchange_us
    assert what_if("m", graph, targets("h100:8x8")).assumed[1].startswith("where a target has not")


def test_parts_of_a_mesh_do_not_say_what_grows():
    graph = graph_of("two_axes")
    rows = what_if("m", graph, targets("h100:1x8", "h100:8x8", "h100:1x4")).rows
    assert not rows[0].error
    assert "which mesh axis grows" in rows[1].error
    assert "which mesh axis grows" in rows[2].error


def test_experts_are_counted_from_the_weights(graph):
    known = experts_of(graph)
    assert known.per_device == 2
    assert all(len(shape) == 3 and shape[0] == 2 for shape in known.shapes)


def test_sharing_experts_out_otherwise(graph):
    known = experts_of(graph)
    other = with_experts(graph, 8, known)
    assert with_experts(graph, 2, known) is graph
    before = [op for op in graph.ops if op.collective and op.collective.is_all_to_all]
    after = [op for op in other.ops if op.collective and op.collective.is_all_to_all]
    assert [op.collective.bytes for op in before] == [op.collective.bytes for op in after]
    assert {op.collective.groups for op in after} == {((0, 1), (2, 3), (4, 5), (6, 7))}
    sums = [op for op in other.ops if op.key.endswith("/sum")]
    weights = [v for v in graph.values if v.op < 0 and v.leaves[0].shape in known.shapes]
    assert len(sums) == len(weights)
    assert {op.collective.groups for op in sums} == {((0, 2, 4, 6), (1, 3, 5, 7))}
    assert sum(op.collective.bytes for op in sums) == 4 * sum(v.bytes for v in weights)
    held = [sum(v.bytes for v in g.values if v.op < 0) for g in (graph, other)]
    assert held[1] - held[0] == 3 * sum(v.bytes for v in weights)
    products = [sum(op.flops for op in g.ops if op.matmul) for g in (graph, other)]
    assert products[0] == products[1]
    assert all(p < op.id for op in other.ops for p in other.preds[op.id])
    for op in sums:
        assert other.users[op.operands[0]] == (op.id,)
        assert other.users[op.results[0]]


def test_all_experts_on_every_device_need_no_exchange(graph):
    none = with_experts(graph, 16, experts_of(graph))
    timeline = simulate(none, TargetCosts(parse_target("h100:1x8")).for_graph(none))
    assert timeline.exposed_all_to_all_us == 0
    assert sum(w.us for w in timeline.windows if w.is_all_to_all) == 0


@pytest.mark.parametrize("count", [1, 3, 5, 32])
def test_impossible_shares_are_refused(graph, count):
    with pytest.raises(OptionError, match="the module has 16 on 8 devices, 2 on each"):
        with_experts(graph, count, experts_of(graph))


def test_experts_in_loops_are_refused():
    with pytest.raises(OptionError, match="in a loop, or it has none"):
        experts_of(graph_of("scan_layers"))
    with pytest.raises(OptionError, match="or it has none"):
        experts_of(graph_of("dense"))


def test_no_devices_fewer_than_groups_is_priced_wrongly(graph):
    half = on_devices(graph, 4)
    assert half.devices == 4
    assert all(op.collective.groups == () for op in half.ops if op.collective)


def test_command(tmp_path, capsys):
    case = CASES["scatter"](jax.devices())
    path = tmp_path / "step.mlir"
    path.write_text(jax.jit(case.step).lower(*case.args).as_text())
    command = ["whatif", str(path), "--target", "a100:8x8,b200:1x8", "--experts-per-device", "2,3"]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["target"], r["experts"], bool(r["error"])) for r in found["rows"]] == [
        ("a100:8x8", 2, False), ("a100:8x8", 3, True),
        ("b200:1x8", 2, False), ("b200:1x8", 3, True),
    ]  # fmt: skip
    assert run(command) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "no figures for a100:8x8 with 3" in out
    assert "assumed: " in out
    assert run(["whatif", str(path), "--experts-per-device", "3"]) == 1
    capsys.readouterr()
    for options in (["-t", "k80"], ["--experts-per-device", "two"], ["--experts-per-device", "0"]):
        assert run(["whatif", str(path), *options]) == 2
        assert capsys.readouterr().err.startswith("error: ")
