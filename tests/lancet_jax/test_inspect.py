"""`lancet-jax inspect`: which file, which exchange, who could hide it, and why an op is there."""

import json
import os
import subprocess
import sys

import jax
import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.facts.exchange_labels import labels_of, scope_steps
from hlo_passes.facts.moe_roles import MoePart, moe_parts_of
from hlo_passes.facts.reach import Reach
from hlo_passes.facts.roles import Role, roles_of
from hlo_passes.ir.hlo.dump_folder import choose_module
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.schedule.problem import Lane
from hlo_passes.schedule.simulate import Simulator
from lancet_jax.cli.app import run
from lancet_jax.report.inspection import inspection_of
from tests.hlo import STEP
from tests.steps import CASES

H100 = parse_target("h100:1x8")


@pytest.fixture(scope="module")
def lowered():
    case = CASES["scatter"](jax.devices())
    return jax.jit(case.step).lower(*case.args)


def simulator_of(text):
    graph = Module.parse(text).snapshot()
    return Simulator(graph, TargetCosts(H100).for_graph(graph))


def test_layers_and_directions_mirror(lowered):
    labels = list(labels_of(Module.parse(lowered.as_text(debug_info=True)).snapshot()).values())
    tokens = [(str(label), label.layer) for label in labels if label.layer]
    assert tokens == [
        ("fwd dispatch", "layer 0"), ("fwd combine", "layer 0"),
        ("fwd dispatch", "layer 1"), ("fwd combine", "layer 1"),
        ("bwd dispatch", "layer 1"), ("bwd combine", "layer 1"),
        ("bwd dispatch", "layer 0"), ("bwd combine", "layer 0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "steps"),
    [
        ("jit(f)/shard_map/jvp(block_0)/moe/dispatch/all_to_all", ("block_0", "moe", "dispatch")),
        ("jit(f)/transpose(jvp(jit(layer)))/dot_general", ()),
        ("jit(f)/transpose(jvp())/while/body/checkpoint/add", ()),
        ("GPT/layers_3/moe/psum", ("GPT", "layers_3", "moe")),
        ("", ()),
    ],
)
def test_scopes_lose_what_jax_wrote(scope, steps):
    assert scope_steps(scope) == steps


def test_experts_and_gates_are_found_by_dataflow(lowered):
    graph = Module.parse(lowered.as_text()).snapshot()
    roles, labels = roles_of(graph), labels_of(graph)
    parts = moe_parts_of(graph, roles, labels)
    products = [
        (str(parts[op.id]), str(roles[op.id])) for op in graph.ops if op.matmul
    ]  # fmt: skip
    count = {pair: products.count(pair) for pair in set(products)}
    assert count["expert", "forward"] == 2 * 2
    assert count["expert", "dW"] == 2 * 2
    assert count["gate", "forward"] == 2
    exchanges = [op for op in graph.ops if op.collective]
    assert all(parts[op.id] is MoePart.NONE for op in exchanges)


def test_fillers_are_independent_and_longest(lowered):
    simulator = simulator_of(lowered.as_text())
    graph, problem = simulator.graph, simulator.problem
    found = inspection_of("step", simulator)
    reach = Reach.of(problem, graph.exchanges)
    byname = {op.key: op.id for op in graph.ops}
    assert len(found.exchanges) == len(graph.exchanges)
    for e in found.exchanges:
        free = [op for op in range(problem.size) if problem.lane[op] is Lane.COMPUTE
                and problem.us[op] > 0 and reach.may_overlap(op, byname[e.op])]  # fmt: skip
        assert e.could_hide_us == pytest.approx(sum(problem.us[op] for op in free))
        longest = sorted((problem.us[op] for op in free), reverse=True)[:3]
        assert [f.us for f in e.fillers] == pytest.approx(longest)
        assert all(byname[f.op] in free for f in e.fillers)
    total = sum(found.roles_us.values())
    assert total == pytest.approx(found.timeline.compute_us)


def test_time_in_loops_has_roles():
    case = CASES["scan_layers"](jax.devices())
    found = inspection_of("s", simulator_of(jax.jit(case.step).lower(*case.args).as_text()))
    assert found.roles_us["dW"] > 0
    assert found.roles_us["expert dX"] > 0
    assert sum(found.roles_us.values()) == pytest.approx(found.timeline.compute_us)


WRAPPED = """HloModule jit_step, is_scheduled=true, num_partitions=8

%async (p: bf16[8,64]) -> bf16[8,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  ROOT %a2a.1 = bf16[8,64]{1,0} all-to-all(%p), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY %main (x: bf16[8,64]) -> bf16[8,64] {
  %x = bf16[8,64]{1,0} parameter(0)
  %start = ((bf16[8,64]{1,0}), bf16[8,64]{1,0}) async-start(%x), calls=%async
  %y = bf16[8,64]{1,0} negate(%x)
  %done = bf16[8,64]{1,0} async-done(%start)
  ROOT %r = bf16[8,64]{1,0} add(%done, %y)
}
"""


def test_exchanges_in_async_wrappers_are_seen():
    """Dumps spell some all-to-alls `async-start`, with the exchange in a computation of its own."""
    graph = ScheduledModule(WRAPPED).snapshot()
    (exchange,) = graph.exchanges
    assert graph.ops[exchange].collective.kind == "all_to_all"
    assert graph.ops[exchange].collective.bytes == 8 * 64 * 2
    assert graph.done_of[exchange] == 3
    timeline = Simulator(graph, TargetCosts(H100).for_graph(graph)).timeline()
    assert timeline.windows[0].exposed_us < timeline.windows[0].us


def test_an_element_of_a_tuple_is_not_all_of_it():
    text = """HloModule m, is_scheduled=true

ENTRY %main (p: (f32[8], f32[1000])) -> f32[8] {
  %p = (f32[8]{0}, f32[1000]{0}) parameter(0)
  ROOT %r = f32[8]{0} negate(%p#0)
}
"""
    assert ScheduledModule(text).snapshot().ops[1].bytes == 2 * 8 * 4


def test_synchronous_exchanges_are_named(tmp_path, capsys):
    path = tmp_path / "step.txt"
    config = ', backend_config={"collective_backend_config":{"is_sync":true}}'
    path.write_text(STEP.replace("dimensions={0}, metadata", f"dimensions={{0}}{config}, metadata"))
    assert run(["inspect", str(path)]) == 0
    assert "XLA made it synchronous" in capsys.readouterr().out
    assert run(["inspect", str(path), "--why", "dw"]) == 0
    assert "exposed, but XLA made it" in capsys.readouterr().out


def test_what_orders_ops_apart_from_data_is_told(tmp_path, capsys):
    path = tmp_path / "step.txt"
    dw = "%dw = bf16[64,64]{1,0} custom-call(%x, %y)"
    assert dw in STEP
    path.write_text(STEP.replace(dw, f"{dw}, control-predecessors={{%a2a-done}}"))
    assert run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "us of work are kept from it by effects or control, not data" in out
    assert "only a split helps" not in out
    assert run(["inspect", str(path), "--why", "dw"]) == 0
    assert "fwd dispatch layer 0, not by data: a2a-start > a2a-done > dw" in capsys.readouterr().out
    assert run(["check", str(path), "--max-exposed", "0%"]) == 1
    assert run(["check", str(path), "--max-exposed", "0%", "--json"]) == 1
    assert "kept from it by effects or control" in capsys.readouterr().out


def test_why(tmp_path, capsys):
    path = tmp_path / "step.txt"
    path.write_text(STEP)
    assert run(["inspect", str(path), "--why", "dw", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["us"] == 12.5
    assert answer["source"] == "xla"
    (relation,) = answer["exchanges"]
    assert relation["may_overlap"]
    assert relation["path"] == []
    assert run(["inspect", str(path), "--why", "%gemm", "--json"]) == 0
    (relation,) = json.loads(capsys.readouterr().out)["exchanges"]
    assert relation["path"] == ["a2a-start", "a2a-done", "gemm"]
    assert relation["needs"]
    assert run(["inspect", str(path), "--why", "gemm"]) == 0
    out = capsys.readouterr().out
    assert "needs, so it starts after 1 exchange" in out
    assert max(map(len, out.splitlines())) <= 80
    for name, message in (("nothing", "no op has this name"), ("custom_call", "2 ops are called")):
        assert run(["inspect", str(path), "--why", name]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real dump folder: two compiles of a step, and small functions."""
    code = """
import jax, jax.numpy as jnp
jax.config.update("jax_platforms", "cpu"); jax.config.update("jax_num_cpu_devices", 8)
from tests.steps import CASES
jax.jit(lambda x: x + 1)(jnp.ones(4))
for name in ("scatter", "scatter"):
    case = CASES[name](jax.devices())
    jax.jit(case.step).lower(*case.args).compile()
"""
    folder = tmp_path_factory.mktemp("dumps") / "dump"
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_as_proto"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": flags},
                   capture_output=True)  # fmt: skip
    return folder


def test_a_dump_folder_gives_its_step(folder, capsys):
    choice = choose_module(folder)
    assert choice.chosen.module == "jit_step"
    assert choice.chosen.stage.endswith("after_optimizations")
    assert "before_optimizations" in choice.stages
    assert choice.earlier == 1
    assert choice.others
    numbers = [int(p.name.split(".")[0].removeprefix("module_")) for p in folder.glob("*jit_step*")]
    assert choice.chosen.number == max(numbers)
    assert run(["inspect", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["scheduled"]
    assert len(facts["exchanges"]) == 9
    assert choice.chosen.path.name in facts["notes"][0]


def test_text_and_proto_of_one_dump_agree(folder, capsys):
    """Dumps write `%x#1` where protos have a get-tuple-element."""
    chosen = choose_module(folder).chosen
    stem = chosen.path.name.removesuffix(".txt").removesuffix(".hlo.pb")
    seen = []
    for suffix in (".txt", ".hlo.pb"):
        assert run(["inspect", str(folder / (stem + suffix)), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        seen.append({k: facts[k] for k in ("step_us", "compute_us", "exposed_us", "exchange_us")})
    assert seen[0] == seen[1]


def test_export_artifacts_need_no_classes(lowered, tmp_path, capsys):
    """The module in a `jax.export` artifact is read whatever its trees are made of."""
    pytest.importorskip("flatbuffers")
    case = CASES["scatter"](jax.devices())
    exported = jax.export.export(jax.jit(case.step))(*case.args)
    contents = {"a.export": bytes(exported.serialize()), "a.bc": exported.mlir_module_serialized}
    seen = []
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        assert run(["inspect", str(tmp_path / name), "--json"]) == 0
        seen.append(json.loads(capsys.readouterr().out))
    assert seen[0] == seen[1]
    assert sum(e["kind"] == "all_to_all" for e in seen[0]["exchanges"]) == 8


def test_a_reader_that_stops_is_no_error(tmp_path):
    path = tmp_path / "step.txt"
    path.write_text(STEP)
    code = "from lancet_jax.cli import main; main()"
    command = f'{sys.executable} -c "{code}" inspect {path} --json | head -1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout == "{\n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_foreign_estimates_are_not_taken(tmp_path, capsys):
    """XLA's estimates in a dump for one device say nothing about another."""
    path = tmp_path / "module_0001.jit_step.sm_9.0_gpu_after_optimizations.txt"
    path.write_text(STEP)
    seen = {}
    for target in ("h100:1x8", "a100:1x8"):
        assert run(["inspect", str(path), "--target", target, "--json"]) == 0
        seen[target] = json.loads(capsys.readouterr().out)["sources_us"]
    assert "xla" in seen["h100:1x8"]
    assert "xla" not in seen["a100:1x8"]


def test_optimizers_and_gradient_sums_are_no_experts(lowered):
    graph = Module.parse(lowered.as_text()).snapshot()
    roles = roles_of(graph)
    parts = moe_parts_of(graph, roles, labels_of(graph))
    updates = [parts[op] for op in range(len(graph.ops)) if roles[op] is Role.OPTIMIZER]
    assert updates
    assert set(updates) == {MoePart.NONE}
