"""Who competes, what is made of each, and who wins."""

import logging
import re

import pytest

from hlo_passes.errors import VerifyError
from hlo_passes.facts.footprint import parse_limit
from hlo_passes.split_pass import MARGIN
from hlo_passes.split_region import SplitRegion
from lancet_jax.compile.candidate import WHOLE
from lancet_jax.compile.tournament import (
    ERROR,
    Judged,
    Tournament,
    entrants_of,
    ranked,
    told,
    ways_apart_of,
)
from tests.lancet_jax.compile.fakes import (
    MERGED,
    UNFUSED,
    Enactment,
    Fellows,
    Made,
    cut,
    judged,
    too_large,
    whole,
)

LANCET, FULL, LOOPS = cut("lancet k=2"), cut("full k=2"), cut("loops k=2")
TIED = {"kernels": ("fusion.1",), "products": ("dot.1",)}


def names(found):
    return [one.candidate.name for one in found]


# ------------------------------------------------------------------------------------ ranking


@pytest.mark.parametrize(
    ("one", "other", "wins"),
    [
        (Made(10), Made(9), FULL),
        (Made(9), Made(10), LANCET),
        (Made(10, 100), Made(9.995, 200), LANCET),
        (Made(10, 200), Made(9.995, 100), FULL),
        (Made(10, 100), Made(10.009, 99), FULL),
        (Made(10, 100), Made(9.9, 200), FULL),
        (Made(10, 100), Made(10, 100), LANCET),
    ],
    ids=["shorter", "longer", "as long and larger", "as long and smaller",
         "a bit longer and smaller", "shorter and larger", "the same"],
)  # fmt: skip
def test_the_shortest_wins_and_of_those_as_long_the_smaller(one, other, wins):
    first, last = ranked([judged(LANCET, one), judged(FULL, other)])
    assert first.candidate is wins
    assert last.candidate is not wins


def test_what_fits_wins_over_what_does_not_and_what_does_not_compile_comes_last():
    found = ranked([
        judged(LOOPS, error="no"), judged(LANCET, Made(1), fits=False), judged(whole(), Made(10)),
        judged(FULL, Made(11)),
    ])  # fmt: skip
    assert names(found) == [WHOLE, "full k=2", "lancet k=2", "loops k=2"]


def test_where_nothing_fits_the_shortest_that_compiles_wins():
    found = ranked([judged(LOOPS, error="no"), judged(FULL, Made(9), fits=False),
                    judged(whole(), Made(10), fits=False)])  # fmt: skip
    assert names(found) == ["full k=2", WHOLE, "loops k=2"]


def test_everyone_is_told_why_it_does_not_run():
    first, *others = told(ranked([
        judged(whole(10.5), Made(10, 100)), judged(FULL, Made(12)),
        judged(LANCET, Made(10.001, 200)), judged(LOOPS, error="INTERNAL: no"),
        judged(cut("exchange k=2"), Made(9), fits=False, excess="it needs too much"),
    ]))  # fmt: skip
    assert (first.name, first.why, first.fits) == (WHOLE, "", True)
    assert (first.step_us, first.exposed_us, first.stock_us) == (10, 1, 12)
    assert (first.predicted_us, first.peak_bytes) == (10.5, 100)
    assert {one.name: one.why for one in others} == {
        "full k=2": "it is longer",
        "lancet k=2": "it needs more memory",
        "loops k=2": "it does not compile: INTERNAL: no",
        "exchange k=2": "it needs too much",
    }
    by_name = {one.name: one for one in others}
    assert not by_name["loops k=2"].fits
    assert by_name["loops k=2"].step_us == 0
    assert not by_name["exchange k=2"].fits


def test_the_winner_is_told_no_reason_even_if_it_does_not_fit():
    first, _ = told([judged(FULL, Made(9), fits=False, excess="much"), judged(LOOPS, error="no")])
    assert first.why == ""


# ------------------------------------------------------------------------------------ entrants


def test_the_step_as_it_is_always_competes():
    far = whole(100.0)
    assert entrants_of([far, cut("full", 10.0)], 1) == (far,)
    assert entrants_of([cut("full", 10.0), far], 4)[0] is far


def test_only_what_may_be_shortest_competes_likeliest_first():
    best, last, out = cut("b", 10.0), cut("l", 10 * (1 + ERROR)), cut("o", 10.01 * (1 + ERROR))
    unknown = cut("u")
    found = entrants_of([out, last, unknown, best, whole(11.0)], 9)
    assert [one.name for one in found] == [WHOLE, "u", "b", "l"]


def test_a_whole_step_that_is_predicted_far_shorter_keeps_others_out():
    assert [one.name for one in entrants_of([whole(10.0), cut("full", 13.0)], 4)] == [WHOLE]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_at_most_so_many_compete(most):
    three = [cut(name, us) for name, us in (("c", 12.0), ("a", 10.0), ("b", 11.0))]
    found = entrants_of([whole(10.0), *three], most)
    assert [one.name for one in found] == [WHOLE, "a", "b"][:most]
    found = entrants_of(three, most)
    assert [one.name for one in found] == ["a", "b", "c"][:most]


@pytest.mark.parametrize("most", [0, 1, 4])
def test_what_the_user_settled_is_never_lost(most):
    (found,) = entrants_of([FULL], most)
    assert found is FULL


# -------------------------------------------------------------------------------------- memory


def test_a_limit_of_memory_says_what_would_allow_a_program():
    small, large = (
        Judged.of(FULL, Made(peak_bytes=need), Enactment(memory_limit=10**9))
        for need in (10**9, 3 * 10**9)
    )
    assert small.fits
    assert small.excess == ""
    assert not large.fits
    assert "memory_limit=" in large.entry().why
    assert Judged.of(FULL, Made(peak_bytes=10**15), Enactment()).fits


@pytest.mark.parametrize("need", [1, 124_980_000, 10**9, 79_994_999_999, 10**11 + 1])
def test_the_limit_that_is_said_to_allow_a_program_does(need):
    said = Judged.of(FULL, Made(peak_bytes=need), Enactment(memory_limit=need - 1)).entry().why
    allows = parse_limit(re.search(r"memory_limit=(\S+) allows it", said)[1])
    assert need <= allows <= need + 10**7
    assert Judged.of(FULL, Made(peak_bytes=need), Enactment(memory_limit=allows)).fits


@pytest.mark.parametrize(
    ("margin", "fits"), [(None, True), (0.3, True), (0.2, True), (0.19, False), (0.0, False)]
)
def test_a_margin_holds_temporaries_against_the_whole_step(margin, fits):
    against = judged(whole(), Made(10, 100))
    found = judged(FULL, Made(9, 120)).within(margin, against)
    assert found.fits is fits
    assert ("+20%" in found.excess and "memory-slack" in found.excess) is not fits


def test_a_margin_needs_a_whole_step_that_fits_to_be_held_against():
    one = judged(FULL, Made(9, 120))
    assert one.within(0.0, None) is one
    assert one.within(0.0, judged(whole(), Made(10, 100), fits=False)) is one
    assert one.within(0.0, judged(whole(), error="no")) is one
    assert one.within(0.0, judged(whole(), Made(10, 0))) is one
    large = judged(FULL, Made(9, 120), fits=False, excess="too large")
    assert large.within(0.0, judged(whole(), Made(10, 100))) is large


@pytest.mark.parametrize(
    ("slack", "wins"), [(0.05, WHOLE), (0.3, "full k=2"), (None, "full k=2"), (MARGIN, "full k=2")]
)
def test_a_margin_that_the_user_gave_counts_in_the_race(slack, wins):
    """The default is none that the user gave: what the device has decides."""
    enactment = Enactment(
        {WHOLE: Made(10, 100), "full k=2": Made(9, 120)},
        passes=(SplitRegion(memory_slack=slack),),
    )
    with Tournament.held_for(enactment) as tournament:
        first, other = tournament.run([whole(), FULL])
    assert first.candidate.name == wins
    assert ("memory-slack" in other.entry().why) is (wins == WHOLE)


# ---------------------------------------------------------------------------------------- races


def test_a_race_judges_everyone_once():
    enactment = Enactment({WHOLE: Made(10), "full k=2": Made(9), "lancet k=2": Made(11)})
    with Tournament.held_for(enactment) as tournament:
        tournament.begin(FULL)
        found = tournament.run([whole(), FULL, LANCET])
    assert names(found) == ["full k=2", WHOLE, "lancet k=2"]
    assert sorted(enactment.xla.asked) == sorted(names(found))
    assert "XLA schedules 'full k=2'" in enactment.clock.xla
    assert "order 'full k=2'" in enactment.clock.seconds


@pytest.mark.parametrize("error", [too_large(), VerifyError("main", "is wrong", "report this")])
def test_what_cannot_be_compiled_or_ordered_loses(error):
    enactment = Enactment({WHOLE: Made(10), "full k=2": error})
    with Tournament.held_for(enactment) as tournament:
        first, last = tournament.run([whole(), FULL])
    assert first.candidate.name == WHOLE
    assert last.scheduled is None
    assert last.entry().why == f"it does not compile: {str(error).splitlines()[0]}"


def test_an_error_of_ours_is_not_taken_for_a_lost_race():
    enactment = Enactment({WHOLE: TypeError("a mistake")})
    with Tournament.held_for(enactment) as tournament, pytest.raises(TypeError):
        tournament.run([whole()])


def test_what_xla_ties_is_tried_apart_and_not_apart_from_that():
    tied = [WHOLE, f"{WHOLE} (without multi-output fusion)", f"{WHOLE} (without dot-merger)",
            f"{WHOLE} (without multi-output fusion and dot-merger)"]  # fmt: skip
    enactment = Enactment({name: Made(10 - i, tied=TIED) for i, name in enumerate(tied)})
    with Tournament.held_for(enactment) as tournament:
        found = tournament.run([whole()])
    assert names(found) == tied[::-1]
    assert enactment.xla.asked == tied
    assert found[0].candidate.options == {**UNFUSED, **MERGED}
    assert found[0].candidate.changes == ()
    assert found[2].candidate.options == UNFUSED


def test_what_is_kept_apart_already_is_not_tried_again():
    one = judged(FULL, Made(tied=TIED))
    assert [what for _, what in ways_apart_of(one, Enactment(given=MERGED))] == [
        "without multi-output fusion"
    ]
    assert ways_apart_of(one, Enactment(given={**MERGED, **UNFUSED})) == ()
    assert ways_apart_of(judged(FULL, Made()), Enactment()) == ()
    assert ways_apart_of(judged(FULL, error="no"), Enactment()) == ()


def test_candidates_that_come_apart_are_judged_as_they_are():
    """The only program, stopped for its ties, competes with its variants; no more come of those."""
    first = judged(whole(), Made(10, tied=TIED))
    other = whole().apart(MERGED, "without dot-merger")
    enactment = Enactment({other.name: Made(9, tied=TIED)})
    with Tournament.held_for(enactment) as tournament:
        found = tournament.run([other], [first])
    assert names(found) == [other.name, WHOLE]
    assert enactment.xla.asked == [other.name]


def test_without_time_only_the_step_as_it_is_is_looked_at():
    apart = f"{WHOLE} (without dot-merger)"
    made = {WHOLE: Made(10, tied={"products": ("dot.1",)}), apart: Made(9)}
    enactment = Enactment(made, search=0.0)
    with Tournament.held_for(enactment) as tournament:
        found = tournament.run([whole(), FULL])
    assert enactment.xla.asked == [WHOLE, apart]
    assert names(found) == [apart, WHOLE, "full k=2"]
    assert "the time to search was over" in found[-1].entry().why


def test_time_that_is_not_over_lets_everyone_compete():
    enactment = Enactment({WHOLE: Made(10), "full k=2": Made(9)}, search=600.0)
    with Tournament.held_for(enactment) as tournament:
        assert tournament.run([whole(), FULL])[0].candidate is FULL


# ---------------------------------------------------------------------------------------- peers


def test_what_a_process_could_not_judge_is_out_for_all():
    makes = {WHOLE: Made(10), "full k=2": Made(8), "lancet k=2": Made(9)}
    enactment = Enactment(makes, fellows=Fellows(b'["as it is", "lancet k=2"]'))
    with Tournament.held_for(enactment) as tournament:
        found = tournament.run([whole(), FULL, LANCET])
    assert names(found) == ["lancet k=2", WHOLE, "full k=2"]
    assert found[-1].scheduled is None
    assert found[-1].entry().why.endswith("another process has not judged it")


def test_what_this_process_could_not_judge_keeps_its_own_reason():
    enactment = Enactment({WHOLE: Made(10), "full k=2": too_large()},
                          fellows=Fellows(b'["as it is", "full k=2"]'))  # fmt: skip
    with Tournament.held_for(enactment) as tournament:
        _, last = tournament.run([whole(), FULL])
    assert last.error == "RESOURCE_EXHAUSTED: 90 GB"


# ------------------------------------------------------------------------------- while planning


def begun(enactment, *candidates):
    with Tournament.held_for(enactment) as tournament:
        for one in candidates:
            tournament.begin_if_likely(one)
    return enactment.xla.asked


def makes(*candidates):
    return {one.name: Made() for one in candidates}


def test_what_is_likely_to_compete_is_judged_while_others_are_planned():
    near, far = cut("near", 10.0), cut("far", 20.0)
    assert begun(Enactment(makes(near, far)), near, far) == ["near"]
    assert sorted(begun(Enactment(makes(near, far)), far, near)) == ["far", "near"]


def test_no_more_than_may_compete_are_begun():
    many = [cut(f"k={k}", 10.0 - k) for k in range(5)]
    assert sorted(begun(Enactment(makes(*many), entrants=2), *many)) == ["k=0", "k=1"]


def test_a_quick_search_begins_nothing_early():
    assert begun(Enactment(makes(FULL), search="quick"), FULL) == []


def test_a_race_says_what_goes_on(caplog):
    caplog.set_level(logging.INFO, "lancet_jax")
    with Tournament.held_for(Enactment({WHOLE: Made(10)})) as tournament:
        tournament.run([whole()])
    assert f"jit_step: XLA schedules '{WHOLE}': 0.00 s" in caplog.messages
