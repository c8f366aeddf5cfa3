"""Ops of a re-ordered module come from the lines that they came from, for all who look."""

from itertools import accumulate

import jax
import pytest

import lancet_jax
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.stack_frames import frames_of_ops
from lancet_jax.compile.inside_xla import Scheduler
from lancet_jax.profile.capture import find_capture, read_capture
from lancet_jax.report.encode import encode
from tests.steps import CASES, Size

ORDER = "schedule-dw{memory-slack=10}"


STEPS = [
    pytest.param("linen", ORDER, id="adamw"),
    pytest.param("scatter", f"split-exchange{{k=2}},{ORDER}", id="cut", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "pipeline"), STEPS)
def test_every_op_keeps_its_frame(name, pipeline, monkeypatch, capfd, tmp_path):
    stock, plan = [], Scheduler.plan
    monkeypatch.setattr(
        Scheduler,
        "plan",
        lambda own, proto, known: (stock.append(proto), plan(own, proto, known))[1],
    )
    case = CASES[name](jax.devices(), Size(layers=1))
    step = lancet_jax.jit(case.step, pipeline=pipeline, target="v100:1x8", **case.jit_kwargs)
    result = step.lower(*case.args).compile()
    assert result.plan.orders
    (module,) = result.runtime_executable().hlo_modules()
    before = frames_of_ops(stock[-1])
    after = frames_of_ops(module.as_serialized_hlo_module_proto())
    assert len(after) > 300
    assert {op: before[op] for op in after} == after
    assert len({frame[:3] for frame in after.values() if frame is not None}) > 30
    exchanges = [op for op in after if op.startswith(("all-to-all", "all_to_all"))]
    assert {after[op][1] for op in exchanges} == {"exchange"}
    was = {op.name: op.source for op in ScheduledModule.from_proto(stock[-1]).snapshot().ops}
    read = ScheduledModule(result.as_text()).snapshot().ops
    assert {op.name: op.source for op in read} == {op.name: was[op.name] for op in read}
    assert all(len(lines) == 1 for lines in lines_on_the_page(result.report()).values())
    assert "Invalid stack_frame_id" not in capfd.readouterr().err
    with jax.profiler.trace(str(tmp_path)):
        jax.block_until_ready(result(*case.args))
    profiled = read_capture(find_capture(tmp_path)).module
    assert frames_of_ops(profiled.proto) == after


def lines_on_the_page(report):
    """The lines that the page tells of every op, before and after."""
    ops = encode(report)["ops"]
    lines = {}
    for stem, number, line in zip(ops["stem"], accumulate(ops["number"]), ops["file"], strict=True):
        lines.setdefault((stem, number), set()).add(line)
    return lines
