"""What an exchange between devices is: its kind, who takes part, how much each device sends."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from hlo_passes.ir.device_groups import device_groups
from hlo_passes.ir.types import TensorType


class Phase(StrEnum):
    """What an exchange is for, as far as dataflow shows it."""

    DISPATCH = "dispatch"
    COMBINE = "combine"
    GRADIENT = "gradient"
    OTHER = "other"


@dataclass(frozen=True)
class Collective:
    """One exchange.

    Attributes:
        kind: StableHLO's name: `all_to_all`, `all_reduce`, `all_gather`, `reduce_scatter`,
            `collective_permute`, `collective_broadcast` or `ragged_all_to_all`.
        groups: who talks to whom, as rows of partition ids; all rows have the same length.
            Empty means one group of every device of the program.
        bytes: payload of one device in bytes: the operand, and for `all_gather` the result.
        channel: channel id, -1 where the module has none.
        dims: the split and the concat dimension of an all-to-all, else the one that is gathered
            or scattered.
        fill: share of `bytes` that a device is expected to send on average; below 1 for a ragged
            exchange of padded rows.
        skew: what the busiest device is expected to send or get over that average. The others wait
            for it.
        opaque: target of the custom call that hides it; "" for an exchange of XLA's own.
        us: its time in us where the user has given one; None to price it.
        domain: the links that XLA:GPU was told it stays on, `scale_up_fabric` for those inside a
            node; "" if it was told nothing. Every domain has a stream of its own.
        members: exchanges that are issued as one, of which this is the chief and has all `bytes`;
            () for an exchange of its own.
    """

    kind: str
    groups: tuple[tuple[int, ...], ...]
    bytes: int
    channel: int = -1
    dims: tuple[int, ...] = ()
    fill: float = 1.0
    skew: float = 1.0
    opaque: str = ""
    us: float | None = None
    domain: str = ""
    members: tuple["Collective", ...] = ()

    @property
    def parts(self) -> tuple["Collective", ...]:
        """The exchanges that it is made of: its members, or itself."""
        return self.members or (self,)

    def over(self, groups: tuple[tuple[int, ...], ...]) -> "Collective":
        """Return the same exchange of other groups."""
        members = tuple(replace(member, groups=groups) for member in self.members)
        return replace(self, groups=groups, members=members)

    @property
    def busiest_bytes(self) -> float:
        """Bytes that the busiest device is expected to send or get."""
        return self.bytes * self.fill * self.skew

    @cached_property
    def group_size(self) -> int:
        """Devices in a group; 0 where `groups` is empty, which stands for all devices."""
        return len(self.groups[0]) if self.groups else 0

    @property
    def is_all_to_all(self) -> bool:
        """Whether tokens move (all-to-all, ragged or not) rather than sums or copies."""
        return self.kind in ("all_to_all", "ragged_all_to_all")

    @property
    def reduces(self) -> bool:
        """Whether the exchange adds up, as gradient exchanges do."""
        return all(part.kind in ("all_reduce", "reduce_scatter") for part in self.parts)


def as_one(exchanges: Sequence[Collective]) -> Collective | None:
    """Return exchanges that are issued together as one; None if there is none.

    Its chief is one that moves tokens, where there is any, and the largest of them.
    """
    if len(exchanges) < 2:
        return next(iter(exchanges), None)
    chief = max(exchanges, key=lambda e: (e.is_all_to_all, e.bytes))
    return replace(chief, bytes=sum(e.bytes for e in exchanges), members=tuple(exchanges))


KINDS = frozenset({
    "all_to_all", "ragged_all_to_all", "all_reduce", "all_gather", "reduce_scatter",
    "collective_permute", "collective_broadcast",
})  # fmt: skip

FILL = "lancet_fill"
"""Frontend attribute of an exchange that says its `Collective.fill`; XLA carries it along."""

SKEW = "lancet_skew"
"""Frontend attribute of an exchange that says its `Collective.skew`.

Without it 1.0 is taken, the balanced load that balance losses train for. What a router really does
is not in the program: a run that logs rows a device says the busiest one's over the mean.
"""

DOMAIN = "collective_communication_domain"
"""Frontend attribute of an exchange that says its `Collective.domain`; XLA:GPU reads it."""

FABRIC = "scale_up_fabric"
"""The one domain that XLA knows: the fast links that join the devices of a node."""

CONFIG = "async_collective_config"
"""Frontend attribute of the custom calls by which JAX starts an exchange; JSON."""

_CONFIG_DIMS = ("split_dimension", "concat_dimension", "all_gather_dimension", "scatter_dimension")


def from_config(
    kind: str,
    config: str,
    operands: Sequence[TensorType],
    results: Sequence[TensorType],
    *,
    replicas: int,
    partitions: int,
) -> Collective:
    """Read an exchange that JAX starts by a custom call: `CONFIG` says who takes part.

    Args:
        kind: as in `Collective.kind`.
        config: the custom call's configuration, JSON.
        operands, results: types of what it reads and makes.
        replicas, partitions: of the module.

    Raises:
        ValueError: if `config` is no JSON object.
    """
    said = json.loads(config)
    if not isinstance(said, dict):
        raise ValueError(f"{CONFIG}={config!r} is no object")
    rows = said.get("replica_groups") or said.get("permutation") or ()
    channel = int(said.get("channel_id", -1))
    groups = device_groups(
        kind, tuple(map(tuple, rows)), has_channel=channel > 0,
        is_global=bool(said.get("use_global_device_ids")), replicas=replicas, partitions=partitions,
    )  # fmt: skip
    dims = tuple(int(said[name]) for name in _CONFIG_DIMS if name in said)
    return Collective(kind, groups, payload(kind, operands, results), channel, dims)


def payload(kind: str, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    """Return the bytes of one device: its operands, and what it gathers of all of them.

    Args:
        kind: as in `Collective.kind`.
        operands, results: types of what the exchange reads and makes.
    """
    sent = operands[:1] if kind == "ragged_all_to_all" else operands
    size = sum(t.bytes for t in sent)
    if kind == "all_gather":
        # The start of one has its operands among its results, before what it gathers.
        size = max(size, sum(t.bytes for t in results[-len(sent) :]))
    return size


def expected_fill(kind: str, operands: Sequence[TensorType]) -> float:
    """Share of its operand that an exchange is expected to send where no `FILL` says so.

    A ragged exchange writes into its second operand, and devices get on average what they send: no
    more than that buffer holds. A dense one sends all.
    """
    if kind != "ragged_all_to_all" or len(operands) < 2 or not operands[0].bytes:
        return 1.0
    return min(1.0, operands[1].bytes / operands[0].bytes)


def parse_fill(text: str, otherwise: float = 1.0) -> float:
    """Read the value of the attribute `FILL`; "" is that of an op that has none.

    Raises:
        ValueError: if `text` is no number from 0 to 1.
    """
    fill = float(text) if text else otherwise
    if not 0 <= fill <= 1:
        raise ValueError(f"{FILL}={text!r} is no share from 0 to 1")
    return fill


def parse_skew(text: str) -> float:
    """Read the value of the attribute `SKEW`; an op that has none, "", is balanced.

    Raises:
        ValueError: if `text` is no finite number of at least 1.
    """
    skew = float(text or 1)
    if not 1 <= skew < math.inf:
        raise ValueError(f"{SKEW}={text!r} is below 1, or no number: the busiest over the mean")
    return skew
