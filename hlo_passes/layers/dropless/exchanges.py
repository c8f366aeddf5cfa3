"""Ragged exchanges that bring sorted rows to their experts, or take them back.

With `count[g, e]` rows of device g for expert e, and devices in the order of their group:

    a device sends expert e's rows from    start[g, e] = count[g, 0] + ... + count[g, e - 1]
    where they lie at the expert's device  place[g, e] = all rows of the device's experts before e,
                                                         and those of e from devices before g

Every row then has a place of its own, an expert's rows follow each other, and all lie in the first
`sizes[0] + sizes[1] + ...` rows of the buffer. Tables that say anything else are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import ints, shape_of, update_of
from hlo_passes.layers.dropless.routing import CountedChoices
from hlo_passes.layers.dropless.sorted_rows import SortedRows
from hlo_passes.layers.dropless.tables import Tables
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.engine import NotProved

type Way = Literal["there", "back"]


@dataclass(frozen=True, slots=True)
class Access:
    """Where tokens become sorted rows, or rows tokens.

    Attributes:
        place: place of the op.
        by: `row` if it goes through the choices and asks where the row of each lies; `choice` if it
            goes through the rows and asks whose each is.
        each: rows of one token of the op: all its choices, or one.
    """

    place: int
    by: Literal["row", "choice"]
    each: int = 1


@dataclass(frozen=True, slots=True)
class RaggedExchange:
    """One exchange of rows.

    Attributes:
        place: place of the exchange.
        way: `there`, to the experts, or `back`.
        accesses: what makes the rows that are sent, or reads those that came.
    """

    place: int
    way: Way
    accesses: tuple[Access, ...]


@dataclass(frozen=True)
class Layout:
    """Where the rows of a routing lie at their experts.

    Attributes:
        routing: the routing.
        group: place of an exchange whose devices take part.
        tables: what tables hold.
    """

    routing: CountedChoices
    group: int
    tables: Tables

    def share(self, device: int) -> tuple[np.ndarray, int]:
        """Return the counts of a device's group, `[G, E]`, and its place there.

        Raises:
            NotProved: if its devices do not share the experts out equally.
        """
        group = list(self.tables.group_of(self.group, device))
        if self.routing.experts % len(group):
            raise NotProved("experts are not shared out equally")
        return self.tables.counts(self.routing.number)[group], group.index(device)

    def sizes(self, device: int) -> np.ndarray:
        """Return how many rows each of a device's experts gets."""
        counts, me = self.share(device)
        return counts.sum(axis=0, dtype=np.int64).reshape(len(counts), -1)[me]

    def wanted(self, device: int, way: Way) -> tuple[np.ndarray, ...]:
        """Return the four tables that an exchange needs on a device."""
        counts, me = self.share(device)
        local = self.routing.experts // len(counts)
        sums = np.cumsum(counts, axis=1, dtype=np.int64) - counts
        totals = counts.sum(axis=0, dtype=np.int64).reshape(-1, local)
        before = (np.cumsum(totals, axis=1, dtype=np.int64) - totals).reshape(-1)
        places = before + np.cumsum(counts, axis=0, dtype=np.int64) - counts
        own = slice(me * local, (me + 1) * local)
        mine = counts[:, own].reshape(-1)
        if way == "there":
            return sums[me], counts[me], places[me], mine
        return places[:, own].reshape(-1), mine, sums[:, own].reshape(-1), counts[me]


def routing_of(body: Body, tables: Tables, place: int) -> frozenset[int]:
    """Return the numbers of the routings that an exchange's tables follow from.

    Args:
        body: the block.
        tables: what its tables hold.
        place: place of the exchange.

    Raises:
        NotProved: if a table is no sum of counts.
    """
    found: frozenset[int] = frozenset()
    for value in list(body.ops[place].operands)[2:]:
        found |= tables.of(value).counts
    return found


def read_exchange(body: Body, layout: Layout, place: int, rows: SortedRows) -> RaggedExchange:
    """Prove what an exchange does.

    Args:
        body: the block.
        layout: where the rows of its routing lie.
        place: place of the exchange.
        rows: proves which row is whose.

    Raises:
        NotProved: if it is not proved.
    """
    op = body.ops[place]
    if len(op.operands) != 6 or not Constants().is_zero(op.operands[1]):
        raise NotProved("the buffer that rows are sent into is not empty")
    way = _way_of(body, layout, place)
    ends = op.operands[0], op.results[0]
    own, at_experts = ends if way == "there" else ends[::-1]
    routing, peers = layout.routing, len(layout.tables.group_of(place, 0))
    if shape_of(own)[0] != routing.rows:
        raise NotProved("the sorted buffer has other rows than there are choices")
    room = shape_of(at_experts)[0]
    if room < peers * routing.rows:
        raise NotProved(
            f"{room} rows of room are not enough for all {peers} devices to send all "
            f"{routing.rows} of theirs to one: what does not fit depends on all tokens"
        )
    places = _sorted_by(body, place, own) if way == "there" else _read_back_by(body, own)
    accesses = tuple(read_access(body, at, own, routing, rows) for at in places)
    return RaggedExchange(place, way, accesses)


def _sorted_by(body: Body, exchange: int, own: ir.Value) -> Sequence[int]:
    """Return the place of the op that sorts the rows that are sent."""
    maker, kind = body.made_by(own)
    if kind not in ("scatter", "gather") or body.only_user(own) != exchange:
        raise NotProved(f"its rows are not sorted by index (made by {kind or 'an input'})")
    return (maker,)


def _read_back_by(body: Body, own: ir.Value) -> Sequence[int]:
    """Return the places of the ops that read the rows that came back."""
    users = body.users.get(own, ())
    if not users or any(body.kind(user) not in ("scatter", "gather") for user in users):
        raise NotProved("the rows that it brings back are not read by index alone")
    return users


def _way_of(body: Body, layout: Layout, place: int) -> Way:
    given = list(body.ops[place].operands)[2:]
    ways: set[Way] = {"there", "back"}
    names = ("input offsets", "send sizes", "output offsets", "receive sizes")
    for device in range(layout.tables.devices):
        group = layout.tables.group_of(place, device)
        if list(group) != list(layout.tables.group_of(layout.group, device)):
            raise NotProved("exchanges of one routing connect other devices")
        at = [layout.tables.of(value).on(device) for value in given]
        fits = {
            way: [np.array_equal(a, b) for a, b in zip(at, layout.wanted(device, way), strict=True)]
            for way in ("there", "back")
        }
        ways = {way for way in ways if all(fits[way])}
        if not ways:
            best = max(fits.values(), key=sum)
            wrong = [name for name, right in zip(names, best, strict=True) if not right]
            raise NotProved(f"its {' and '.join(wrong)} are not those of rows grouped by expert")
    return ways.pop()


def read_access(
    body: Body, place: int, own: ir.Value, routing: CountedChoices, rows: SortedRows
) -> Access:
    """Prove that an op takes tokens to their sorted rows, or rows to their tokens.

    Args:
        body: the block.
        place: place of the op.
        own: the sorted rows, on the device whose tokens they are.
        routing: the routing that they follow from.
        rows: proves which row is whose.

    Raises:
        NotProved: if it is not proved.
    """
    op, kind = body.ops[place], body.kind(place)
    values = [*op.operands, *op.results]
    spot = values.index(own) if values.count(own) == 1 else -1
    whole = _scatters_rows(body, op) if kind == "scatter" else _gathers_rows(op)
    if not whole:
        raise NotProved("rows are not moved as whole rows")
    if (kind, spot) in (("scatter", 3), ("gather", 0)):
        rows.check_places(op.operands[1], routing)
        return Access(place, "row")
    if (kind, spot) not in (("scatter", 2), ("gather", 2)):
        raise NotProved("rows are used as indices, or twice")
    each = rows.choices_of(op.operands[1], routing, shape_of(op.operands[0])[0])
    if kind == "scatter" and each > 1 and update_of(op) != "add":
        raise NotProved("rows of one token overwrite each other")
    return Access(place, "choice", each)


def _scatters_rows(body: Body, op: ir.Operation) -> bool:
    """Whether a scatter puts whole rows into an empty buffer."""
    if len(op.operands) != 3 or not Constants().is_zero(op.operands[0]):
        return False
    numbers = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    updates, window = shape_of(op.operands[2]), tuple(numbers.update_window_dims)
    return (
        tuple(numbers.inserted_window_dims) == (0,)
        and tuple(numbers.scattered_dims_to_operand_dims) == (0,)
        and not numbers.input_batching_dims
        and window == tuple(range(len(updates) - len(window), len(updates)))
        and [updates[d] for d in window] == list(shape_of(op.results[0])[1:])
        and numbers.index_vector_dim >= len(updates) - len(window)
        and update_of(op) in ("add", "set")
    )


def _gathers_rows(op: ir.Operation) -> bool:
    """Whether a gather reads whole rows."""
    numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    made, offset = shape_of(op.results[0]), tuple(numbers.offset_dims)
    return (
        tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and offset == tuple(range(len(made) - len(offset), len(made)))
        and ints(op, "slice_sizes")[1:] == shape_of(op.operands[0])[1:]
        and numbers.index_vector_dim >= len(made) - len(offset)
    )
