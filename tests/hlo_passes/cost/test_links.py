"""Links: formulas by hand, who shares what, and monotone times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_passes.cost.links import LinkTier, Topology
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.collectives import KINDS

NODE = LinkTier(
    name="node", participants=8, latency_us=2.0, bytes_per_s=1e9, half_bytes=0, source="test",
    rates={"collective_permute": 5e8},
)  # fmt: skip
NETWORK = LinkTier(
    name="network", participants=0, latency_us=7.0, bytes_per_s=1e8, half_bytes=100, source="test"
)
TWO_NODES = Topology(2, 4, (NODE, NETWORK))
ONE_NODE = ((0, 1, 2, 3), (4, 5, 6, 7))
ACROSS = ((0, 4), (1, 5), (2, 6), (3, 7))

kinds = st.sampled_from(sorted(KINDS))
targets = st.sampled_from(["h100:1x8", "h100:8x8", "a100:8x8", "v100:8x8", "b200:2x4", "cpu:1x8"])


@pytest.mark.parametrize(
    ("kind", "groups", "us"),
    [
        ("all_to_all", ONE_NODE, 2 + 3 * 1000),
        ("ragged_all_to_all", ONE_NODE, 2 + 3 * 1000),
        ("all_gather", ONE_NODE, 2 + 3000),
        ("reduce_scatter", ONE_NODE, 2 + 3000),
        ("all_reduce", ONE_NODE, 2 * (2 + 3000)),
        ("collective_broadcast", ONE_NODE, 2 + 4000),
        ("collective_permute", ((0, 1), (1, 2)), 2 + 8000),
        # Four of eight parts leave through the network, 500 bytes/us at 100: that counts.
        ("all_to_all", (), 7 + 4 * (5000 + 1)),
        # The ring uses four network shares, one message between two nodes.
        ("all_reduce", (), 2 * (2 + 7 + 1 + 7 / 8 * 4_000_000 / 4e8 * 1e6)),
        # One member a node: its own share alone.
        ("all_reduce", ACROSS, 2 * (7 + 1 + 20_000)),
        ("all_to_all", ACROSS, 7 + 20_000 + 1),
        ("collective_permute", ((0, 1), (3, 4)), 7 + 1 + 40_000),
    ],
)
def test_times_by_hand(kind, groups, us):
    assert TWO_NODES.time_us(kind, 4_000_000, groups) == pytest.approx(us)


def test_an_island_is_faster_than_its_node():
    island = LinkTier(
        name="island", participants=2, latency_us=1.0, bytes_per_s=1e10, half_bytes=0, source="t"
    )
    nested = Topology(2, 4, (island, NODE, NETWORK))
    assert nested.time_us("all_to_all", 4000, ((0, 1),)) == pytest.approx(1 + 0.2)
    # Two peers over the node's links, one in the island: the node counts.
    assert nested.time_us("all_to_all", 4000, ((0, 1, 2, 3),)) == pytest.approx(2 + 2 * 1.0)
    # Two members of every island share the ring's way out: as fast as 2 GB/s.
    assert nested.time_us("all_gather", 4000, ((0, 1, 2, 3),)) == pytest.approx(1 + 2 + 1.5)


def test_nodes_of_groups():
    assert TWO_NODES.devices == 8
    assert [TWO_NODES.node_of(i) for i in (0, 3, 4, 7)] == [0, 0, 1, 1]
    assert TWO_NODES.nodes_of(ONE_NODE) == 1
    assert TWO_NODES.nodes_of(ACROSS) == 2
    assert TWO_NODES.nodes_of(()) == 2
    assert TWO_NODES.nodes_of(((0, 1), (3, 4))) == 2


def test_everybody_is_what_no_groups_stand_for():
    everybody = (tuple(range(8)),)
    for kind in KINDS - {"collective_permute"}:
        assert TWO_NODES.time_us(kind, 1e6) == TWO_NODES.time_us(kind, 1e6, everybody)


def test_small_messages_cost_more_per_byte():
    h100 = parse_target("h100").topology
    small, large = (h100.time_us("all_to_all", size) / size for size in (2**16, 2**28))
    assert small > 5 * large


def test_shared_cards_make_older_nodes_slow():
    times = [
        parse_target(name).topology.time_us("all_to_all", 2**24)
        for name in ("h100:8x8", "a100:8x8", "v100:8x8")
    ]
    assert times == sorted(times)
    assert times[1] > 5 * times[0]


def test_nothing_to_send_takes_no_time():
    assert TWO_NODES.time_us("all_to_all", 0) == 0
    assert TWO_NODES.time_us("all_reduce", 1000, ((0,), (1,))) == 0
    assert TWO_NODES.time_us("collective_permute", 1000, ((3, 3),)) == 0


def test_what_is_no_exchange_or_no_link_is_refused():
    with pytest.raises(ValueError, match="gossip"):
        TWO_NODES.time_us("gossip", 1)
    with pytest.raises(ValueError, match="above 0"):
        LinkTier(name="node", participants=8, latency_us=1, bytes_per_s=0, half_bytes=0, source="")
    with pytest.raises(ValueError, match="negative"):
        LinkTier(name="node", participants=8, latency_us=-1, bytes_per_s=1, half_bytes=0, source="")


@given(targets, kinds, st.integers(1, 2**32), st.integers(1, 2**32))
def test_more_bytes_never_take_less(target, kind, one, other):
    topology = parse_target(target).topology
    groups = ((0, topology.devices - 1),) if kind == "collective_permute" else ()
    low, high = sorted((one, other))
    assert 0 < topology.time_us(kind, low, groups) <= topology.time_us(kind, high, groups)


@given(kinds, st.integers(1, 2**30))
def test_across_nodes_is_slower_than_inside(kind, size):
    topology = parse_target("h100:2x8").topology
    inside, across = (
        topology.time_us(kind, size, ((0, 1),)),
        topology.time_us(kind, size, ((0, 8),)),
    )
    assert across > inside


@given(st.permutations(range(8)), kinds)
def test_the_order_of_a_group_does_not_matter(row, kind):
    if kind != "collective_permute":
        assert TWO_NODES.time_us(kind, 1e6, (row,)) == TWO_NODES.time_us(kind, 1e6)
