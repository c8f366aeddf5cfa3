"""The report's page, without a browser: its data, and that it is all in one file."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from hlo_passes.facts.reach import Reach
from lancet_jax.errors import UnsupportedError
from lancet_jax.report import step as layout
from lancet_jax.report.encode import encode, runs
from lancet_jax.report.html import SCRIPTS, _resource
from lancet_jax.report.step import LaidOutStep
from tests.hlo import STEP
from tests.reports import REPORTS, alone, small

NODE = shutil.which("node")


@pytest.fixture(params=REPORTS)
def report(request):
    return REPORTS[request.param]()


def pairs(report):
    return [
        (report.before, LaidOutStep.of(report.stock)),
        (report.after, LaidOutStep.of(report.final)),
    ]


def test_every_trip_is_laid_out_and_nothing_is_lost(report):
    for timeline, step in pairs(report):
        end = max(bar.end_us for bar in (*step.compute, *step.exchange))
        assert end == pytest.approx(timeline.makespan_us)
        talk = sum(bar.us for bar in step.exchange)
        assert talk == pytest.approx(timeline.exchange_us)
        assert sum(bar.us for bar in step.compute) == pytest.approx(timeline.compute_us)


def test_bare_stretches_add_up_to_what_is_exposed(report):
    for timeline, step in pairs(report):
        assert sum(b - a for a, b in step.bare) == pytest.approx(timeline.exposed_us, abs=1e-3)


def test_bars_of_a_lane_never_overlap(report):
    for _, step in pairs(report):
        for lane in (step.compute, step.exchange):
            for a, b in pairwise(lane):
                assert a.end_us <= b.start_us + 1e-6


def test_the_memory_curve_has_the_timelines_peak(report):
    for timeline, step in pairs(report):
        assert max(size for _, size in step.memory) == timeline.peak_bytes
        times = [us for us, _ in step.memory]
        assert times == sorted(times)


def test_loops_are_unfolded():
    report = REPORTS["looped"]()
    step = LaidOutStep.of(report.final)
    assert len(step.loops) == 2
    assert not step.folded
    inside = [b for b in step.exchange if b.level]
    assert len(inside) == 3 * len({(b.level, b.op) for b in inside})


def test_loops_of_very_many_trips_are_one_block(monkeypatch):
    report = REPORTS["looped"]()
    monkeypatch.setattr(layout, "MOST_BARS", 50)
    step = LaidOutStep.of(report.final)
    assert len(step.folded) == 2
    assert set(step.folded) <= set(step.compute)
    assert not [bar for bar in step.exchange if bar.level]
    data = encode(report)
    assert data["views"][-1]["folded"]


def sums(numbers):
    total, found = 0, []
    for n in numbers:
        total += n
        found.append(total)
    return found


def decoded(data, view, lane):
    """Read a lane as the page's script does: (name, begin in ns, end in ns)."""
    ops = data["ops"]
    numbers = sums(ops["number"])
    at, found = 0, []
    for row, gap in zip(sums(view[lane]["op"]), view[lane]["gap"], strict=True):
        name = ops["stems"][ops["stem"][row]] + (str(numbers[row]) if numbers[row] >= 0 else "")
        start = at + gap
        at = start + ops["ns"][row]
        found.append((name, start, at))
    return found


def members(lengths):
    """Read a set of numbers that `runs` wrote."""
    ends = sums(lengths)
    return {n for i in range(1, len(ends), 2) for n in range(ends[i - 1], ends[i])}


@pytest.mark.parametrize("numbers", [(), (0,), (3,), (0, 1, 2), (1, 2, 5, 9), range(7)])
def test_sets_of_numbers_are_written_as_runs(numbers):
    assert members(runs(numbers)) == set(numbers)


def test_the_data_is_the_step(report):
    data = json.loads(json.dumps(encode(report)))
    for view, (timeline, step) in zip(data["views"], pairs(report), strict=True):
        assert view["ns"] == pytest.approx(timeline.makespan_us * 1e3, abs=1)
        for lane in ("compute", "exchange"):
            bars = getattr(step, lane)
            read = decoded(data, view, lane)
            assert [name for name, _, _ in read] == [step.op(bar).name for bar in bars]
            for (_, start, end), bar in zip(read, bars, strict=True):
                assert start == pytest.approx(bar.start_us * 1e3, abs=1)
                assert end == pytest.approx(bar.end_us * 1e3, abs=2)


def test_groups_say_what_may_run_beside_what(report):
    data = encode(report)
    for view, (_, step) in zip(data["views"], pairs(report), strict=True):
        reach = [Reach.of(level.graph) for level in step.levels]
        drawn = list(dict.fromkeys((bar.level, bar.op) for bar in step.exchange))
        for bar, group in zip(step.compute, view["compute"]["group"], strict=True):
            wanted = {
                i
                for i, (level, op) in enumerate(drawn)
                if level == bar.level and reach[level].may_overlap(bar.op, op)
            }
            assert members(view["groups"][group]) == wanted


def test_an_exchange_of_one_device_takes_no_time_and_is_not_drawn():
    """A mesh axis of size 1: `psum` over it sums up groups of one device."""
    one = small(STEP.replace("replica_groups=mesh['ep'=8] {'ep'}", "replica_groups=[8,1]<=[8]"))
    for view in encode(one)["views"]:
        assert view["windows"] == []
        assert not any(members(group) for group in view["groups"])


def test_what_moved_is_marked():
    report = small()
    data = encode(report)
    [(row, beside, reason)] = data["moves"]
    ops = data["ops"]
    assert ops["stems"][ops["stem"][row]] == "dw"
    assert ops["stems"][ops["stem"][beside]] == "a2a-start"
    assert ops["reasons"][reason] == report.plan.moves[0].reason


def test_parts_of_a_cut_are_marked():
    data = encode(REPORTS["cut"]())
    rows = {row for view in data["views"] for row in sums(view["compute"]["op"])}
    pieces = {row for row in rows if data["ops"]["piece"][row]}
    assert pieces
    assert pieces < rows
    assert not any(encode(small())["ops"]["piece"])


def test_a_step_with_nothing_to_compare_is_drawn_once():
    data = encode(alone(small()))
    assert [view["name"] for view in data["views"]] == ["as it is"]


def test_scopes_and_lines_survive():
    data = encode(small())
    ops = data["ops"]
    row = ops["stem"].index(ops["stems"].index("a2a-start"))
    path, node = [], ops["scope"][row]
    while node >= 0:
        path.insert(0, ops["segments"][ops["scopes"]["segment"][node]])
        node = ops["scopes"]["parent"][node]
    assert "/".join(path) == "jit(step)/moe/all_to_all"
    assert ops["files"][ops["file"][row]] == "model.py:7"


class Reader(HTMLParser):
    """Collects what a page would load, and its data."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.data, self.inside, self.text = [], [], "", "", ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = dict(attrs).get("id", tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "data", "action", "srcset")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_the_page_needs_nothing_else(report):
    page = report.to_html()
    reader = read(page)
    assert reader.loads == []
    assert {"link", "img", "iframe", "object", "embed"}.isdisjoint(reader.tags)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", page.replace(reader.data, ""))
    assert "default-src 'none'" in page
    assert json.loads(reader.data)["report"]["module"] == report.name
    assert "{{" not in page.replace(reader.data, "").replace("${{", "")


def test_the_report_is_there_as_text_too(report):
    assert str(report) in read(report.to_html()).text


def test_names_cannot_break_out():
    evil = "</script><script>alert(1)</script><!--"
    report = small(STEP.replace("jit(step)/moe", f"jit(step)/{evil}"))
    report = replace(report, name=evil, notes=(evil, "\u2028"))
    reader = read(report.to_html())
    assert reader.tags.count("script") == 2
    data = json.loads(reader.data)
    assert data["report"]["notes"][0] == evil
    assert evil.partition("/")[0] in data["ops"]["segments"]


def test_a_notebook_gets_a_frame_of_its_own():
    report = small()
    cell = report._repr_html_()
    [(page, sandbox)] = re.findall(r'srcdoc="([^"]*)".*sandbox="([^"]*)"', cell)
    assert unescape(page) == report.to_html()
    assert sandbox == "allow-scripts"


def test_save_html(tmp_path):
    report = small()
    report.save_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == report.to_html()


def test_a_report_without_its_graph_says_so():
    report = small()
    with pytest.raises(UnsupportedError, match="no graph"):
        replace(report, stock=None, final=None).to_html()


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_script_is_valid(tmp_path):
    path = tmp_path / "page.js"
    path.write_text("\n".join(map(_resource, SCRIPTS)))
    done = subprocess.run([NODE, "--check", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_scripts_are_short():
    for name in (*SCRIPTS, "page.css", "page.html"):
        assert _resource(name).count("\n") <= 400


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme):
    """WCAG 2.1 AA: 4.5 for text, 3 for large text and for what carries meaning."""
    blocks = re.findall(r"\{([^}]*--paper[^}]*)\}", _resource("page.css"))
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[theme == "dark"]))
    for behind in ("paper", "raised"):
        assert contrast(colours["ink"], colours[behind]) >= 7
        assert contrast(colours["muted"], colours[behind]) >= 4.5
        assert contrast(colours["exposed"], colours[behind]) >= 3
