"""A profile that JAX 0.11.2 took on one H100, cut down by `scripts/cut_capture.py`.

Three runs of a tiny step of `scripts/bench_gpu.py`: its four all-to-alls and its gradient sum are
pairs of custom calls, which work on a stream of their own.
"""

import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from hlo_passes.ir.opaque import parse_opaque
from lancet_jax.cli.app import run
from lancet_jax.profile.capture import Capture, read_capture
from lancet_jax.profile.events import Event, runs_in

FIXTURE = Path(__file__).with_name("captures") / "h100-tiny-step.xplane.pb.gz"
PAIR = "lancet_exchange_start+lancet_exchange_done"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "step.xplane.pb"
    path.write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return path


@pytest.fixture(scope="module")
def step(path) -> tuple[Capture, object]:
    capture = read_capture(path)
    module = replace(capture.module, opaque=(parse_opaque(PAIR),))
    return capture, module.snapshot()


def test_runs_are_told_apart_by_their_scopes(path):
    runs = {key: e for key, e in runs_in(path.read_bytes()).items() if "placeholder" in key[0]}
    assert len(runs) == 3
    names = [sorted(e.op for e in events) for events in runs.values()]
    assert names[0] == names[1] == names[2]
    times = sorted((events[0].start_us, max(e.start_us + e.us for e in events))
                   for events in runs.values())  # fmt: skip
    assert all(a[1] < b[0] for a, b in pairwise(times))


def test_the_kernels_of_a_launch_are_one_exchange(step):
    capture, graph = step
    timeline = capture.timeline(graph)
    assert {w.op for w in timeline.windows} == set(graph.exchanges)
    assert len(timeline.windows) == 5
    starts = [e for e in capture.events if e.op == timeline.windows[0].name.removeprefix("%")]
    assert len(starts) == 3, "a kernel, a copy, a kernel"
    first = timeline.windows[0]
    assert first.times == 1
    whole = max(e.start_us + e.us for e in starts) - min(e.start_us for e in starts)
    assert first.us == pytest.approx(whole)
    assert sum(slot.op == first.op for slot in timeline.slots) == 1


def test_graphs_of_several_ops_count_as_compute(step):
    capture, graph = step
    timeline = capture.timeline(graph)
    grouped = sum(e.us for e in capture.events if e.is_command_buffer)
    assert grouped > 0
    assert timeline.compute_us >= grouped
    assert timeline.compute_us <= timeline.makespan_us
    assert any("CUDA graphs" in note for note in capture.notes)


def test_inspect_shows_what_the_clock_said(path, capsys):
    assert run(["inspect", str(path), "--opaque", PAIR, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["source"] == "measured"
    assert len(facts["exchanges"]) == 5
    assert all(e["us"] > 10 for e in facts["exchanges"])


def test_launches_of_one_op_stay_apart(step):
    """In a loop, an exchange is launched again and again: that is several, of several events each."""
    capture, graph = step
    name = graph.ops[graph.exchanges[0]].name.removeprefix("%")
    twice = tuple(Event(name, start, 2.0, launch) for start, launch in
                  ((0.0, 1), (3.0, 1), (20.0, 2), (25.0, 2)))  # fmt: skip
    window = replace(capture, events=twice).timeline(graph).windows[0]
    assert window.times == 2
    assert window.us == pytest.approx((5.0 + 7.0) / 2)
