"""What is measured, how it is kept, and who uses it. Never how long anything took."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from msgspec.structs import replace

from hlo_passes.cost.fusion import kernels
from hlo_passes.cost.model import CostSource
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import InputError
from hlo_passes.ir.stablehlo.module import Module
from lancet_jax.calibrate import Kernel, Measuring, Probe, kernels_of, probes_of, time_all
from lancet_jax.calibrate.measure import rising, runner
from lancet_jax.cli.app import run
from tests.hlo import STEP


def toy(x, w):
    def loss(w):
        y = lax.all_to_all(x @ w, "ep", 0, 0, tiled=True)
        y = jnp.tanh(y @ w) * 2 + 1
        return jnp.sum(lax.all_to_all(y, "ep", 0, 0, tiled=True) ** 2)

    return w - 0.1 * lax.pmean(jax.grad(loss)(w), "ep")


@pytest.fixture(scope="module")
def text():
    mesh = Mesh(np.array(jax.devices()), ("ep",))
    step = jax.shard_map(toy, mesh=mesh, in_specs=(P("ep"), P()), out_specs=P(), check_vma=False)
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 16), (16, 16))]
    return jax.jit(step).lower(*shapes).as_text()


@pytest.fixture
def module(text):
    return Module.parse(text)


@pytest.fixture
def file(text, tmp_path):
    (tmp_path / "step.mlir").write_text(text)
    return tmp_path / "step.mlir"


def table_of(found, us=50.0):
    ops = tuple(replace(kernel.entry, us=us, spread=0.1) for kernel in found)
    return CostTable(source="measured", target="cpu:1x8", date="2026-11-24", ops=ops)


def test_every_op_that_costs_something_is_a_kernel(module):
    graph, found = module.snapshot(), kernels_of([module])
    costs = TargetCosts(parse_target("cpu:1x8"), measured=table_of(found.values()))
    costs = costs.for_graph(graph)
    for op in graph.ops:
        if op.collective is None and costs.compute(op).us > 0:
            assert costs.compute(op).source is CostSource.MEASURED
    priced = [op for op in graph.ops if op.collective is None and costs.compute(op).us > 0]
    assert len(priced) == len(kernels(graph))


def test_kernels_of_a_step_compile_and_give_what_the_step_gives(module):
    found = kernels_of([module]).values()
    for kernel in found:
        results = runner(kernel.program, kernel.inputs)()
        assert all(np.isfinite(np.asarray(result)).all() for result in results)
    assert any(kernel.entry.kind == "dot_general" for kernel in found)


def test_a_fused_chain_is_one_kernel_with_a_name_of_its_own():
    def module_of(fun):
        return Module.parse(jax.jit(fun).lower(jnp.ones((64, 64))).as_text())

    (one,) = kernels_of([module_of(lambda x: jnp.tanh(x) * 2 + 1)]).values()
    (other,) = kernels_of([module_of(lambda x: jnp.tanh(x) * 2 - 1)]).values()
    (again,) = kernels_of([module_of(lambda x: jnp.tanh(x) * 2 + 1)]).values()
    assert "tanh" in one.program
    assert one.entry.kernel == again.entry.kernel != other.entry.kernel


def test_what_was_not_measured_is_scaled_by_its_kind(module):
    graph, costs = module.snapshot(), TargetCosts(parse_target("cpu:1x8"))
    plain = costs.for_graph(graph)
    dots = [op for op in graph.ops if op.kind == "dot_general"]
    first, *others = (k for k in kernels_of([module]).values() if k.entry.kind == "dot_general")
    assert others
    measured = table_of([first], us=1.0)
    costs = TargetCosts(parse_target("cpu:1x8"), measured=measured).for_graph(graph)
    sources = {costs.compute(op).source for op in dots}
    assert sources == {CostSource.MEASURED, CostSource.FITTED}
    ratios = {round(costs.compute(op).us / plain.compute(op).us, 6) for op in dots
              if costs.compute(op).source is CostSource.FITTED}  # fmt: skip
    assert len(ratios) == 1
    assert ratios != {1.0}


def test_exchanges_are_probed_over_payload_and_run(module):
    probes = probes_of([module.snapshot()], 8)
    assert {probe.kind for probe in probes} == {"all_to_all", "all_reduce"}
    assert all(probe.group_size == 8 and probe.bytes >= 4096 for probe in probes)
    assert probes_of([module.snapshot()], 4) == []


@pytest.mark.parametrize(
    "kind", ["all_to_all", "all_reduce", "all_gather", "reduce_scatter", "collective_permute"]
)
def test_every_kind_of_exchange_runs(kind):
    assert Probe(kind, 4, 4096).program()() is not None


def test_programs_take_turns():
    calls = []
    time_all([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    turns = [a for a, b in zip(calls, [*calls[1:], None], strict=True) if a != b]
    assert "".join(turns).endswith("ababab")


def test_an_interrupted_table_goes_on_where_it_was(module, tmp_path, monkeypatch):
    from lancet_jax.calibrate import measure

    monkeypatch.setattr(measure, "_BATCH", 2)
    path, found = tmp_path / "costs.json", kernels_of([module])
    first = Measuring(path, "cpu:1x8", 1)
    steps = first.run(*first.missing(found, []))
    assert next(steps) == 2
    steps.close()
    kept = CostTable.load(path)
    assert len(kept.ops) == 2
    second = Measuring(path, "cpu:1x8", 1)
    rest, _ = second.missing(found, [])
    assert len(rest) == len(found) - 2
    assert list(second.run(rest, []))[-1] == len(rest)
    assert CostTable.load(path).ops[:2] == kept.ops
    assert len(CostTable.load(path).ops) == len(found)
    with pytest.raises(InputError, match="its target is cpu:1x8, not cpu:1x4"):
        Measuring(path, "cpu:1x4", 1)


def test_a_kernel_that_does_not_compile_is_noted_and_left(module, tmp_path):
    good = next(iter(kernels_of([module]).values()))
    bad = Kernel(replace(good.entry, kernel="0" * 16), "func.func @main(", good.inputs)
    measuring = Measuring(tmp_path / "costs.json", "cpu:1x8", 1)
    list(measuring.run([bad, good], []))
    assert [op.kernel for op in measuring.table.ops] == [good.entry.kernel]
    assert "not measured: " in measuring.table.note


def test_noise_never_makes_a_larger_payload_faster():
    assert rising([(3, 5.0), (1, 4.0), (2, 6.0)]) == ((1, 4.0), (2, 5.5), (3, 5.5))
    assert rising([(1, 4.0), (2, 6.0)]) == ((1, 4.0), (2, 6.0))


def test_commands_use_what_calibrate_wrote(file, tmp_path, capsys):
    costs = tmp_path / "costs.json"
    command = ["calibrate", str(file), "-o", str(costs), "--rounds", "1", "--json"]
    assert run(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["measured"] == said["entries"] + sum(
        len(e.points) for e in CostTable.load(costs).exchanges
    )
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["measured"] == 0
    assert run(["inspect", str(file), "--costs", str(costs), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["target"] == "cpu:1x8"
    assert {e["source"] for e in facts["exchanges"]} == {"measured"}
    plan = tmp_path / "plan.json"
    assert run(["plan", str(file), "--costs", str(costs), "-o", str(plan)]) == 0
    assert json.loads(plan.read_bytes())["target"] == "cpu:1x8"
    assert run(["opt", str(file), "--costs", str(costs), "-o", str(tmp_path / "out.mlir")]) == 0
    priced = [str(file), "--costs", str(costs)]
    assert run(["view", *priced, "--plan", str(plan), "-o", str(tmp_path / "page.svg")]) == 0
    capsys.readouterr()
    assert run(["diff", str(file), *priced, "--json"]) == 0
    twice = json.loads(capsys.readouterr().out)
    assert twice["target"] == "cpu:1x8"
    assert twice["totals"]["step us"] == [facts["step_us"]] * 2
    assert run(["check", *priced, "--max-exposed", "100%"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "step.mlir", "--costs", "table.json", "--target", "h100:1x8"], "cpu devices"),
        (["inspect", "step.mlir", "--costs", "none.json"], "No such file"),
        (["calibrate", "step.mlir", "-o", "out.json", "--rounds", "0"], "is below 1"),
        (["calibrate", "gpu.txt", "-o", "out.json"], "cannot be compiled alone"),
    ],
)
def test_bad_input_is_one_message(file, arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(file.parent)
    table_of([]).save("table.json")
    (file.parent / "gpu.txt").write_text(STEP)
    assert run(arguments) == 2
    assert words in capsys.readouterr().err
    assert not (file.parent / "out.json").exists()
