import random

import pytest
from hypothesis import given, settings

from hlo_passes.schedule.paper.gaps import place_sums
from hlo_passes.schedule.paper.greedy import assign, greedy_order
from hlo_passes.schedule.problem import Lane
from hlo_passes.schedule.simulate import execute
from tests.problems import Builder, problems, step_like

ARTEFACT = {"guard_2x": True, "last_chance": True}


@pytest.mark.parametrize("rules", [{}, ARTEFACT], ids=["paper", "artefact"])
def test_golden_two_exchanges_are_covered_exactly(rules):
    both = [range(4), range(4)]
    assert assign([10, 6], [7, 4, 3, 2], both, **rules) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("rules", [{}, ARTEFACT], ids=["paper", "artefact"])
def test_golden_the_only_filler_is_taken_however_long(rules):
    assert assign([5], [9], [[0]], **rules) == [[0]]


def test_golden_the_paper_overshoots():
    assert assign([5], [4, 9], [[0, 1]]) == [[0, 1]]


def test_golden_the_guard_stops_before_it():
    assert assign([5], [4, 9], [[0, 1]], guard_2x=True) == [[0]]


def test_golden_last_chance_forces_it_all_the_same():
    assert assign([5], [4, 9], [[0, 1]], **ARTEFACT) == [[0, 1]]


def test_golden_the_guard_keeps_a_filler_for_the_next_exchange():
    both = [range(2), range(2)]
    assert assign([5, 9], [4, 9], both) == [[0, 1], []]
    assert assign([5, 9], [4, 9], both, **ARTEFACT) == [[0], [1]]


def test_ties_go_to_program_order():
    assert assign([5], [3, 3, 3], [range(3)]) == [[0, 1]]
    assert assign([5], [6, 4], [range(2)]) == [[0]]
    assert assign([5], [4, 6], [range(2)]) == [[0, 1]]


def test_a_filler_follows_the_fillers_that_it_reads():
    reads = [[], [0]]
    assert assign([4], [1, 4], [[0, 1]], preds=reads) == [[0, 1]]
    assert assign([4], [1, 4], [[0, 1]]) == [[1]]


def test_a_filler_that_another_exchange_alone_may_take_comes_before():
    assert assign([4], [1, 4], [[1]], preds=[[], [0]]) == [[1]]


def test_last_chance_brings_what_the_filler_has_to_follow():
    chosen = assign([1, 1], [9, 9, 1], [[0, 1, 2], [0]], preds=[[], [0], []], last_chance=True)
    assert chosen == [[2, 0, 1], []]


def test_fillers_stand_right_behind_their_exchange_and_waits_before_the_reader():
    b = Builder()
    dx = b.compute(5)
    dw = b.compute(8)
    start = b.exchange(10, dx)
    done = b.done(start)
    dx0 = b.compute(5, done)
    greedy = greedy_order(b.problem())
    assert greedy.order == (dx, start, dw, done, dx0)
    assert greedy.assignment == {start: (dw,)}


def test_updates_are_no_fillers_and_come_last():
    b = Builder()
    dw = b.compute(5)
    summed = b.done(b.exchange(5, dw, urgent=False))
    update = b.compute(9, summed)
    dx = b.compute(5)
    start = b.exchange(10, dx)
    dx0 = b.compute(5, b.done(start))
    greedy = greedy_order(b.problem())
    assert greedy.assignment == {start: (dw,)}
    assert greedy.order[-1] == update
    assert greedy.order.index(dx0) < greedy.order.index(update)


def test_a_sum_takes_a_gap_that_it_fits_and_no_other():
    def order(sum_us):
        b = Builder()
        first = b.exchange(10, b.compute(1))
        summed = b.exchange(sum_us, b.compute(1), urgent=False)
        second = b.exchange(10, b.compute(20, b.done(first)))
        b.compute(1, b.done(second))
        b.compute(1, b.done(summed))
        found = greedy_order(b.problem()).order
        return [op for op in found if op in (first, summed, second)], [first, summed, second]

    got, (first, summed, second) = order(20)
    assert got == [first, summed, second]
    got, (first, summed, second) = order(21)
    assert got == [first, second, summed]


def test_of_two_sums_the_longer_that_fits_goes_first():
    b = Builder()
    first = b.exchange(10, b.compute(1))
    short, long = (b.exchange(us, b.compute(1), urgent=False) for us in (5, 15))
    second = b.exchange(10, b.compute(20, b.done(first)))
    problem = b.problem()
    spine = [op for op in range(problem.size) if op not in (short, long)]
    talks = [op for op in place_sums(problem, spine) if problem.lane[op] is Lane.EXCHANGE]
    assert talks == [first, long, short, second]


@given(problems)
@settings(deadline=None, max_examples=150)
def test_every_order_is_legal(problem):
    for rules in ({}, {"guard_2x": True}, {"last_chance": True}, ARTEFACT):
        greedy = greedy_order(problem, **rules)
        assert problem.is_order(greedy.order)
        assert greedy == greedy_order(problem, **rules)
        taken = [op for fillers in greedy.assignment.values() for op in fillers]
        assert len(taken) == len(set(taken))


def test_a_step_gets_shorter():
    problem = step_like(random.Random(1), layers=8)
    before = execute(problem, range(problem.size)).makespan_us
    after = execute(problem, greedy_order(problem).order).makespan_us
    assert after - problem.compute_us < 0.5 * (before - problem.compute_us)
