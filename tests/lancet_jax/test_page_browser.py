"""The report's page in a headless Chromium: it draws, moves, selects and says what it shows."""

import pytest

from lancet_jax.report.step import Step
from tests.browser import CHROMIUM, tab
from tests.reports import REPORTS, alone, small

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def browser():
    with tab() as opened:
        yield opened


@pytest.fixture
def quiet(browser):
    """A browser in which nothing went wrong and nothing was asked of the network."""
    browser.errors.clear()
    yield browser
    assert browser.errors == []


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    reports = {name: make() for name, make in REPORTS.items()} | {"alone": alone(small())}
    for name, report in reports.items():
        report.save_html(folder / f"{name}.html")
    (folder / "notebook.html").write_text(f"<p>a cell</p>{reports['small']._repr_html_()}")
    return folder


def seen(browser):
    return browser.run("[lancet.seen.from, lancet.seen.to]")


def colour_at(browser, ns, lane):
    """Return the colour in the middle of a lane of the last view, as `#rrggbb`."""
    top = {"compute": 20 + 19, "exchange": 20 + 38 + 3 + 12}[lane]
    return browser.run(f"""(() => {{
        const canvas = document.getElementById("strips"), views = lancet.page.views.length;
        const gutter = canvas.clientWidth >= 640 ? 76 : 0, wide = canvas.clientWidth - gutter;
        const x = gutter + ({ns} - lancet.seen.from) / (lancet.seen.to - lancet.seen.from) * wide;
        const y = (views - 1) * 144 + {top};
        const found = [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
        return "#" + found.map((v) => v.toString(16).padStart(2, "0")).join("");
    }})()""")


def variable(browser, name):
    return browser.run(
        f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", [*REPORTS, "alone"])
def test_it_draws_and_fits(quiet, pages, name, width, dark):
    quiet.open(pages / f"{name}.html", width=width, dark=dark, touch=width < 500)
    assert quiet.run("document.documentElement.scrollWidth") <= width
    assert quiet.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    box = quiet.run("(({width, height}) => [width, height])(strips.getBoundingClientRect())")
    assert box[0] > 0.85 * width
    assert box[1] > 100
    assert quiet.run("document.querySelectorAll('#totals .big').length") == 6


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_lanes_have_the_colours_of_the_legend(quiet, pages, dark):
    report = small()
    step = Step.of(report.final)
    quiet.open(pages / "small.html", dark=dark)
    gemm = next(b for b in step.compute if step.op(b).name == "gemm")
    moved = next(b for b in step.compute if step.op(b).name == "dw")
    [exchange] = step.exchange
    for bar, name in ((gemm, "compute"), (moved, "moved")):
        middle = (bar.start_us + bar.us * 0.8) * 1e3
        assert colour_at(quiet, middle, "compute") == variable(quiet, name)
    hidden = (max(exchange.start_us, moved.start_us) + 0.5) * 1e3
    assert colour_at(quiet, hidden, "exchange") == variable(quiet, "hidden")
    [(begin, end)] = step.bare
    found = {
        colour_at(quiet, 1e3 * (begin + (end - begin) * i / 40), "exchange") for i in range(40)
    }
    assert variable(quiet, "exposed") in found
    assert variable(quiet, "hidden") not in found


def test_the_keyboard_zooms_pans_and_selects(quiet, pages):
    quiet.open(pages / "looped.html")
    quiet.run("strips.focus()")
    whole = seen(quiet)
    quiet.key("+")
    near = seen(quiet)
    assert near[1] - near[0] == pytest.approx((whole[1] - whole[0]) / 1.6)
    quiet.key("ArrowRight")
    assert seen(quiet)[0] > near[0]
    quiet.key("0")
    assert seen(quiet) == whole
    quiet.key("n")
    first = quiet.run("lancet.chosen.window.index")
    assert quiet.run("document.getElementById('live').textContent") != ""
    quiet.key("n")
    assert quiet.run("lancet.chosen.window.index") == first + 1
    quiet.key("p")
    assert quiet.run("lancet.chosen.window.index") == first
    quiet.key(".")
    assert not quiet.run("document.getElementById('tip').hidden")
    quiet.key("Escape")
    assert quiet.run("lancet.chosen.window") is None


def test_the_wheel_and_a_drag_zoom_where_they_are(quiet, pages):
    quiet.open(pages / "small.html")
    left, top = quiet.run("(({left, top}) => [left, top])(strips.getBoundingClientRect())")
    whole = seen(quiet)
    quiet.mouse("mouseWheel", left + 600, top + 40, deltaX=0, deltaY=-300)
    near = seen(quiet)
    assert whole[0] < near[0]
    assert near[1] < whole[1]
    quiet.key("Escape")
    quiet.run("lancet.show(0, lancet.page.end)")
    button = {"button": "left", "buttons": 1, "clickCount": 1}
    quiet.mouse("mousePressed", left + 300, top + 40, **button)
    quiet.mouse("mouseMoved", left + 500, top + 40, **button)
    quiet.mouse("mouseReleased", left + 500, top + 40, **button)
    wide = quiet.run("strips.clientWidth") - 76
    assert seen(quiet) == pytest.approx([whole[1] * (px - 76) / wide for px in (300, 500)])


def test_a_click_on_an_exchange_lists_what_runs_beside_it(quiet, pages):
    report = small()
    [window] = report.after.windows
    quiet.open(pages / "small.html")
    left, top = quiet.run("(({left, top}) => [left, top])(strips.getBoundingClientRect())")
    wide = quiet.run("strips.clientWidth") - 76
    end = quiet.run("lancet.page.end") / 1e3
    x = left + 76 + wide * (window.start_us + window.us / 2) / end
    button = {"button": "left", "buttons": 1, "clickCount": 1}
    quiet.mouse("mouseMoved", x, top + 144 + 20 + 38 + 3 + 12)
    assert "exposed" in quiet.run("document.getElementById('tip').textContent")
    quiet.mouse("mousePressed", x, top + 144 + 20 + 38 + 3 + 12, **button)
    quiet.mouse("mouseReleased", x, top + 144 + 20 + 38 + 3 + 12, **button)
    text = quiet.run("document.getElementById('chosen').innerText")
    assert "Runs beside it" in text
    [refusal] = [r for r in report.plan.refusals if r.op == window.key]
    assert refusal.reason in text
    assert len(window.fillers) == 1
    listed = quiet.run("document.querySelectorAll('#chosen .list')[0].innerText")
    assert "dw" in listed
    assert "(moved)" in listed


def test_fillers_are_the_timelines(quiet, pages):
    """The script finds what runs beside a window by itself; it has to agree with the simulator."""
    report = REPORTS["looped"]()
    quiet.open(pages / "looped.html")
    found = quiet.run("""lancet.page.views.at(-1).windows.map((w) => [w.key,
        lancet.fillersOf(w).filter(([, ns]) => ns > 2).length,
        lancet.fillersOf(w).reduce((sum, [, ns]) => sum + ns, 0), w.exposed_ns])""")
    windows = {window.key: window for window in report.after.windows}
    assert {key for key, *_ in found} == set(windows)
    assert any(count for _, count, *_ in found)
    for key, count, hidden, exposed in found:
        assert count == pytest.approx(len(windows[key].fillers), abs=1)
        assert hidden + exposed == pytest.approx(windows[key].us * 1e3, abs=5)


def test_candidates_are_those_that_reach_the_exchange_neither_way(quiet, pages):
    report = small()
    quiet.open(pages / "small.html")
    found = quiet.run("""lancet.candidatesOf(lancet.page.views[1].windows[0]).map(
        (i) => lancet.nameOf(lancet.page.views[1].compute.op[i]))""")
    assert [w.name for w in report.after.windows] == ["a2a-start"]
    assert found == ["dw"]


def test_buttons_and_switches(quiet, pages):
    quiet.open(pages / "looped.html")
    quiet.run("document.getElementById('theme').click()")
    assert quiet.run("document.documentElement.dataset.theme") == "dark"
    quiet.run("document.querySelector('[value=role]').click()")
    legend = quiet.run("document.getElementById('legend').innerText")
    assert "dW" in legend
    tokens = quiet.run("document.querySelectorAll('#windows tbody tr').length")
    quiet.run("document.querySelector('[name=which][value=all]').click()")
    every = quiet.run("document.querySelectorAll('#windows tbody tr').length")
    assert every == len(REPORTS["looped"]().after.windows)
    assert tokens < every
    quiet.run("document.querySelector('#windows tbody button').click()")
    quiet.frames()
    assert quiet.run("document.querySelector('#windows tr.on') !== null")
    assert "could" in quiet.run("document.getElementById('legend').innerText")


def test_everything_that_can_be_pressed_has_a_name(quiet, pages):
    quiet.open(pages / "cut.html")
    nodes = quiet.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "radio", "application", "table", "region", "heading"}
    kept = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
    assert len(kept) > 10
    for node in kept:
        if node["role"]["value"] != "table":
            assert node.get("name", {}).get("value"), node


def test_a_frame_in_a_notebook_draws(quiet, pages):
    quiet.open(pages / "notebook.html")
    quiet.frames(5)
    assert quiet.run("document.querySelector('iframe').getBoundingClientRect().width") > 1000
    assert quiet.run("typeof lancet") == "undefined"
