"""Who is compiled first, what the other is told, and which of the two is kept."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import pytest

from lancet_jax.compile.contest import Contest, Result
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.rivals import Rivals
from lancet_jax.compile.untied import Untied

ROOM = 1000


class FakeContest(Contest):
    """Executables are their own results."""

    def module_of(self, executable):
        return executable

    def result_of(self, module):
        return module


class Compiler:
    """Hands out results by the name of what is compiled, and writes down in which order."""

    def __init__(self, **results):
        self.results, self.compiled = results, []

    def __call__(self, prepared):
        self.compiled.append(prepared)
        made = self.results[prepared.name]
        if isinstance(made, Exception):
            raise made
        return made


@dataclass(frozen=True)
class FakeEnactment:
    complain: object = None

    def prepared(self, outcome, options, uncut_bytes=0):
        name = "untied" if "xla_disable_hlo_passes" in options else "cut"
        return SimpleNamespace(name=name, uncut_bytes=uncut_bytes)


def rivals(monkeypatch, ties=(), whole=True):
    """Return a cut step and its uncut rival, and where the outcome is listed."""
    monkeypatch.setattr("lancet_jax.compile.untied.find_ties", lambda module: ties)
    contest = FakeContest(8, costs=None)
    outcome, other = Outcome(salt="0f", notes=["planned"], seconds=2.0), Outcome(seconds=1.0)
    cut = Untied(FakeEnactment(), outcome, {"one": 1}, contest)
    rewriter = SimpleNamespace(
        outcomes=[other], prepare=lambda _: SimpleNamespace(name="whole") if whole else None
    )
    listed = [outcome]
    return Rivals(None, rewriter, cut, listed, contest), listed


def test_the_uncut_step_comes_first_and_says_how_much_it_holds(monkeypatch):
    found, listed = rivals(monkeypatch)
    compiler = Compiler(whole=Result(True, -10.0, ROOM), cut=Result(True, -9.0, 1))
    assert found.compile(compiler) == compiler.results["cut"]
    assert [one.name for one in compiler.compiled] == ["whole", "cut"]
    assert compiler.compiled[1].uncut_bytes == ROOM
    assert listed[0].rival is found.whole.outcomes[0]
    assert listed[0].seconds == 3.0
    assert listed[0].notes[-1] == "on XLA's schedules: cut 9 us, uncut 10 us: the cut step is kept"


@pytest.mark.parametrize(
    ("whole", "cut"),
    [
        (Result(True, -10.0, 1), Result(True, -11.0, 1)),
        (Result(True, -10.0, 1), Result(True, -10.0, 1)),
        (Result(True, -10.0, 1), Result(False, -1.0, 1)),
    ],
    ids=["longer", "as long", "does not fit"],
)
def test_a_cut_that_is_no_shorter_is_dropped(monkeypatch, whole, cut):
    found, listed = rivals(monkeypatch)
    assert found.compile(Compiler(whole=whole, cut=cut)) is whole
    assert listed == found.whole.outcomes
    assert listed[0].notes[0] == "planned"
    assert listed[0].notes[-1].endswith("left whole")


@pytest.mark.parametrize(("slack", "is_kept"), [(0.1, False), (0.3, True), (None, True)])
def test_a_cut_that_holds_more_than_is_allowed_is_dropped(monkeypatch, slack, is_kept):
    found, listed = rivals(monkeypatch)
    found = replace(found, slack=slack)
    compiler = Compiler(whole=Result(True, -10.0, ROOM), cut=Result(True, -9.0, ROOM * 6 // 5))
    assert found.compile(compiler) == compiler.results["cut" if is_kept else "whole"]
    assert ("+10% is allowed (memory-slack)" in listed[0].notes[-1]) is not is_kept


def test_a_step_that_compiles_only_cut_stays_cut(monkeypatch):
    found, listed = rivals(monkeypatch)
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 90 GB\nmore")
    compiler = Compiler(whole=error, cut=Result(True, -11.0, 1))
    assert found.compile(compiler) == compiler.results["cut"]
    assert listed[0].notes[-1] == "uncut it does not compile: RESOURCE_EXHAUSTED: 90 GB"
    assert compiler.compiled[1].uncut_bytes == 0


def test_a_step_that_compiles_only_uncut_stays_uncut(monkeypatch):
    found, listed = rivals(monkeypatch)
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 90 GB\nmore")
    compiler = Compiler(whole=Result(True, -10.0, ROOM), cut=error)
    assert found.compile(compiler) == compiler.results["whole"]
    assert listed == found.whole.outcomes
    assert listed[0].notes == ["planned", "cut it does not compile: RESOURCE_EXHAUSTED: 90 GB"]


def test_every_branch_is_agreed_on(monkeypatch):
    said = {}
    monkeypatch.setattr(
        FakeContest, "agree", lambda self, topic, found: said.update({topic: found})
    )
    found, _ = rivals(monkeypatch, ties=("fusion.1", "fusion.2"))
    results = {name: Result(True, -us, 1) for name, us in (("whole", 9), ("cut", 8), ("untied", 7))}
    found.compile(Compiler(**results))
    assert said == {
        "uncut/0f": "compiles", "ties/0f": "fusion.1, fusion.2", "untied/0f": "compiles",
        "fusion/0f": "untied", "cut/0e": "compiles", "kept/0e": "cut",
    }  # fmt: skip


def test_nothing_to_compare_with(monkeypatch):
    found, listed = rivals(monkeypatch, whole=False)
    compiler = Compiler(cut=Result(True, -11.0, 1))
    assert found.compile(compiler) == compiler.results["cut"]
    assert listed[0].rival is None


@pytest.mark.parametrize(("without", "said"), [(-8.0, "left out"), (-9.5, "kept")])
def test_a_tied_step_is_compiled_both_ways(monkeypatch, without, said):
    found, listed = rivals(monkeypatch, ties=("fusion.1", "fusion.2"))
    compiler = Compiler(
        whole=Result(True, -10.0, ROOM), cut=Result(True, -9.0, 1), untied=Result(True, without, 1)
    )
    kept = found.compile(compiler)
    assert kept == compiler.results["untied" if said == "left out" else "cut"]
    assert [one.name for one in compiler.compiled] == ["whole", "cut", "untied"]
    assert compiler.compiled[2].uncut_bytes == ROOM
    assert listed[0].notes[-2] == (
        "XLA's multi-output fusion ties parts together (fusion.1, fusion.2): 9 us with it,"
        f" {-without:,.0f} us without; it is {said}"
    )
    assert listed[0].salt == ("0e" if said == "left out" else "0f")
    assert listed[0] is found.cut.outcome


def test_a_step_that_does_not_compile_untied_stays_tied(monkeypatch):
    found, _ = rivals(monkeypatch, ties=("fusion.1",))
    compiler = Compiler(
        whole=Result(True, -10.0, ROOM), cut=Result(True, -9.0, 1),
        untied=jax.errors.JaxRuntimeError("INTERNAL: no"),
    )  # fmt: skip
    assert found.compile(compiler) == compiler.results["cut"]
