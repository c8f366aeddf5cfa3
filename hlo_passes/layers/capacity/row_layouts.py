"""Where values between two all-to-alls keep the rows of a source device and a local expert."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hlo_passes.cut.states import Cut
from hlo_passes.proofs.engine import NotProved


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where a value keeps the row of a source device, a local expert and a place among its rows.

    Seen as `[rows, width]`, that row is `source * s + expert * e + place`.

    Attributes:
        source: rows from one source device to the next.
        expert: rows from one local expert to the next.
        width: elements of one row.
        count: rows in all.
    """

    source: int
    expert: int
    width: int
    count: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class DimFactor:
    """A piece of a dim: `size` blocks, `cut.outer` times in the dim.

    Attributes:
        size: how many.
        tag: what they count: `source`, `place`, or for all else `expert`.
        cut: where they are.
    """

    size: int
    tag: str
    cut: Cut


def factors_of(
    shape: tuple[int, ...], source: Cut, peers: int, place: Cut, capacity: int
) -> list[DimFactor]:
    """Return the dims of a value, those that hold sources or places taken apart.

    Args:
        shape: of the value.
        source: how it is cut by source device.
        peers: number of those.
        place: how it is cut by place among the rows of an expert.
        capacity: number of those, from one source.

    Raises:
        NotProved: if sources and places are not blocks of each other.
    """
    found = []
    for d, size in enumerate(shape):
        inside = [
            (cut.outer, cut.outer * count, tag)
            for cut, count, tag in ((source, peers, "source"), (place, capacity, "place"))
            if cut.dim == d
        ]
        done = 1
        for begin, end, tag in sorted(inside):
            if begin % done:
                raise NotProved("sources and places are dealt out to each other")
            found.append(DimFactor(begin // done, "expert", Cut(d, done)))
            found.append(DimFactor(end // begin, tag, Cut(d, begin)))
            done = end
        found.append(DimFactor(size // done, "expert", Cut(d, done)))
    return found


def layout_of(factors: Sequence[DimFactor], expert: Cut | None) -> RowLayout:
    """Return how a value keeps its rows.

    Args:
        factors: its dims, taken apart.
        expert: how it is cut by local expert; None if there is one, or it is not known.

    Raises:
        NotProved: if its rows do not stand behind each other, or those of experts change places.
    """
    end = 1 + [one.tag for one in factors].index("place")
    lead, width = factors[:end], math.prod(one.size for one in factors[end:])
    strides = {"expert": 0}
    stride = 1
    for one in reversed(lead):
        if one.size > 1 or one.tag != "expert":
            if strides.get(one.tag, 0):
                raise NotProved("rows of one expert do not stand behind each other")
            strides[one.tag] = stride
        if one.size > 1 and one.tag == "expert" and one.cut != expert:
            raise NotProved("rows of different experts change places")
        stride *= one.size
    if "source" not in strides:
        raise NotProved("rows of one expert do not stand behind each other")
    return RowLayout(strides["source"], strides["expert"], width, stride)
