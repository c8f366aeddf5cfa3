import random
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.schedule.list.budget import Foresight
from hlo_passes.schedule.list.improve import improve
from hlo_passes.schedule.list.policies import POLICIES, list_order
from hlo_passes.schedule.list.run import Policy, list_schedule
from hlo_passes.schedule.memory import Ledger, Rest
from hlo_passes.schedule.problem import Lane
from hlo_passes.schedule.simulate import execute
from tests.problems import Builder, backward_like, problems, small_problems, step_like, unstructured


def length(problem, order, contention=0.0):
    return execute(problem, order, contention).makespan_us


def two_windows():
    """One filler, wanted by the second exchange alone in the end: the first has other company."""
    b = Builder()
    head = b.compute(5)
    dw = b.compute(10, head)
    first = b.exchange(4, b.compute(5, head))
    beside = b.compute(4, head)
    dx = b.compute(10, b.done(first), beside)
    second = b.exchange(10, dx)
    b.compute(5, b.done(second))
    return b.problem(), dw, second


def test_a_filler_is_kept_for_the_window_that_needs_it():
    problem, dw, second = two_windows()
    order = list_order(problem)
    assert length(problem, order) == problem.compute_us
    assert order.index(second) < order.index(dw)


def test_a_sum_does_not_get_in_the_way_of_an_exchange_that_is_due():
    b = Builder()
    grad = b.compute(5)
    summed = b.exchange(50, grad, urgent=False)
    start = b.exchange(10, b.compute(5, grad))
    b.compute(100, b.done(start))
    b.compute(1, b.done(summed))
    problem = b.problem()
    order = list_order(problem)
    assert order.index(start) < order.index(summed)
    assert length(problem, order) == pytest.approx(121)


def test_a_step_without_exchanges_stays_as_it_is():
    b = Builder()
    b.compute(1), b.compute(2), b.compute(3)
    assert list_order(b.problem()) == (0, 1, 2)


def test_an_optimal_order_is_left_alone():
    b = Builder()
    start = b.exchange(10, b.compute(5))
    b.compute(10)
    b.compute(5, b.done(start))
    problem = b.problem()
    assert list_order(problem) == tuple(range(problem.size))


def test_free_ops_with_memory_wait_for_their_reader():
    b = Builder()
    ramp = b.op(Lane.FREE, 0.0, size=1000)
    start = b.exchange(10, b.compute(5))
    filler = b.compute(10)
    last = b.compute(5, b.done(start), ramp)
    order = list_schedule(Foresight.of(b.problem()), Policy())
    assert order.index(ramp) == order.index(last) - 1 > order.index(filler)


@given(problems, st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=40)
def test_legal_and_never_longer_than_program_order(problem, contention):
    order = list_order(problem, contention=contention)
    assert problem.is_order(order)
    assert length(problem, order, contention) <= length(problem, range(problem.size), contention)


@given(problems, st.sampled_from(POLICIES), st.integers(0, 60))
@settings(deadline=None, max_examples=200)
def test_every_single_pass_is_legal(problem, policy, slack):
    stock = tuple(range(problem.size))
    limit = problem.buffers.peak(stock) * slack // 30
    order = list_schedule(Foresight.of(problem), policy, memory_limit=limit)
    assert problem.is_order(order)


@given(problems, st.sampled_from(POLICIES), st.sampled_from([1.0, 1.02, 1.1, 1.5]))
@settings(deadline=None, max_examples=300)
def test_every_single_pass_fits_where_program_order_fits(problem, policy, share):
    limit = int(problem.buffers.peak(range(problem.size)) * share)
    order = list_schedule(Foresight.of(problem), policy, memory_limit=limit)
    assert problem.buffers.peak(order) <= limit


@given(problems, st.sampled_from(POLICIES))
@settings(deadline=None, max_examples=100)
def test_what_the_rest_needs_is_kept_up_to_date(problem, policy):
    order = list_schedule(Foresight.of(problem), policy)
    rest, ledger = Rest(problem.buffers), Ledger(problem.buffers)
    left = set(range(problem.size))
    for op in order:
        rest.issue([op])
        ledger.issue([op])
        left.remove(op)
        ahead = deepcopy(ledger)
        for other in sorted(left):
            assert rest.bytes[other] == ahead.need([other])
            ahead.issue([other])


@given(problems, st.sampled_from([0.5, 0.9, 1.0, 1.05, 1.5]))
@settings(deadline=None, max_examples=40)
def test_the_memory_limit_is_kept_or_nothing_is_changed(problem, share):
    stock = tuple(range(problem.size))
    limit = int(problem.buffers.peak(stock) * share)
    order = list_order(problem, memory_limit=limit)
    assert problem.is_order(order)
    assert order == stock or problem.buffers.peak(order) <= limit


def test_a_memory_limit_costs_no_more_than_it_has_to():
    problem = step_like(random.Random(3), layers=6)
    stock = tuple(range(problem.size))
    peak = problem.buffers.peak(stock)
    lengths = [
        length(problem, list_order(problem, memory_limit=limit))
        for limit in (None, peak, peak // 2)
    ]
    assert lengths[0] < lengths[2] == length(problem, stock)
    assert lengths[0] <= lengths[1] < lengths[2]


@given(problems)
@settings(deadline=None, max_examples=25)
def test_the_same_problem_gets_the_same_order(problem):
    assert list_order(problem) == list_order(replace(problem))


@given(small_problems)
@settings(deadline=None, max_examples=50)
def test_the_local_search_only_improves(problem):
    stock = tuple(range(problem.size))
    order = improve(problem, stock)
    assert problem.is_order(order)
    assert length(problem, order) <= length(problem, stock)


@given(problems)
@settings(deadline=None, max_examples=50)
def test_the_ledger_agrees_with_liveness(problem):
    order = list_schedule(Foresight.of(problem), Policy())
    ledger = Ledger(problem.buffers)
    peaks = []
    for op in order:
        peaks.append(ledger.need([op]))
        ledger.issue([op])
    assert ledger.peak == problem.buffers.peak(order) == max(peaks, default=0)


def calls(function, *args):
    """Count the Python and C functions that a call calls."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [step_like, unstructured], ids=lambda f: f.__name__)
def test_a_pass_costs_about_as_much_per_op_on_large_steps(make):
    sizes = (60, 250) if make is step_like else (800, 3300)
    small, large = (make(random.Random(0), size) for size in sizes)
    for problem in (small, large):
        assert problem.tail_us
    assert large.size > 4500
    for policy in POLICIES:
        work = [calls(list_schedule, Foresight.of(p), policy) / p.size for p in (small, large)]
        assert work[1] < 1.6 * work[0], policy


@pytest.mark.slow
@given(st.builds(backward_like, st.randoms(use_true_random=False), st.integers(1, 12)))
@settings(deadline=None, max_examples=80)
def test_backward_passes_of_many_shapes(problem):
    order = list_order(problem, memory_limit=problem.buffers.peak(range(problem.size)))
    assert problem.is_order(order)
    assert length(problem, order) <= length(problem, range(problem.size))
