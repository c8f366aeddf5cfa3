"""Whether a step can run twice on the same arguments, and its results be kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

_MARGIN = 0.95
"""Of the memory that is free: what is there in pieces cannot all be used."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What an executable needs of a device, in bytes.

    Attributes:
        given: arguments.
        made: results, without those that take an argument's memory.
        aliased: results that do.
        temporary: what it holds besides while it runs.
    """

    given: int
    made: int
    aliased: int
    temporary: int

    @property
    def total(self) -> int:
        """The most that a device holds."""
        return self.given + self.made + self.temporary

    @staticmethod
    def of(executable: Any) -> "Memory | None":
        """Read it off an executable; None where XLA does not say."""
        try:
            stats = executable.get_compiled_memory_stats()
        except Exception:  # a backend that has no such figures raises its own
            return None
        aliased = stats.alias_size_in_bytes
        return Memory(
            stats.argument_size_in_bytes, stats.output_size_in_bytes - aliased, aliased,
            stats.temp_size_in_bytes,
        )  # fmt: skip


class Room(IntEnum):
    """What memory allows; the largest of several holds for all."""

    BOTH = 0
    """Both sets of results."""
    ONE = 1
    """One after the other."""
    SKIPPED = 2
    """Not even that."""

    @staticmethod
    def of(first: Any, second: Any) -> "Room":
        """Return what the fullest device of this process has room for.

        Args:
            first: executable that runs on copies of what it may donate.
            second: executable that runs then, on the arguments themselves.
        """
        room = free_bytes(first.local_devices())
        ours, theirs = Memory.of(first), Memory.of(second)
        if room is None or ours is None or theirs is None:
            return Room.BOTH
        copies = ours.aliased
        at_once = copies + theirs.temporary + theirs.made + max(ours.made + copies, theirs.given)
        in_turn = max(ours.temporary + ours.made + copies,
                      theirs.temporary + theirs.made + theirs.given)  # fmt: skip
        if at_once <= room:
            return Room.BOTH
        return Room.ONE if in_turn <= room else Room.SKIPPED


def free_bytes(devices: Sequence[Any]) -> float | None:
    """Return what can be had on the fullest device; None where devices do not say."""
    found = [device.memory_stats() for device in devices]
    free = [s["bytes_limit"] - s["bytes_in_use"] for s in found if s and "bytes_limit" in s]
    return _MARGIN * min(free) if free else None
