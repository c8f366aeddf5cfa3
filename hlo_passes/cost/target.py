"""What a step is priced for: a kind of device, how many, in how many nodes."""

import re
from dataclasses import dataclass

from hlo_passes.cost.device import DeviceProfile, load_profile, profile_names, profile_of_kind
from hlo_passes.cost.links import Topology
from hlo_passes.errors import OptionError

_NAME = re.compile(r"(?P<device>[a-z][a-z0-9_-]*)(?::(?P<nodes>\d+)x(?P<per_node>\d+))?")
_DEFAULT_PER_NODE = 8
"""`cpu` alone means 8 virtual devices; GPUs come by the node."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A device profile and the way that devices of it are joined.

    Attributes:
        profile: one device.
        topology: all of them, and their links.
        links: name of the device whose links they have; "" for their own.
    """

    profile: DeviceProfile
    topology: Topology
    links: str = ""

    @property
    def name(self) -> str:
        """As a user writes it; see `parse_target`."""
        device = f"{self.profile.name}@{self.links}" if self.links else self.profile.name
        return f"{device}:{self.topology.nodes}x{self.topology.per_node}"

    @staticmethod
    def of(profile: DeviceProfile, nodes: int, per_node: int) -> "Cluster":
        """Join devices by the links that their profile names.

        Args:
            profile: of each device.
            nodes: how many nodes.
            per_node: how many devices on each.

        Raises:
            OptionError: if there is no device, or more to a node than it holds.
        """
        name = f"{profile.name}:{nodes}x{per_node}"
        if nodes < 1 or per_node < 1:
            raise OptionError(
                f"target {name!r}", "has no devices", f"say {profile.name}:1x8, nodes x devices"
            )
        if 0 < profile.per_node < per_node:
            more = -(-per_node * nodes // profile.per_node)
            raise OptionError(
                f"target {name!r}", f"a node holds {profile.per_node} devices, not {per_node}",
                f"say {profile.name}:{more}x{profile.per_node}",
            )  # fmt: skip
        return Cluster(profile, Topology(nodes, per_node, profile.tiers))


def parse_target(text: str) -> Cluster:
    """Read `h100`, `h100:1x8` or `a100:8x8`: a device, nodes x devices of a node.

    `h100@v100:8x8` are devices of one kind with the links of another: the what-if of a network.

    Raises:
        OptionError: if it is spelled otherwise, or the device is not known.
    """
    device, at, rest = text.partition("@")
    if at:
        network = parse_target(rest)
        profile = load_profile(device.strip().lower())
        return Cluster(profile, network.topology, network.profile.name)
    match = _NAME.fullmatch(text.strip().lower())
    if match is None:
        raise OptionError(
            f"target {text!r}", "is not spelled DEVICE:NODESxDEVICES",
            f"say h100:1x8; devices are {', '.join(profile_names())}",
        )  # fmt: skip
    profile = load_profile(match["device"])
    per_node = profile.per_node or _DEFAULT_PER_NODE
    return Cluster.of(profile, int(match["nodes"] or 1), int(match["per_node"] or per_node))


def target_of_devices(kind: str, count: int, per_node: int | None = None) -> Cluster:
    """Return the target that is made of devices of one kind.

    Args:
        kind: what JAX's `device.device_kind` prints.
        count: how many.
        per_node: how many to a node, where the caller knows; at most what a node holds.

    Raises:
        OptionError: if no profile describes the kind, or there is no device.
    """
    profile = profile_of_kind(kind)
    most = profile.per_node or max(count, 1)
    nodes = -(-count // min(per_node or most, most))
    return Cluster.of(profile, nodes, -(-count // max(nodes, 1)))
