import math
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hlo_passes.errors import OptionError
from hlo_passes.schedule.paper.ranges import Refused, SplitRange, choose_ranges, groups_of


def layers(count, gap=10, span=3):
    """Ops of 1 us: a gap, then `count` times a span and a gap."""
    spans = [range(gap + i * (gap + span), (i + 1) * (gap + span)) for i in range(count)]
    return [1.0] * (gap + count * (gap + span)), spans


def lengths(groups):
    return [len(g) for g in groups]


def costs(us, groups):
    return [math.fsum(us[op] for op in g) for g in groups]


class Table:
    """A price function that answers from a table, and notes what it was asked."""

    def __init__(self, prices=None):
        self.prices = prices or {}
        self.asked = []

    def __call__(self, first, last, k):
        self.asked.append((first, last, k))
        return self.prices.get((first, last, k))


def choose(serial, at, price, parts=(2,), **more):
    """Choose among groups of one op; those at `at` are exchange spans."""
    groups = [range(g, g + 1) for g in range(len(serial))]
    spans = [groups[g] for g in at]
    return choose_ranges(groups, serial, price, exchange_spans=spans, parts=parts, **more)


# Groups.


def test_golden_five_groups_between_moe_layers():
    us, spans = layers(3)
    groups = groups_of(us, spans)
    assert lengths(groups) == [2] * 5 + [3] + [2] * 5 + [3] + [2] * 5 + [3] + [2] * 5
    assert [g for g in groups if len(g) == 3] == spans


def test_golden_a_group_ends_when_it_is_long_enough():
    groups = groups_of([1, 1, 5, 1, 1, 9, 1, 1, 1], [range(4, 6)], gamma_us=3)
    assert groups == (range(3), range(3, 4), range(4, 6), range(6, 9))


def test_ops_that_take_no_time_stay_with_the_group_before():
    groups = groups_of([0, 2, 0, 0, 2, 0, 7, 0], [range(6, 7)], gamma_us=2)
    assert groups == (range(4), range(4, 6), range(6, 7), range(7, 8))


def test_rounding_makes_no_sixth_group():
    us, spans = layers(2, gap=15, span=1)
    assert len(groups_of([0.1] * len(us), spans)) == 5 * 3 + 2
    assert 0.7 + 0.1 < 0.8
    assert lengths(groups_of([0.7, 0.1] * 3, [], gamma_us=0.8)) == [2, 2, 2]


def test_automatic_length_is_a_fifth_of_the_median_gap():
    spans = [range(1), range(11, 12), range(22, 23), range(123, 124)]
    assert lengths(groups_of([1.0] * 124, spans)) == [1, *[2] * 5, 1, *[2] * 5, 1, *[2] * 50, 1]


def test_automatic_length_with_one_span_looks_at_both_sides():
    groups = groups_of([1.0] * 41, [range(10, 11)])
    assert lengths(groups) == [4, 4, 2, 1, *[4] * 7, 2]


def test_automatic_length_without_spans_is_a_fifth_of_the_program():
    assert lengths(groups_of([1.0] * 10, [])) == [2] * 5


def test_automatic_length_with_nothing_between_spans_looks_around_them():
    groups = groups_of([1.0] * 14, [range(10, 12), range(12, 14)])
    assert lengths(groups) == [2] * 5 + [2, 2]


def test_a_program_of_free_ops_or_none_is_cut_at_spans_alone():
    assert lengths(groups_of([0.0] * 5, [range(2, 4)])) == [2, 2, 1]
    assert groups_of([], []) == ()


def test_spans_that_overlap_are_one_and_spans_that_touch_are_two():
    us = [1.0] * 9
    overlap = groups_of(us, [range(4, 7), range(2, 5)], gamma_us=9)
    assert overlap == (range(2), range(2, 7), range(7, 9))
    inside = groups_of(us, [range(2, 7), range(3, 5)], gamma_us=9)
    assert inside == overlap
    touch = groups_of(us, [range(2, 4), range(4, 7)], gamma_us=9)
    assert touch == (range(2), range(2, 4), range(4, 7), range(7, 9))


@given(
    st.lists(st.sampled_from([0.0, 0.1, 1.0, 7.0]), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=6, unique=True),
    st.none() | st.floats(0.01, 20),
)
def test_groups_cover_the_program_and_cut_no_span(us, edges, gamma):
    edges = sorted(e for e in edges if e <= len(us))
    spans = [range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    groups = groups_of(us, spans, gamma)
    assert [op for g in groups for op in g] == list(range(len(us)))
    assert all(groups)
    assert set(spans) <= set(groups)
    for before, after in pairwise(groups):
        if gamma and before not in spans and after not in spans:
            assert math.fsum(us[op] for op in before) >= gamma * (1 - 1e-6)
            assert math.fsum(us[op] for op in before[:-1]) < gamma or us[before[-1]] == 0


# Ranges, by hand.


def test_golden_the_interior_optimum_of_a_u_wins():
    """Wider hides more, up to two groups; then overheads win. More parts: the same at three."""
    serial, at = [4.0] * 9, (3, 7)

    def price(first, last, k):
        beside = last - first
        return 4.0 * (last - first + 1) - 3 + abs(beside - 2) + abs(k - 3) * 0.5

    got = choose(serial, at, price, parts=(2, 3, 4, 6))
    assert got.chosen == (SplitRange(1, 3, 3, 9.0), SplitRange(5, 7, 3, 9.0))
    assert (got.total_us, got.serial_us) == (30.0, 36.0)


def test_golden_k_need_not_get_better_one_by_one():
    table = Table({(1, 1, 2): 9.0, (1, 1, 3): 9.5, (1, 1, 4): 8.0})
    assert choose([1, 10, 1], [1], table, parts=(2, 3, 4)).chosen == (SplitRange(1, 1, 4, 8.0),)


def test_golden_two_ranges_that_want_the_same_groups():
    """The wide range on its own saves most, but stands in the way of two that save more."""
    table = Table({(1, 4, 2): 15.0, (1, 2, 2): 9.0, (3, 4, 2): 9.0, (4, 4, 2): 8.0})
    got = choose([5, 5, 5, 5, 5, 5], [2, 4], table, iota_us=10)
    assert got.chosen == (SplitRange(1, 4, 2, 15.0),)
    table.prices[1, 4, 2] = 18.5
    got = choose([5, 5, 5, 5, 5, 5], [2, 4], table, iota_us=10)
    assert got.chosen == (SplitRange(1, 2, 2, 9.0), SplitRange(3, 4, 2, 9.0))
    assert (got.total_us, got.serial_us) == (28.0, 30.0)


def test_golden_a_bad_price_leaves_everything_unsplit():
    got = choose([1, 2, 3, 2, 1], [1, 3], lambda first, last, k: 100.0 * k, parts=(2, 4))
    assert got.chosen == ()
    assert got.total_us == got.serial_us == 9.0
    assert got.priced > 0


@pytest.mark.parametrize("none", [None, math.inf])
def test_no_valid_partition_anywhere(none):
    got = choose([1, 2, 3, 2, 1], [1, 3], lambda first, last, k: none)
    assert (got.chosen, got.total_us) == ((), 9.0)


@pytest.mark.parametrize(("serial", "us"), [([0.1, 0.2], 0.3), ([2 / 3, 4 / 3], 2.0)])
def test_a_price_equal_to_unsplit_splits_nothing_though_sums_round(serial, us):
    got = choose(serial, [1], Table({(0, 1, 2): us}), memory=lambda f, n, k: 1, limit_bytes=0)
    assert (got.chosen, got.refused) == ((), ())
    got = choose(serial * 3, [1, 3, 5], Table({(0, 1, 2): us, (2, 3, 2): us, (4, 5, 2): us}))
    assert got.chosen == ()


def test_ties_are_ties_though_sums_round():
    assert 0.7 + 0.1 < 0.8
    table = Table({(0, 0, 2): 0.7, (1, 1, 2): 0.1, (0, 1, 2): 0.8})
    got = choose([1.0, 1.0], [0, 1], table, iota_us=0)
    assert got.chosen == (SplitRange(0, 1, 2, 0.8),)


def test_ties_go_to_fewer_ranges():
    table = Table({(1, 3, 8): 6.0, (1, 1, 2): 2.0, (3, 3, 2): 2.0})
    got = choose([4, 4, 2, 4, 4], [1, 3], table, parts=(2, 8), iota_us=4)
    assert got.chosen == (SplitRange(1, 3, 8, 6.0),)


def test_ties_go_to_smaller_k_then_to_shorter_ranges():
    table = Table({(0, 2, 2): 9.0, (1, 1, 3): 3.0, (1, 1, 4): 3.0})
    got = choose([3, 6, 3], [1], table, parts=(2, 3, 4), iota_us=6)
    assert got.chosen == (SplitRange(0, 2, 2, 9.0),)
    table = Table({(0, 1, 2): 6.0, (1, 1, 2): 3.0, (1, 2, 2): 6.0})
    assert choose([3, 6, 3], [1], table).chosen == (SplitRange(1, 1, 2, 3.0),)


def test_ties_go_to_program_order_at_last():
    table = Table({(0, 1, 2): 5.0, (1, 2, 2): 5.0})
    assert choose([3, 6, 3], [1], table).chosen == (SplitRange(0, 1, 2, 5.0),)


# What is priced.


def test_golden_only_ranges_with_a_whole_span_are_priced():
    table = Table()
    got = choose([1, 1, 1, 1], [1], table, parts=(2, 4), iota_us=1)
    assert table.asked == [(f, n, k) for f, n in [(1, 1), (0, 1), (1, 2)] for k in (2, 4)]
    assert got.priced == 6
    table = Table()
    assert choose([1, 1, 1], [], table).priced == 0 == len(table.asked)


def test_range_zero_is_the_exchanges_alone():
    table = Table()
    choose([1, 9, 1, 1, 9, 1], [1, 4], table, iota_us=0)
    assert sorted(table.asked) == [(1, 1, 2), (4, 4, 2)]


def test_automatic_limit_is_one_pipeline_per_layer():
    us, spans = layers(3)
    groups = groups_of(us, spans)
    table = Table()
    got = choose_ranges(groups, costs(us, groups), table, exchange_spans=spans, parts=(2, 4))
    at = [groups.index(s) for s in spans]
    assert all(sum(first <= g <= last for g in at) == 1 for first, last, _ in table.asked)
    assert max(last - first for first, last, _ in table.asked) == 5
    assert got.priced == len(table.asked) == len(set(table.asked)) == 2 * 3 * 21


def test_automatic_limit_where_gaps_differ():
    """Of gaps 2, 4 and 9 it is 4; two layers are never one range, however near."""
    table = Table()
    choose([4, 1, 2, 1, 4, 1, 9, 1, 4], [1, 3, 5, 7], table)
    ranges = {(first, last) for first, last, _ in table.asked}
    assert ranges == {
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 3),
        (3, 3),
        (3, 4),
        (4, 5),
        (5, 5),
        (7, 7),
        (7, 8),
    }


def test_a_range_may_hold_several_layers_if_told_so():
    table = Table()
    choose([1, 1, 1, 1, 1], [1, 3], table, iota_us=1)
    assert (1, 3, 2) in table.asked
    assert (0, 3, 2) not in table.asked


def test_a_range_as_long_as_the_limit_is_priced_though_sums_round():
    assert 0.1 + 0.2 > 0.3
    table = Table()
    choose([0.1, 0.2, 1.0, 0.2, 0.1], [2], table, iota_us=0.3)
    assert {(0, 2, 2), (2, 4, 2)} <= set(table.asked)


def test_no_parts_split_nothing():
    table = Table()
    got = choose([1, 2, 1], [1], table, parts=())
    assert (got.chosen, got.total_us, table.asked) == ((), 4.0, [])


def test_an_empty_program():
    got = choose([], [], Table())
    assert (got.chosen, got.total_us, got.serial_us, got.priced) == ((), 0.0, 0.0, 0)


# Memory.


def test_golden_memory_takes_the_next_best():
    table = Table({(1, 1, 2): 9.0, (0, 1, 2): 8.0, (0, 1, 4): 8.5})
    got = choose([1, 10, 1], [1], table, (2, 4), memory=lambda f, n, k: 700 // k, limit_bytes=200)
    assert got.chosen == (SplitRange(0, 1, 4, 8.5),)
    assert got.refused == (
        Refused(SplitRange(1, 1, 2, 9.0), 350, 200),
        Refused(SplitRange(0, 1, 2, 8.0), 350, 200),
    )


def test_memory_up_to_the_limit_fits_and_nothing_slow_is_weighed():
    weighed = []

    def memory(first, last, k):
        weighed.append((first, last, k))
        return 100

    table = Table({(1, 1, 2): 9.0, (0, 1, 2): 11.0, (1, 2, 2): 99.0})
    got = choose([1, 10, 1], [1], table, memory=memory, limit_bytes=100)
    assert (got.chosen, got.refused) == ((SplitRange(1, 1, 2, 9.0),), ())
    assert weighed == [(1, 1, 2)]


def test_memory_can_rule_out_everything():
    got = choose([1, 10, 1], [1], Table({(1, 1, 2): 1.0}), memory=lambda f, n, k: 1, limit_bytes=0)
    assert (got.chosen, got.total_us, len(got.refused)) == ((), 12.0, 1)


# Against exhaustive search.


def segmentations(first, size, ranges):
    """Yield every choice of disjoint ranges out of `ranges` among the groups from `first` on."""
    if first == size:
        yield ()
        return
    yield from segmentations(first + 1, size, ranges)
    for r in ranges:
        if r.first == first:
            for rest in segmentations(r.last + 1, size, ranges):
                yield (r, *rest)


def rank(serial, chosen):
    """Rank a choice as documented: time, number of ranges, k, length, program order."""
    covered = {g for r in chosen for g in range(r.first, r.last + 1)}
    us = sum(r.us for r in chosen) + sum(u for g, u in enumerate(serial) if g not in covered)
    return us, len(chosen), sum(r.k for r in chosen), len(covered), chosen


@st.composite
def programs(draw):
    """Small whole costs: sums are exact and ties are frequent."""
    size = draw(st.integers(0, 7))
    serial = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    at = [g for g in range(size) if draw(st.booleans())]
    parts = draw(st.sampled_from([(), (2,), (2, 3), (2, 4)]))
    keys = [(f, n, k) for n in range(size) for f in range(n + 1) for k in parts]
    prices = {
        key: us
        for key in keys
        if (us := draw(st.none() | st.integers(0, sum(serial[key[0] : key[1] + 1]) + 1)))
        is not None
    }
    needs = {key: draw(st.integers(0, 3)) for key in prices}
    iota = draw(st.none() | st.integers(0, 9))
    return serial, at, parts, prices, needs, iota


def within(serial, at, iota, first, last):
    """Whether a range may be priced, in the words of the documentation."""
    held = sum(first <= g <= last for g in at)
    beside = sum(serial[g] for g in range(first, last + 1) if g not in at)
    if iota is not None:
        return held > 0 and beside <= iota
    gaps = [sum(serial[a + 1 : b]) for a, b in pairwise(at)]
    if not any(gaps) and at:
        gaps = [*gaps, sum(serial[: at[0]]), sum(serial[at[-1] + 1 :])]
    gaps = sorted(g for g in gaps if g > 0) or [math.inf]
    half = len(gaps) // 2
    return held == 1 and beside <= (gaps[half] + gaps[~half]) / 2


@given(programs(), st.none() | st.integers(0, 3))
@settings(deadline=None, max_examples=400)
@example(([3, 6, 3], [1], (2,), {(0, 1, 2): 5, (1, 2, 2): 5}, {}, None), None)
def test_the_best_of_every_segmentation(program, limit):
    serial, at, parts, prices, needs, iota = program
    table = Table(prices)
    more = {} if limit is None else {"memory": lambda *key: needs[key], "limit_bytes": limit}
    got = choose(serial, at, table, parts, iota_us=iota, **more)

    size = len(serial)
    spots = [(f, n) for n in range(size) for f in range(n + 1) if within(serial, at, iota, f, n)]
    priced = [(f, n, k) for f, n in spots for k in parts]
    assert sorted(table.asked) == sorted(priced)
    assert got.priced == len(priced)
    longest = max((n - f + 1 for f, n in spots), default=0)
    assert got.priced <= size * longest * len(parts)

    fits = {key for key in prices if limit is None or needs[key] <= limit}
    usable = [SplitRange(*key, prices[key]) for key in priced if key in fits]
    best = min(segmentations(0, size, usable), key=lambda chosen: rank(serial, chosen))
    assert got.chosen == best
    assert got.total_us == rank(serial, best)[0] <= got.serial_us == sum(serial)

    faster = [key for key in priced if prices.get(key, 99) < sum(serial[key[0] : key[1] + 1])]
    refused = {Refused(SplitRange(*k, prices[k]), needs[k], limit) for k in faster if k not in fits}
    assert len(got.refused) == len(refused)
    assert set(got.refused) == refused


@given(programs(), st.floats(0.1, 3))
@settings(deadline=None, max_examples=50)
def test_the_same_program_gets_the_same_ranges(program, scale):
    serial, at, parts, prices, _, iota = program
    us = [u * scale for u in serial]
    table = {key: u * scale for key, u in prices.items()}
    asked = Table(table), Table(dict(reversed(table.items())))
    got = [choose(us, at, price, parts, iota_us=iota) for price in asked]
    assert got[0] == got[1]
    assert asked[0].asked == asked[1].asked
    assert got[0].total_us <= got[0].serial_us == pytest.approx(math.fsum(us), abs=1e-5)


# Nonsense.


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan])
def test_gamma_has_to_be_positive(gamma):
    with pytest.raises(OptionError, match=r"gamma .*\n  try: "):
        groups_of([1.0], [], gamma)


@pytest.mark.parametrize("span", [range(0), range(1, 4), range(-1, 1), range(0, 3, 2)])
def test_spans_have_to_be_stretches_of_the_program(span):
    with pytest.raises(OptionError, match=r"exchange span .*\n  try: "):
        groups_of([1.0] * 3, [span])


@pytest.mark.parametrize("parts", [(1,), (1, 2), (4, 2), (2, 2), (0,)])
def test_parts_have_to_ascend_from_two(parts):
    with pytest.raises(OptionError, match=r"parts .*\n  try: .*rho"):
        choose([1, 1], [1], Table(), parts)


@pytest.mark.parametrize("iota", [-1.0, math.nan])
def test_iota_has_to_be_a_length(iota):
    with pytest.raises(OptionError, match=r"iota .*\n  try: "):
        choose([1, 1], [1], Table(), iota_us=iota)


@pytest.mark.parametrize("half", [{"memory": lambda f, n, k: 0}, {"limit_bytes": 1}])
def test_memory_and_its_limit_go_together(half):
    with pytest.raises(OptionError, match=r"limit_bytes: .*\n  try: "):
        choose([1, 1], [1], Table(), **half)


def test_groups_have_to_go_with_costs_and_spans():
    halves = [range(2), range(2, 4)]
    with pytest.raises(OptionError, match="1 costs for 2 groups"):
        choose_ranges(halves, [1.0], Table(), exchange_spans=[], parts=(2,))
    with pytest.raises(OptionError, match="cut by the groups"):
        choose_ranges(halves, [1.0, 1.0], Table(), exchange_spans=[range(1, 3)], parts=(2,))
