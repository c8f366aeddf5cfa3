import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_passes.ir.device_groups import groups_from_mesh, parse_hlo_groups


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("{}", ()),
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("[2,4]<=[4,2]T(1,0)", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh['ep'=4] {'ep'}", ((0, 1, 2, 3),)),
        ("mesh['d'=2,'e'=4] {'e'}", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("mesh['d'=2,'e'=4] {'d'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['d'=2,'e'=2] {'d','e'}", ((0, 1, 2, 3),)),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
        ("mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}", ((3, 2), (1, 0))),
        ("mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
    ],
)
def test_every_spelling_of_groups(text, groups):
    assert parse_hlo_groups(text) == groups


def test_unknown_spelling_is_named():
    with pytest.raises(ValueError, match="not known: 'everybody'"):
        parse_hlo_groups("everybody")


def test_unknown_axis_is_named():
    with pytest.raises(ValueError, match="expert"):
        groups_from_mesh((("data", 2),), ("expert",))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_groups_partition_the_devices(sizes, data):
    axes = tuple((f"a{i}", n) for i, n in enumerate(sizes))
    over = data.draw(st.lists(st.sampled_from([a for a, _ in axes]), unique=True, min_size=1))
    rows = groups_from_mesh(axes, tuple(over))
    flat = sorted(d for row in rows for d in row)
    count = 1
    for n in sizes:
        count *= n
    assert flat == list(range(count))
    assert len({len(row) for row in rows}) == 1
