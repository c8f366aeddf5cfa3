"""The event loop: streams, flags, and what is booked."""

import pytest

from lancet_jax.judge.streams import Await, Raise, Replay, Task, TaskKind

C, A = TaskKind.COMPUTE, TaskKind.ALL_TO_ALL


def run(compute, exchange, contention=0.0, fabric=()):
    replay = Replay(contention)
    replay.run(compute, exchange, fabric)
    return replay


def test_two_streams_run_side_by_side():
    replay = run([Task(C, 5)], [Task(A, 3)])
    assert replay.now == 5
    assert replay.times == {(C, A, None): 3, (C, None, None): 2}


def test_a_flag_goes_up_when_what_was_queued_before_it_has_ended():
    replay = run([Task(C, 5), Raise(0), Task(C, 1)], [Await(0), Task(A, 3)])
    assert replay.now == 8
    assert replay.times[C, A, None] == 1
    assert replay.times[None, A, None] == 2


def test_a_stream_that_waits_does_nothing():
    replay = run([Raise(0), Await(1), Task(C, 2)], [Await(0), Task(A, 3), Raise(1)])
    assert replay.now == 5
    assert replay.times == {(None, A, None): 3, (C, None, None): 2}


def test_streams_that_wait_for_each_other_are_an_error():
    with pytest.raises(RuntimeError, match="each other"):
        run([Await(1), Raise(0)], [Await(0), Raise(1)])


def test_an_exchange_in_flight_slows_compute_by_the_contention():
    replay = run([Task(C, 10)], [Task(A, 6)], contention=0.5)
    # 6 us at two thirds of the speed do 4 us of work; 6 are left.
    assert replay.now == pytest.approx(12)
    assert replay.times[C, A, None] == pytest.approx(6)


def test_compute_is_slowed_from_the_moment_that_an_exchange_starts():
    replay = run([Task(C, 2), Raise(0), Task(C, 4)], [Await(0), Task(A, 100)], contention=1.0)
    assert replay.times[C, A, None] == pytest.approx(8)
    assert replay.now == pytest.approx(102)


def test_exchanges_on_streams_of_their_own_run_side_by_side():
    replay = run([Raise(0), Task(C, 1)], [Await(0), Task(A, 3)],
                 fabric=[Await(0), Task(A, 2)])  # fmt: skip
    assert replay.now == 3
    assert replay.times == {(C, A, A): 1, (None, A, A): 1, (None, A, None): 1}
