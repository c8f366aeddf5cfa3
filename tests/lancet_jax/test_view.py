"""`lancet-jax view`, in this process."""

import json
import re

import jax
import pytest

from hlo_passes.plans import Plan
from lancet_jax.cli.app import run
from tests.hlo import STEP
from tests.steps import CASES


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "gpu.txt").write_text(STEP)
    case = CASES["scatter"](jax.devices())
    lowered = jax.jit(case.step, **case.jit_kwargs).lower(*case.args)
    (folder / "step.mlir").write_text(lowered.as_text(debug_info=True))
    return folder


def data_of(path):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>',
                      path.read_text(), re.DOTALL)  # fmt: skip
    return json.loads(found[1])


def test_before_and_after(files, tmp_path, capsys):
    out = tmp_path / "page.html"
    options = ["--target", "v100:1x8", "-p", "schedule-dw{memory-slack=10}"]
    assert run(["view", str(files / "gpu.txt"), "-o", str(out), *options]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    data = data_of(out)
    assert [view["name"] for view in data["views"]] == ["before", "after"]
    assert data["report"]["after"]["exposed_us"] < data["report"]["before"]["exposed_us"]
    assert data["report"]["target"] == "v100:1x8"
    plan = tmp_path / "plan.json"
    assert run(["plan", str(files / "gpu.txt"), "-o", str(plan), *options]) == 0
    assert data["plans"][0]["hash"] == Plan.load(plan).hash


def test_off_draws_the_step_as_it_is(files, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert run(["view", str(files / "gpu.txt"), "-o", str(out), "-p", "off"]) == 0
    assert [view["name"] for view in data_of(out)["views"]] == ["as it is"]
    capsys.readouterr()


def test_a_saved_plan_is_drawn(files, tmp_path, capsys):
    plan, out, other = (tmp_path / n for n in ("plan.json", "a.html", "b.html"))
    options = ["-p", "schedule-dw{memory-slack=10}"]
    file = str(files / "gpu.txt")
    assert run(["plan", file, "-o", str(plan), *options]) == 0
    assert run(["view", file, "-o", str(out), "--plan", str(plan)]) == 0
    assert run(["view", file, "-o", str(other), *options]) == 0
    assert data_of(out)["views"] == data_of(other)["views"]
    capsys.readouterr()


def test_several_passes_one_after_another(files, tmp_path, capsys):
    """The order is planned for the step that the cut leaves, and drawn on it."""
    out = tmp_path / "page.html"
    passes = "split-region{k=2},schedule-dw{memory-slack=10}"
    assert run(["view", str(files / "step.mlir"), "-o", str(out), "-p", passes]) == 0
    data = data_of(out)
    assert [plan["passes"][0].split("{")[0] for plan in data["plans"]] == [
        "split-region", "schedule-dw",
    ]  # fmt: skip
    assert data["plans"][0]["splits"]
    assert any(data["ops"]["piece"])
    before, after = (len(view["exchange"]["op"]) for view in data["views"])
    assert after > before
    capsys.readouterr()


def test_several_files_from_one_plan(files, tmp_path, capsys):
    names = ["a.html", "a.svg", "a.perfetto.json", "a.me.json", "a.dot"]
    arguments = [part for name in names for part in ("-o", str(tmp_path / name))]
    assert run(["view", str(files / "gpu.txt"), *arguments]) == 0
    wrote = re.findall(r"wrote (.*)", capsys.readouterr().out)
    assert sorted(wrote) == sorted(str(path) for path in tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} > set(names)


def test_json(files, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert run(["view", str(files / "gpu.txt"), "-o", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["wrote"] == [str(out)]
    assert printed["report"] == data_of(out)["report"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{gpu}", "-o", "page.txt"], "no format has this ending"),
        (["{gpu}", "-o", "page.html", "-o", "page"], "no format has this ending"),
        (["{gpu}", "-o", "no/folder/page.html"], "no folder"),
        (["{gpu}"], "output"),
        (["missing.txt", "-o", "page.html"], "No such file"),
        (["{gpu}", "-o", "page.html", "-p", "faster"], "faster"),
        (["{gpu}", "-o", "page.html", "-p", "split-exchange"], "only StableHLO can be cut"),
        (["{gpu}", "-o", "page.html", "--target", "k80:1x8"], "k80"),
        (["{gpu}", "-o", "page.html", "--plan", "{mlir}"], "not a plan"),
    ],
)
def test_mistakes_end_in_one_message(files, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"gpu": files / "gpu.txt", "mlir": files / "step.mlir"}
    code = run(["view", *(a.format(**names) for a in arguments)])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "try: " in printed.err
    assert "Traceback" not in printed.err
    assert message in printed.err.lower() or message in printed.err
    assert list(tmp_path.iterdir()) == []
