"""A profile that JAX took of steps on 8 CPU devices, read back as a timeline."""

import json

import jax
import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import parse_target
from lancet_jax.calibrate.captured import without_waiting
from lancet_jax.cli.app import run
from lancet_jax.profile.capture import Event, find_capture, read_capture
from tests.steps import CASES


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    case = CASES["scatter"](jax.devices())
    step = jax.jit(case.step).lower(*case.args).compile()
    jax.block_until_ready(step(*case.args))
    with jax.profiler.trace(str(folder)):
        for _ in range(3):
            jax.block_until_ready(step(*case.args))
    return folder, step


def test_a_run_is_read_with_its_module(profile):
    folder, step = profile
    capture = read_capture(find_capture(folder))
    assert capture.module.name == "jit_step"
    assert "device 0 of 8" in capture.notes[0]
    assert "3 runs" in capture.notes[0]
    graph = capture.module.snapshot()
    timeline = capture.timeline(graph)
    assert timeline.source == "measured"
    final = step.as_text()
    assert all(f"%{slot.name} = " in final for slot in timeline.slots)
    assert {w.op for w in timeline.windows} == set(graph.exchanges)
    assert len(timeline.windows) == 9
    for w in timeline.windows:
        assert w.source == "measured"
        assert 0 < w.us <= timeline.makespan_us
        assert 0 <= w.exposed_us <= w.us
    assert 0 < timeline.compute_us <= timeline.makespan_us
    ends = [slot.end_us for slot in timeline.slots]
    assert max(ends) <= timeline.makespan_us + 1e-6


def test_modules_of_one_name_are_told_apart(tmp_path):
    """A process compiles a step again and again; events belong to the program that they name."""
    import jax.numpy as jnp

    def make(count):
        def step(x):
            for _ in range(count):
                x = jnp.sin(x @ x)
            return x

        return jax.jit(step)

    x = jnp.ones((64, 64))
    small, large = make(1).lower(x).compile(), make(9).lower(x).compile()
    jax.block_until_ready((small(x), large(x)))
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            jax.block_until_ready((small(x), large(x)))
    capture = read_capture(find_capture(tmp_path))
    module = capture.module
    assert module.name == "jit_step"
    assert len(module.snapshot().ops) > 9
    names = {op.name for g, _ in module.snapshot().walk() for op in g.ops}
    assert {e.op for e in capture.events} <= names


def test_inspect_shows_what_was_measured(profile, capsys):
    folder, _ = profile
    for path in (folder, find_capture(folder)):
        assert run(["inspect", str(path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["source"] == "measured"
        assert facts["bound_exposed_us"] is None
        assert {e["layer"] for e in facts["exchanges"]} == {"layer 0", "layer 1", ""}
        assert {e["source"] for e in facts["exchanges"]} == {"measured"}
    assert run(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "(measured)" in out
    assert "predicted" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_plan_takes_the_module_of_a_capture(profile, tmp_path, capsys):
    folder, _ = profile
    assert run(["plan", str(folder), "-o", str(tmp_path / "plan.json")]) == 0
    assert (tmp_path / "plan.json").exists()
    capsys.readouterr()


def test_calibrate_takes_the_times_of_a_capture(profile, tmp_path, capsys):
    folder, _ = profile
    file = tmp_path / "costs.json"
    assert run(["calibrate", str(folder), "--target", "cpu:1x8", "-o", str(file)]) == 0
    assert "on cpu:1x8" in capsys.readouterr().out
    table = CostTable.load(file)
    capture = read_capture(find_capture(folder))
    graph = capture.module.snapshot()
    measured = {w.key: w for w in capture.timeline(graph).windows}
    priced = TargetCosts(parse_target("cpu:1x8"), table).for_graph(graph)
    for op in (graph.ops[i] for i in graph.exchanges):
        cost = priced.exchange(op.collective)
        assert cost.source == "measured"
        same = [w.us for w in measured.values() if w.bytes >= op.collective.bytes]
        assert min(same) <= cost.us <= max(w.us for w in measured.values())
    assert run(["inspect", str(folder), "--costs", str(file)]) == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [([], "name it: --target"), (["--target", "h100:8x8"], "the step ran on 8 devices")],
)
def test_calibrate_wants_to_know_where_a_capture_is_from(profile, tmp_path, target, words, capsys):
    folder, _ = profile
    file = tmp_path / "costs.json"
    assert run(["calibrate", str(folder), *target, "-o", str(file)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not file.exists()


def test_no_payload_takes_longer_than_a_larger_one():
    assert without_waiting([(1, 5.0), (2, 3.0), (4, 9.0), (8, 8.0)]) == (
        (1, 3.0), (2, 3.0), (4, 8.0), (8, 8.0),
    )  # fmt: skip


def test_check_holds_measured_time_against_a_limit(profile, capsys):
    folder, _ = profile
    assert run(["check", str(folder), "--max-exposed", "0us"]) == 1
    assert "measured" in capsys.readouterr().out


def test_overlap_counts_only_compute_of_the_same_time():
    """Two streams: an exchange of 10 us with 4 us of compute beside it."""
    from hlo_passes.ir.hlo.scheduled import ScheduledModule
    from lancet_jax.profile.capture import Capture
    from tests.hlo import STEP

    module = ScheduledModule(STEP)
    events = (Event("a2a-start", 100.0, 10.0), Event("dw", 103.0, 4.0), Event("gemm", 112.0, 5.0))
    timeline = Capture(module, "/device:GPU:0", events, ()).timeline(module.snapshot())
    (window,) = timeline.windows
    assert (window.us, window.exposed_us) == (10.0, 6.0)
    assert [f.rpartition("/")[2] for f in window.fillers] == ["custom_call#1"]
    assert timeline.makespan_us == 17.0
    assert timeline.compute_us == 9.0


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "holds no module"), (b"\x0a\x02ab", "capture"), (b"\xff" * 40, "no profiler capture")],
)
def test_damaged_captures_end_in_one_message(tmp_path, data, message, capsys):
    path = tmp_path / "vm.xplane.pb"
    path.write_bytes(data)
    assert run(["inspect", str(path)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("error: ") == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_captures_that_were_cut_off(profile, tmp_path, share, capsys):
    path = tmp_path / "cut.xplane.pb"
    data = find_capture(profile[0]).read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert run(["inspect", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
