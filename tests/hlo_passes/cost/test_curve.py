"""Interpolation: exact at knots, straight between them, sensible beyond them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_passes.cost.curve import Curve

sizes = st.integers(0, 2**40)
times = st.floats(0, 1e7, allow_nan=False)
curves = st.dictionaries(sizes, times, min_size=1, max_size=12).map(lambda d: Curve.of(d.items()))


def test_inner_pieces_have_their_own_slope():
    # The paper's artefact takes the slope of the next piece here and says 10.
    curve = Curve.of([(1, 10), (2, 20), (4, 60)])
    assert curve.at(1.5) == 15
    assert curve.at(3) == 40


@pytest.mark.parametrize(("size", "us"), [(0, 10), (1, 10), (2, 20), (4, 60), (5, 80), (14, 260)])
def test_floor_below_and_last_slope_above(size, us):
    assert Curve.of([(1, 10), (2, 20), (4, 60)]).at(size) == us


def test_points_come_in_any_order_and_equal_sizes_give_their_median():
    curve = Curve.of([(4, 60), (1, 10), (2, 90), (2, 20), (2, 21)])
    assert curve.knots == ((1, 10), (2, 21), (4, 60))


def test_one_point_grows_through_the_origin():
    curve = Curve.of([(1000, 5)])
    assert (curve.at(10), curve.at(1000), curve.at(3000)) == (5, 5, 15)
    assert Curve.of([(0, 5)]).at(100) == 5


def test_a_falling_end_does_not_fall_for_ever():
    assert Curve.of([(1, 10), (2, 4)]).at(100) == 4


def test_dips_are_named():
    curve = Curve.of([(1, 10), (2, 9), (3, 5), (4, 20)])
    assert curve.dips() == (2, 3)
    assert curve.dips(0.2) == (3,)
    assert Curve.of([(1, 10), (2, 10), (3, 11)]).dips() == ()


@pytest.mark.parametrize(
    "points", [[], [(-1, 1)], [(1, -1)], [(1, float("nan"))], [(float("inf"), 1)]]
)
def test_no_points_and_bad_points_are_refused(points):
    with pytest.raises(ValueError, match="point"):
        Curve.of(points)


@given(curves)
def test_exact_at_knots(curve):
    assert [curve.at(size) for size, _ in curve.knots] == [us for _, us in curve.knots]


@given(curves, st.floats(0, 1))
def test_between_knots_it_stays_between_their_times(curve, part):
    for (x0, y0), (x1, y1) in zip(curve.knots, curve.knots[1:], strict=False):
        us = curve.at(x0 + part * (x1 - x0))
        assert min(y0, y1) * (1 - 1e-9) <= us <= max(y0, y1) * (1 + 1e-9)


@given(curves, sizes)
def test_beyond_the_ends_it_is_bounded_by_them(curve, more):
    (first, floor), (last, top) = curve.knots[0], curve.knots[-1]
    assert curve.at(max(first - more, 0)) == floor
    assert curve.at(last + more) >= top


@given(curves, sizes, sizes)
def test_a_curve_without_dips_is_monotone(curve, one, other):
    ascending = sorted(us for _, us in curve.knots)
    rising = Curve.of((knot[0], us) for knot, us in zip(curve.knots, ascending, strict=True))
    low, high = sorted((one, other))
    assert rising.dips() == ()
    assert rising.at(low) <= rising.at(high) * (1 + 1e-9)
