"""How much of a device's memory a step holds whatever its order, and what is left for the rest.

A step needs its arguments and its results from end to end, and temporary memory in between.
Results that take over the memory of donated arguments count once. Only temporaries depend on the
order and on how a step is cut; a limit for the whole leaves a limit for them.
"""

import re
from dataclasses import dataclass

from hlo_passes.errors import OptionError
from hlo_passes.ir.graph import Graph

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """Memory of one device that no order changes, in bytes.

    Attributes:
        arguments: the step's arguments.
        results: what it returns.
        shared: the part of `results` that lies in memory of donated arguments.
    """

    arguments: int
    results: int
    shared: int

    @property
    def resident(self) -> int:
        """Bytes held from end to end."""
        return self.arguments + self.results - self.shared

    def room(self, limit: int) -> int:
        """Return the bytes that a limit for the whole leaves for temporaries; 0 if none."""
        return max(limit - self.resident, 0)


def footprint_of(graph: Graph) -> Footprint:
    """Return what a step holds besides temporaries; the graph is of what one device runs."""
    arguments = sum(
        v.bytes for v in graph.values if v.op < 0 or graph.ops[v.op].kind == "parameter"
    )
    results = sum(graph.values[v].bytes for v in graph.returns)
    return Footprint(arguments, results, min(graph.donated, results))


def parse_bytes(given: str | int, what: str = "memory limit") -> int:
    """Read a size: bytes, or a number with a unit, decimal (`70GB`) or binary (`70GiB`).

    Args:
        given: the size.
        what: the option that it is given for.

    Raises:
        OptionError: if it is none, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", str(given).strip().lower())
    unit = match[2] if match else "?"
    if match is None or unit not in _UNITS or not float(match[1]) * _UNITS[unit] >= 1:
        raise OptionError(f"{what} {given!r}", "is no size",
                          "give bytes, or a size like 70GiB or 70GB")  # fmt: skip
    return int(float(match[1]) * _UNITS[unit])


def parse_limit(given: str | int | None) -> int | None:
    """Read a size as `parse_bytes` does, where there may be none."""
    return None if given is None else parse_bytes(given)


def describe_room(footprint: Footprint, limit: int, stock: int, planned: int) -> str:
    """Say in one line what a limit leaves, and what fits; all of it estimated.

    Args:
        footprint: what is held whatever the order.
        limit: for the whole.
        stock: bytes of temporaries that the old order needs.
        planned: bytes of temporaries that the planned order needs.
    """
    held = f"{_mb(footprint.arguments)} of arguments, {_mb(footprint.results)} of results"
    if footprint.shared:
        held += f" ({_mb(footprint.shared)} in donated memory)"
    room = footprint.room(limit)
    fits = "" if planned <= room else ": no order is known that fits"
    return (
        f"memory limit {_mb(limit)}: {held}, which leaves {_mb(room)} for temporaries;"
        f" the old order needs {_mb(stock)}, the planned one {_mb(planned)}{fits} (estimated)"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
