"""Which program is chosen, and what is compiled if that does not work out."""

from types import SimpleNamespace

import jax
import pytest

from hlo_passes.plans import Plan
from lancet_jax.compile.before_xla import Prepared
from lancet_jax.compile.candidate import WHOLE
from lancet_jax.compile.choice import Choice, choose, compiled
from lancet_jax.peers.decided import Decided
from tests.lancet_jax.compile.fakes import (
    MERGED,
    Enactment,
    Executable,
    Made,
    cut,
    judged,
    plan,
    too_large,
    whole,
)

FULL, LANCET = cut("full k=2"), cut("lancet k=2")
APART = f"{WHOLE} (without dot-merger)"
TIED = {"products": ("dot.1",)}
ORDERS = (Plan(module="scheduled", target="h100:1x8"),)


@pytest.fixture(autouse=True)
def no_module(monkeypatch):
    """The step is a word here."""
    copies = SimpleNamespace(copy_of=lambda module: module)
    monkeypatch.setattr("lancet_jax.compile.choice.Module", copies)


def preparing(*candidates):
    """Return what prepares a step, and whom it told of candidates."""
    told = []

    def prepare(on_candidate):
        told.append(on_candidate)
        for one in candidates if on_candidate is not None else ():
            on_candidate(one)
        return Prepared(None, candidates)

    return prepare, told


# ------------------------------------------------------------------------------------ to choose


def test_what_was_decided_before_is_not_looked_for():
    enactment, (prepare, told) = Enactment(), preparing(FULL)
    known = Decided(name="full k=2", plans=FULL.plans, orders=ORDERS)
    prepared, choice = choose(prepare, enactment, known)
    assert told == [None]
    assert prepared.candidates == (FULL,)
    assert choice.decided is known
    assert choice.ranked[0].candidate is FULL
    assert choice.ranked[0].scheduled is None
    assert not choice.is_open
    assert enactment.xla.asked == []


def test_what_was_decided_before_has_the_options_of_then():
    known = Decided(plans=FULL.plans, options=MERGED, left_out="without dot-merger")
    _, choice = choose(preparing(FULL)[0], Enactment(), known)
    assert choice.ranked[0].candidate.options == MERGED
    assert choice.ranked[0].candidate.name == "full k=2 (without dot-merger)"


@pytest.mark.parametrize("is_judged", [True, False])
def test_what_is_settled_is_compiled_and_may_come_apart(is_judged):
    enactment = Enactment(is_open=False, is_judged=is_judged)
    _, choice = choose(preparing(FULL)[0], enactment, None)
    assert choice.ranked[0].candidate is FULL
    assert choice.is_open is is_judged
    assert choice.decided == Decided(name="full k=2", plans=FULL.plans, prices=enactment.prices)
    assert enactment.xla.asked == []


def test_what_is_open_is_decided_by_xlas_modules():
    enactment = Enactment({WHOLE: Made(10), "full k=2": Made(9, plans=ORDERS)})
    prepare, told = preparing(FULL, whole(10.0))
    _, choice = choose(prepare, enactment, None)
    assert told[0] is not None
    assert sorted(enactment.xla.asked) == [WHOLE, "full k=2"]
    assert [one.name for one in choice.decided.race] == ["full k=2", WHOLE]
    assert choice.decided.name == "full k=2"
    assert choice.decided.orders == ORDERS
    assert not choice.is_open


def test_the_first_process_judges_what_all_compile_before_they_do():
    """Others hear what was decided before XLA is at work in full, so ties are looked at first."""
    made = {WHOLE: Made(10, tied=TIED), APART: Made(9)}
    enactment = Enactment(made, is_open=False, decides_for_all=True)
    _, choice = choose(preparing(whole())[0], enactment, None)
    assert choice.decided.name == APART
    assert choice.decided.options == MERGED
    assert not choice.is_open


# ----------------------------------------------------------------------------------- to compile


def race(enactment, *ranked, **more):
    return compiled(Choice.of(tuple(ranked), enactment, **more), enactment)


def test_the_orders_of_the_race_are_handed_on():
    enactment = Enactment({"full k=2": Made(9, plans=ORDERS)})
    made, choice = race(enactment, judged(FULL, enactment.makes["full k=2"]), judged(whole()))
    assert enactment.compiled == ["full k=2"]
    assert enactment.orders == [ORDERS]
    assert made.candidate is FULL
    assert choice.decided.orders == ORDERS
    assert choice.notes == ()


def test_the_orders_of_a_known_decision_are_handed_on():
    enactment = Enactment()
    known = Choice((judged(FULL),), Decided(orders=ORDERS))
    _, choice = compiled(known, enactment)
    assert enactment.orders == [ORDERS]
    assert choice.decided.orders == ORDERS


def test_what_does_not_compile_gives_way_to_the_next():
    enactment = Enactment(executables={"full k=2": too_large()})
    made, choice = race(
        enactment, judged(FULL, Made(8)), judged(LANCET, Made(9)), judged(whole(), Made(10))
    )
    assert enactment.compiled == ["full k=2", "lancet k=2"]
    assert made.candidate is LANCET
    assert choice.decided.name == "lancet k=2"
    assert choice.decided.plans == LANCET.plans
    assert [one.name for one in choice.decided.race] == ["lancet k=2", "full k=2", WHOLE]
    assert choice.notes == ("full k=2 does not compile: RESOURCE_EXHAUSTED: 90 GB",)


def test_what_does_not_fit_as_compiled_gives_way_to_the_next_that_does():
    enactment = Enactment(executables={"full k=2": Executable(2 * 10**6)}, memory_limit=10**6)
    made, choice = race(enactment, judged(FULL, Made(9)), judged(whole(), Made(10)))
    assert enactment.compiled == ["full k=2", WHOLE]
    assert made.candidate.name == WHOLE
    assert choice.decided.name == WHOLE
    (said,) = choice.notes
    assert said.startswith("full k=2 needs 2.0 MB as compiled, more than the limit of 1.0 MB")


@pytest.mark.parametrize("limit", [None, 10**6])
def test_what_does_not_fit_stays_where_nothing_else_would(limit):
    enactment = Enactment(executables={"full k=2": Executable(2 * 10**6)}, memory_limit=limit)
    made, choice = race(enactment, judged(FULL, Made(9)), judged(whole(), Made(10), fits=False))
    assert enactment.compiled == ["full k=2"]
    assert made.candidate is FULL
    assert choice.notes == ()


def test_where_nothing_compiles_the_last_error_is_raised():
    last = jax.errors.JaxRuntimeError("INTERNAL: no")
    enactment = Enactment(executables={"full k=2": too_large(), WHOLE: last})
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: no"):
        race(enactment, judged(FULL, Made(9)), judged(whole(), Made(10)))
    assert enactment.compiled == ["full k=2", WHOLE]


@pytest.mark.parametrize(("apart_us", "wins"), [(9, APART), (11, WHOLE)])
def test_the_only_program_competes_if_it_has_ties(apart_us, wins):
    made = {WHOLE: Made(10, tied=TIED, plans=ORDERS), APART: Made(apart_us, plans=ORDERS)}
    enactment = Enactment(made)
    found, choice = race(enactment, judged(whole()), is_open=True)
    assert enactment.xla.asked == [APART]
    assert enactment.compiled == [WHOLE, wins]
    assert enactment.orders == [(), ORDERS]
    assert found.candidate.name == choice.decided.name == wins
    assert found.executable is not None
    assert [one.name for one in choice.decided.race] == [wins, WHOLE if wins == APART else APART]


def test_the_only_program_is_compiled_at_once_if_nothing_is_tied():
    enactment = Enactment({WHOLE: Made(10)})
    made, choice = race(enactment, judged(whole()), is_open=True)
    assert enactment.compiled == [WHOLE]
    assert enactment.xla.asked == []
    assert made.executable is not None
    assert choice.decided.race == ()


def test_what_was_settled_is_never_stopped():
    enactment = Enactment({WHOLE: Made(10, tied=TIED)})
    race(enactment, judged(whole()))
    assert enactment.compiled == [WHOLE]
    assert enactment.xla.asked == []


def test_a_decision_is_the_same_after_it_was_kept():
    enactment = Enactment({"full k=2": Made(9, plans=ORDERS)})
    decided = Choice.of(
        (judged(FULL, enactment.makes["full k=2"]), judged(whole(), Made(10))), enactment
    ).decided
    assert Decided.from_bytes(decided.to_bytes()) == decided
    assert decided.plans == (plan("full k=2"),)
