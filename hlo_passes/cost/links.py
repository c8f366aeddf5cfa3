"""How long an exchange takes, from the links between devices: latency, bandwidth, who is where.

The forms are the standard ones, and those of the NCCL tests' bus bandwidth: a ring all-reduce
moves 2(n-1)/n of its payload through every device, a gather, a scatter or an all-to-all (n-1)/n. Of
an all-to-all, what goes to other nodes leaves through the device's share of the network cards, the
rest stays on the node's links, and the slower of the two counts. A ring enters every node once and
uses the shares of all its members there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from hlo_passes.ir.collectives import KINDS
from hlo_passes.ir.device_groups import DeviceGroups

_PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "collective_broadcast": 1}
"""How often a ring carries its payload around: an all-reduce scatters, then gathers."""


class LinkTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One level of links.

    Attributes:
        name: `island` (part of a node), `node`, or `network` (between nodes).
        participants: devices that it joins at most; 0 if there is no limit.
        latency_us: us that the smallest exchange over it takes.
        bytes_per_s: bytes/s that one device gets, each way, in a large exchange of all.
        half_bytes: message size in bytes at which half of `bytes_per_s` is reached.
        rates: bytes/s of exchange kinds that get more or less than `bytes_per_s`.
        source: where the figures come from.
    """

    name: Literal["island", "node", "network"]
    participants: int
    latency_us: float
    bytes_per_s: float
    half_bytes: int
    source: str
    rates: dict[str, float] = {}

    def __post_init__(self) -> None:
        if min(self.latency_us, self.half_bytes, self.participants) < 0:
            raise ValueError(f"tier {self.name}: negative figures")
        if min([self.bytes_per_s, *self.rates.values()]) <= 0:
            raise ValueError(f"tier {self.name}: bytes/s must be above 0")

    def rate(self, kind: str) -> float:
        """Return the bytes/s that one device gets in an exchange of `kind`."""
        return self.rates.get(kind.removeprefix("ragged_"), self.bytes_per_s)

    def message_us(self, kind: str) -> float:
        """Return the us that every message costs beside its bytes."""
        return self.half_bytes / self.rate(kind) * 1e6


@dataclass(frozen=True, slots=True)
class _Level:
    """How a group lies in one tier.

    Attributes:
        tier: index into `Topology.tiers`.
        peers: peers that the busiest member reaches over this tier and no inner one.
        parts: blocks of the inner tier that it joins.
        lanes: members of the smallest inner block, whose links a ring uses side by side.
    """

    tier: int
    peers: int
    parts: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Topology:
    """Devices in equal nodes, device `i` in node `i // per_node`, and the links between them.

    Attributes:
        nodes: how many nodes.
        per_node: devices of a node.
        tiers: innermost first; the last one joins whatever the others do not.
    """

    nodes: int
    per_node: int
    tiers: tuple[LinkTier, ...]

    @property
    def devices(self) -> int:
        """Devices in all nodes."""
        return self.nodes * self.per_node

    def node_of(self, device: int) -> int:
        """Return the node that a device is in."""
        return device // self.per_node

    def nodes_of(self, groups: DeviceGroups) -> int:
        """Return how many nodes the widest of `groups` reaches; no groups stand for everybody."""
        return max(len({self.node_of(device) for device in row}) for row in self._rows(groups))

    def time_us(self, kind: str, bytes: float, groups: DeviceGroups = ()) -> float:
        """Return the us of one exchange, nothing else on its links.

        Args:
            kind: as in `Collective.kind`.
            bytes: payload of one device: its operand; for `all_gather` its result.
            groups: rows of device ids, all of which exchange at the same time; for a
                `collective_permute` pairs (from, to). Empty means one group of all devices.

        Raises:
            ValueError: if `kind` is no exchange.
        """
        if kind not in KINDS:
            raise ValueError(f"no exchange: {kind!r}")
        if bytes <= 0:
            return 0.0
        shapes = {(len(set(row)), self._levels(row)) for row in self._rows(groups)}
        return max(self._group_us(kind, bytes, size, levels) for size, levels in shapes)

    def _rows(self, groups: DeviceGroups) -> DeviceGroups:
        return groups or (range(self.devices),)

    def _levels(self, row: Sequence[int]) -> tuple[_Level, ...]:
        """Count who in a group is how near, for every tier that it needs."""
        levels = []
        inner = {device: device for device in row}
        for i in range(len(self.tiers)):
            reach = self._reach(i)
            outer = {device: device // reach for device in inner}
            near, far = Counter(inner.values()), Counter(outer.values())
            peers = max(far[outer[d]] - near[inner[d]] for d in inner)
            parts = Counter(block for block, _ in {(outer[d], inner[d]) for d in inner})
            if peers:
                levels.append(_Level(i, peers, max(parts.values()), min(near.values())))
            inner = outer
        return tuple(levels)

    def _reach(self, i: int) -> int:
        """Return how many consecutive devices a tier joins."""
        if i == len(self.tiers) - 1:
            return 1 << 62
        tier = self.tiers[i]
        return self.per_node if tier.name == "node" else min(tier.participants, self.per_node)

    def _group_us(self, kind: str, bytes: float, size: int, levels: Sequence[_Level]) -> float:
        """Time of a group of `size` members that lies in the tiers as `levels` say."""
        if not levels:
            return 0.0
        if kind in _PASSES:
            return self._ring_us(kind, bytes, size, levels)
        if kind == "collective_permute":
            tier = self.tiers[levels[-1].tier]
            return tier.latency_us + tier.message_us(kind) + bytes / tier.rate(kind) * 1e6
        return max(
            tier.latency_us
            + level.peers * (bytes / size / tier.rate(kind) * 1e6 + tier.message_us(kind))
            for level in levels
            if (tier := self.tiers[level.tier])
        )

    def _ring_us(self, kind: str, bytes: float, size: int, levels: Sequence[_Level]) -> float:
        """Time of a ring: latencies, messages per hop, and the bytes over its slowest stretch."""
        share = 1.0 if kind == "collective_broadcast" else (size - 1) / size
        slowest = min(self.tiers[level.tier].rate(kind) * level.lanes for level in levels)
        hops_us = sum(
            tier.latency_us + (level.parts - 1) * tier.message_us(kind)
            for level in levels
            if (tier := self.tiers[level.tier])
        )
        return _PASSES[kind] * (hops_us + share * bytes / slowest * 1e6)
