"""The report's page in a headless Chromium: it draws, moves, selects and says what it shows."""

import pytest

from lancet_jax.report.step import LaidOutStep
from tests.browser import CHROMIUM, tab
from tests.reports import REPORTS, alone, empty, quiet, small

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def browser():
    with tab() as opened:
        yield opened


@pytest.fixture
def fresh(browser):
    """A browser in which nothing went wrong and nothing was asked of the network."""
    browser.errors.clear()
    yield browser
    assert browser.errors == []


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    reports = {name: make() for name, make in REPORTS.items()}
    reports |= {"alone": alone(small()), "quiet": quiet(), "empty": empty()}
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
@pytest.mark.parametrize("name", [*REPORTS, "alone", "quiet", "empty"])
def test_it_draws_and_fits(fresh, pages, name, width, dark):
    fresh.open(pages / f"{name}.html", width=width, dark=dark, touch=width < 500)
    assert fresh.run("document.documentElement.scrollWidth") <= width
    assert fresh.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    box = fresh.run("(({width, height}) => [width, height])(strips.getBoundingClientRect())")
    assert box[0] > 0.85 * width
    assert box[1] > 100
    assert fresh.run("document.querySelectorAll('#totals .big').length") == 6


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_lanes_have_the_colours_of_the_legend(fresh, pages, dark):
    report = small()
    step = LaidOutStep.of(report.final)
    fresh.open(pages / "small.html", dark=dark)
    gemm = next(b for b in step.compute if step.op(b).name == "gemm")
    moved = next(b for b in step.compute if step.op(b).name == "dw")
    [exchange] = step.exchange
    for bar, name in ((gemm, "compute"), (moved, "moved")):
        middle = (bar.start_us + bar.us * 0.8) * 1e3
        assert colour_at(fresh, middle, "compute") == variable(fresh, name)
    hidden = (max(exchange.start_us, moved.start_us) + 0.5) * 1e3
    assert colour_at(fresh, hidden, "exchange") == variable(fresh, "hidden")
    [(begin, end)] = step.bare
    found = {
        colour_at(fresh, 1e3 * (begin + (end - begin) * i / 40), "exchange") for i in range(40)
    }
    assert variable(fresh, "exposed") in found
    assert variable(fresh, "hidden") not in found


def test_the_keyboard_zooms_pans_and_selects(fresh, pages):
    fresh.open(pages / "looped.html")
    fresh.run("strips.focus()")
    whole = seen(fresh)
    fresh.key("+")
    near = seen(fresh)
    assert near[1] - near[0] == pytest.approx((whole[1] - whole[0]) / 1.6)
    fresh.key("ArrowRight")
    assert seen(fresh)[0] > near[0]
    fresh.key("0")
    assert seen(fresh) == whole
    fresh.key("n")
    first = fresh.run("lancet.chosen.window.index")
    assert fresh.run("document.getElementById('live').textContent") != ""
    fresh.key("n")
    assert fresh.run("lancet.chosen.window.index") == first + 1
    fresh.key("p")
    assert fresh.run("lancet.chosen.window.index") == first
    fresh.key(".")
    assert not fresh.run("document.getElementById('tip').hidden")
    fresh.key("Escape")
    assert fresh.run("lancet.chosen.window") is None


def test_the_wheel_and_a_drag_zoom_where_they_are(fresh, pages):
    fresh.open(pages / "small.html")
    left, top = fresh.run("(({left, top}) => [left, top])(strips.getBoundingClientRect())")
    whole = seen(fresh)
    fresh.mouse("mouseWheel", left + 600, top + 40, deltaX=0, deltaY=-300)
    near = seen(fresh)
    assert whole[0] < near[0]
    assert near[1] < whole[1]
    fresh.key("Escape")
    fresh.run("lancet.show(0, lancet.page.end)")
    button = {"button": "left", "buttons": 1, "clickCount": 1}
    fresh.mouse("mousePressed", left + 300, top + 40, **button)
    fresh.mouse("mouseMoved", left + 500, top + 40, **button)
    fresh.mouse("mouseReleased", left + 500, top + 40, **button)
    wide = fresh.run("strips.clientWidth") - 76
    assert seen(fresh) == pytest.approx([whole[1] * (px - 76) / wide for px in (300, 500)])


def test_a_click_on_an_exchange_lists_what_runs_beside_it(fresh, pages):
    report = small()
    [window] = report.after.windows
    fresh.open(pages / "small.html")
    left, top = fresh.run("(({left, top}) => [left, top])(strips.getBoundingClientRect())")
    wide = fresh.run("strips.clientWidth") - 76
    end = fresh.run("lancet.page.end") / 1e3
    x = left + 76 + wide * (window.start_us + window.us / 2) / end
    button = {"button": "left", "buttons": 1, "clickCount": 1}
    fresh.mouse("mouseMoved", x, top + 144 + 20 + 38 + 3 + 12)
    assert "exposed" in fresh.run("document.getElementById('tip').textContent")
    fresh.mouse("mousePressed", x, top + 144 + 20 + 38 + 3 + 12, **button)
    fresh.mouse("mouseReleased", x, top + 144 + 20 + 38 + 3 + 12, **button)
    text = fresh.run("document.getElementById('chosen').innerText")
    assert "Runs beside it" in text
    [refusal] = [r for r in report.plan.refusals if r.op == window.key]
    assert refusal.reason in text
    assert len(window.fillers) == 1
    listed = fresh.run("document.querySelectorAll('#chosen .list')[0].innerText")
    assert "dw" in listed
    assert "(moved)" in listed


def test_fillers_are_the_timelines(fresh, pages):
    """The script finds what runs beside a window by itself; it has to agree with the simulator."""
    report = REPORTS["looped"]()
    fresh.open(pages / "looped.html")
    # To a window before a loop the whole loop is one filler, of which the page shows the ops.
    found = fresh.run("""lancet.page.views.at(-1).windows.map((w) => {
        const { start, end } = w.view.compute;
        const loopOf = (bar) => w.view.loops.findIndex(([, at, ns]) =>
            at <= start[bar] && end[bar] <= at + ns && !(at <= w.start && w.end <= at + ns));
        const fillers = lancet.fillersOf(w).filter(([, ns]) => ns > 2);
        const whole = new Set(fillers.map(([bar]) => (loopOf(bar) < 0 ? -1 - bar : loopOf(bar))));
        return [w.key, whole.size,
            lancet.fillersOf(w).reduce((sum, [, ns]) => sum + ns, 0), w.exposed_ns];
    })""")
    windows = {window.key: window for window in report.after.windows}
    assert {key for key, *_ in found} == set(windows)
    assert any(count for _, count, *_ in found)
    for key, count, hidden, exposed in found:
        assert count == pytest.approx(len(windows[key].fillers), abs=1)
        assert hidden + exposed == pytest.approx(windows[key].us * 1e3, abs=5)


def test_candidates_are_those_that_reach_the_exchange_neither_way(fresh, pages):
    report = small()
    fresh.open(pages / "small.html")
    found = fresh.run("""lancet.candidatesOf(lancet.page.views[1].windows[0]).map(
        (i) => lancet.nameOf(lancet.page.views[1].compute.op[i]))""")
    assert [w.name for w in report.after.windows] == ["a2a-start"]
    assert found == ["dw"]


def test_buttons_and_switches(fresh, pages):
    fresh.open(pages / "looped.html")
    fresh.run("document.getElementById('theme').click()")
    assert fresh.run("document.documentElement.dataset.theme") == "dark"
    fresh.run("document.querySelector('[value=role]').click()")
    legend = fresh.run("document.getElementById('legend').innerText")
    assert "dW" in legend
    tokens = fresh.run("document.querySelectorAll('#windows tbody tr').length")
    fresh.run("document.querySelector('[name=which][value=all]').click()")
    every = fresh.run("document.querySelectorAll('#windows tbody tr').length")
    assert every == len(REPORTS["looped"]().after.windows)
    assert tokens < every
    fresh.run("document.querySelector('#windows tbody button').click()")
    fresh.frames()
    assert fresh.run("document.querySelector('#windows tr.on') !== null")
    assert "could" in fresh.run("document.getElementById('legend').innerText")


def test_everything_that_can_be_pressed_has_a_name(fresh, pages):
    fresh.open(pages / "cut.html")
    nodes = fresh.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "radio", "application", "table", "region", "heading"}
    kept = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
    assert len(kept) > 10
    for node in kept:
        if node["role"]["value"] != "table":
            assert node.get("name", {}).get("value"), node


def test_a_frame_in_a_notebook_draws(fresh, pages):
    fresh.open(pages / "notebook.html")
    fresh.frames(5)
    assert fresh.run("document.querySelector('iframe').getBoundingClientRect().width") > 1000
    assert fresh.run("typeof lancet") == "undefined"
