"""Reports in other viewers' formats, read back as those viewers read them."""

import io
import json
import re
import shutil
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from hlo_passes.errors import InputError, OptionError
from lancet_jax.report import dot, model_explorer, perfetto
from lancet_jax.report.export import check_names, export
from lancet_jax.report.step import LaidOutStep
from tests.reports import REPORTS, alone, empty, quiet, small

DOT = shutil.which("dot")


@pytest.fixture(params=REPORTS)
def report(request):
    return REPORTS[request.param]()


def slices(trace):
    """Return per (process, thread) the slices in order, and per process what it is called."""
    lanes, names = defaultdict(list), {}
    for event in trace["traceEvents"]:
        assert event["ph"] in "XCMsf"
        assert isinstance(event["ts"], int | float)
        if event["ph"] == "X":
            lanes[event["pid"], event["tid"]].append(event)
        if event["name"] == "process_name":
            names[event["pid"]] = event["args"]["name"]
    return lanes, names


def test_a_trace_holds_every_bar_on_its_track(report):
    lanes, names = slices(json.loads(perfetto.trace(report)))
    kept = ((1, "before", report.stock), (2, "after", report.final))
    for process, name, simulator in kept:
        step = LaidOutStep.of(simulator)
        assert names[process].startswith(name)
        for thread, bars in ((1, step.compute), (2, step.exchange)):
            found = lanes[process, thread]
            assert [e["name"] for e in found] == [step.op(bar).name for bar in bars]
            assert [e["ts"] for e in found] == pytest.approx([b.start_us for b in bars], abs=1e-3)
            assert [e["dur"] for e in found] == pytest.approx([b.us for b in bars], abs=2e-3)
    assert set(names) == {1, 2}


def test_slices_of_a_track_never_overlap(report):
    """Perfetto drops what overlaps without nesting; it keeps whole nanoseconds."""
    lanes, _ = slices(json.loads(perfetto.trace(report)))
    for events in lanes.values():
        spans = sorted((round(e["ts"] * 1e3), round((e["ts"] + e["dur"]) * 1e3)) for e in events)
        for (_, end), (start, _) in pairwise(spans):
            assert end <= start


def test_arrows_lead_from_exchanges_to_who_waits_for_them(report):
    trace = json.loads(perfetto.trace(report))
    lanes, _ = slices(trace)
    arrows = defaultdict(dict)
    for event in trace["traceEvents"]:
        if event["ph"] in "sf":
            arrows[event["id"]][event["ph"]] = event
    assert arrows
    for ends in arrows.values():
        begin, end = ends["s"], ends["f"]
        assert end["bp"] == "e"
        [sent] = [e for e in lanes[begin["pid"], begin["tid"]] if e["ts"] == begin["ts"]]
        assert sent["args"]["role"] in ("exchange", "gradient exchange")
        [user] = [e for e in lanes[end["pid"], end["tid"]] if e["ts"] == end["ts"]]
        assert user["ts"] >= sent["ts"] + sent["dur"] - 2e-3


def test_the_first_user_of_the_small_step_is_its_gemm():
    trace = json.loads(perfetto.trace(small()))
    lanes, _ = slices(trace)
    ends = [e for e in trace["traceEvents"] if e["ph"] == "f"]
    users = [s["name"] for e in ends for s in lanes[e["pid"], 1] if s["ts"] == e["ts"]]
    assert users == ["gemm", "gemm"]


def test_the_memory_counter_has_the_peak(report):
    trace = json.loads(perfetto.trace(report))
    peaks = defaultdict(int)
    for event in trace["traceEvents"]:
        if event["ph"] == "C":
            peaks[event["pid"]] = max(peaks[event["pid"]], event["args"]["bytes"])
    assert dict(peaks) == {1: report.before.peak_bytes, 2: report.after.peak_bytes}


def test_one_step_makes_one_process():
    _, names = slices(json.loads(perfetto.trace(alone(small()))))
    assert list(names.values()) == ["as it is (predicted)"]


def test_model_explorer_can_link_every_edge_and_loop(report):
    collection = json.loads(model_explorer.graphs(report))
    assert set(collection) == {"label", "graphs"}
    graphs = {graph["id"]: graph["nodes"] for graph in collection["graphs"]}
    assert len(graphs) == len(collection["graphs"])
    for nodes in graphs.values():
        ids = {node["id"] for node in nodes}
        assert len(ids) == len(nodes)
        for node in nodes:
            assert {edge["sourceNodeId"] for edge in node["incomingEdges"]} <= ids
            assert set(node["subgraphIds"]) <= set(graphs)
            assert all(isinstance(a["value"], str) for a in node["attrs"])
    entry = graphs[report.final.graph.name]
    assert len(entry) == len(report.final.graph.ops)
    edges = sum(len(node["incomingEdges"]) for node in entry)
    values = report.final.graph.values
    assert edges == sum(values[v].op >= 0 for op in report.final.graph.ops for v in op.operands)


def test_node_data_is_about_nodes_that_are_there(report):
    collection = json.loads(model_explorer.graphs(report))
    ids = {g["id"]: {node["id"] for node in g["nodes"]} for g in collection["graphs"]}
    data = {name: json.loads(text) for name, text in model_explorer.node_data(report).items()}
    assert set(data) == {"role", "cost", "exposed"}
    for about in data.values():
        for graph, found in about.items():
            assert set(found["results"]) <= ids[graph]
    for graph, found in data["role"].items():
        assert set(found["results"]) == ids[graph]
    top = data["exposed"][report.final.graph.name]["results"]
    own = {op.key for op in report.final.graph.ops}
    wanted = {w.key: w.exposed_us for w in report.after.windows if w.key in own and w.times == 1}
    assert {k: v["value"] for k, v in top.items()} == pytest.approx(wanted, abs=1e-3)


def test_dot_keeps_the_order_of_dependence(report):
    text = dot.graph(report)
    assert text.count("{") == text.count("}")
    nodes = re.findall(r"^ +n0_(\d+) \[", text, re.MULTILINE)
    edges = re.findall(r"^ +n0_(\d+) -> n0_(\d+);", text, re.MULTILINE)
    us = report.final.problem.us
    assert sorted(map(int, nodes)) == [op for op in range(len(us)) if us[op] > 0]
    assert edges
    assert all(int(a) < int(b) for a, b in edges)


def test_dot_of_the_small_step():
    report = small()
    ids = {op.name: op.id for op in report.final.graph.ops}
    text = dot.graph(report)
    edge = f"n0_{ids['a2a-start']} -> n0_{ids['gemm']};"
    assert edge in text
    assert f"n0_{ids['dw']} [" in text
    assert text.count("->") == 1


@pytest.mark.skipif(DOT is None, reason="needs Graphviz")
def test_graphviz_reads_it():
    done = subprocess.run([DOT, "-Tsvg"], input=dot.graph(small()), capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "<svg" in done.stdout


def test_the_ending_chooses_the_format():
    report = small()
    starts = {
        "a.html": b"<!doctype html>", "a.svg": b"<?xml", "a.PNG": b"\x89PNG", "a.pdf": b"%PDF",
        "a.perfetto.json": b'{"traceEvents"', "a.me.json": b'{"label"', "a.dot": b"digraph",
    }  # fmt: skip
    for name, start in starts.items():
        files = export(report, Path("x") / name)
        assert files[Path("x") / name].startswith(start)
        assert len(files) == (4 if name == "a.me.json" else 1)
    names = {path.name for path in export(report, Path("a.me.json"))}
    assert names == {"a.me.json", "a.me.role.json", "a.me.cost.json", "a.me.exposed.json"}


@pytest.mark.parametrize("make", [quiet, empty])
@pytest.mark.parametrize("ending", [".html", ".svg", ".perfetto.json", ".me.json", ".dot"])
def test_steps_without_exchanges_can_be_drawn(make, ending):
    path = Path(f"a{ending}")
    assert all(len(data) > 20 for data in export(make(), path).values())


def test_names_are_checked_first(tmp_path):
    check_names([tmp_path / "a.html", tmp_path / "b.dot"])
    with pytest.raises(OptionError, match=r"\.perfetto\.json"):
        check_names([tmp_path / "a.html", tmp_path / "b.json"])
    with pytest.raises(InputError, match="no folder"):
        check_names([tmp_path / "no" / "a.html"])


def test_a_figure_can_go_into_a_stream():
    from lancet_jax.report import figure

    out = io.BytesIO()
    figure.save(small(), out, form="svg")
    again = io.BytesIO()
    figure.save(small(), again, form="svg")
    assert out.getvalue() == again.getvalue()
    assert b"<svg" in out.getvalue()
