"""Where tokens are put into buffers that are sent away, and fetched from those that came.

A *put* is a scatter of token rows into an empty buffer, followed by an all-to-all: the dispatch of
a MoE layer, and the gradient of a combine. A *fetch* is an all-to-all followed by a gather of token
rows: the combine, and the gradient of a dispatch. Both are found by dataflow, whatever the layer
looks like. A part of the tokens owns some rows of the buffer; as the indices say which, its rows
can be sent alone, and land where the whole exchange would have put them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import integer, ints, kind_of, maker_of, shape_of, update_of
from hlo_passes.proofs.arithmetic import direction_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.distinct import DistinctRows
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.value_numbers import number_values


@dataclass(frozen=True, slots=True)
class RowBuffer:
    """How a buffer is addressed: `peers` blocks of `block` rows, each of `width` elements.

    Attributes:
        dims: sizes of the buffer's index dims.
        columns: per index dim, which column of the index vectors addresses it.
        width: dims of one row.
        peers: devices that take part in the exchange.
        index_dim: dim of the indices that holds the index vector.
    """

    dims: tuple[int, ...]
    columns: tuple[int, ...]
    width: tuple[int, ...]
    peers: int
    index_dim: int

    @property
    def count(self) -> int:
        """Rows of the whole buffer."""
        return math.prod(self.dims)

    @property
    def block(self) -> int:
        """Rows that go to, or come from, one peer."""
        return self.count // self.peers

    def tokens(self, indices: tuple[int, ...]) -> int:
        """Return how many rows indices of this shape name."""
        return math.prod(size for d, size in enumerate(indices) if d != self.index_dim)


@dataclass(frozen=True, slots=True)
class Site:
    """One put or fetch, as places of ops in their block.

    Attributes:
        access: the scatter or the gather.
        exchange: the all-to-all.
        between: reshapes and conversions between the two.
        rows: how the buffer is addressed.
        distinct: whether no two tokens of a device share a row, those beyond the buffer aside.
        clamps: for a fetch, whether what is read beyond the buffer matters.
        doubt: what keeps rows from being proved distinct, in words.
    """

    access: int
    exchange: int
    between: tuple[int, ...]
    rows: RowBuffer
    distinct: bool
    clamps: bool = False
    doubt: str = ""

    @property
    def ops(self) -> tuple[int, ...]:
        """All ops that sending rows replaces."""
        return (self.access, self.exchange, *self.between)


@dataclass(frozen=True, slots=True)
class Sites:
    """All puts and fetches of a block, and what kept other exchanges from being one.

    Attributes:
        puts, fetches: in program order.
        refusals: per exchange that is neither, (its place, why).
        numbers: value numbers of the block.
    """

    puts: tuple[Site, ...]
    fetches: tuple[Site, ...]
    refusals: tuple[tuple[int, str], ...]
    numbers: dict[ir.Value, int]


def find_sites(body: Body) -> Sites:
    """Find the puts and fetches of a block."""
    numbers = number_values(body)
    distinct = DistinctRows(body, numbers)
    puts, fetches, refusals = [], [], []
    for i in range(len(body.ops)):
        if body.kind(i) != "all_to_all" or len(body.ops[i].operands) != 1:
            continue
        reasons = []
        for found, look in ((puts, _put), (fetches, _fetch)):
            try:
                found.append(look(body, i, numbers, distinct))
            except NotProved as reason:
                reasons.append(str(reason))
        if len(reasons) == 2:
            refusals.append((i, "; ".join(reasons)))
    return Sites(tuple(puts), tuple(fetches), tuple(refusals), numbers)


def _put(body: Body, i: int, numbers: dict[ir.Value, int], distinct: DistinctRows) -> Site:
    between, place = _before(body, body.ops[i].operands[0])
    op = body.ops[place]
    rows = _written_rows(op, distinct.counting.constants, integer(body.ops[i], "split_count"))
    _check_leading(shape_of(body.ops[i].operands[0]), "split_dimension", body.ops[i], rows)
    doubt = _doubt(distinct, op.operands[1], rows)
    if doubt and any(body.kind(b) == "convert" for b in between):
        raise NotProved("no dispatch: rows may be added up before they are converted")
    return Site(place, i, tuple(reversed(between)), rows, not doubt, doubt=doubt)


def _before(body: Body, value: ir.Value) -> tuple[list[int], int]:
    """Follow a buffer back to the scatter that fills it: places on the way, and its own.

    Raises:
        NotProved: if there is none, or others read the buffer too.
    """
    between: list[int] = []
    while True:
        if body.only_user(value) < 0:
            raise NotProved("no dispatch: its buffer is read by others too")
        place, kind = body.made_by(value)
        if kind == "scatter":
            return between, place
        if kind not in ("reshape", "convert"):
            raise NotProved(
                f"no dispatch: its rows are not written by index (made by {kind or 'input'})"
            )
        between.append(place)
        value = body.ops[place].operands[0]


def _written_rows(scatter: ir.Operation, constants: Constants, peers: int) -> RowBuffer:
    """Return how a scatter of token rows addresses the empty buffer that it fills.

    Raises:
        NotProved: if it is not one.
    """
    if len(scatter.operands) != 3 or not constants.is_zero(scatter.operands[0]):
        raise NotProved("no dispatch: the buffer that rows are written to is not empty")
    if update_of(scatter) not in ("add", "set"):
        raise NotProved("no dispatch: rows are neither added nor written")
    dims = stablehlo.ScatterDimensionNumbers(scatter.attributes["scatter_dimension_numbers"])
    if dims.input_batching_dims:
        raise NotProved("no dispatch: its indices are batched")
    updates, width = shape_of(scatter.operands[2]), tuple(dims.update_window_dims)
    if width != tuple(range(len(updates) - len(width), len(updates))):
        raise NotProved("no dispatch: tokens do not lead in what is written")
    return _rows(
        shape_of(scatter.results[0]),
        tuple(dims.inserted_window_dims),
        tuple(dims.scattered_dims_to_operand_dims),
        tuple(updates[d] for d in width),
        dims.index_vector_dim,
        peers,
    )


def _fetch(body: Body, i: int, numbers: dict[ir.Value, int], distinct: DistinctRows) -> Site:
    between: list[int] = []
    value = body.ops[i].results[0]
    while True:
        place = body.only_user(value)
        if place < 0:
            raise NotProved("no combine: what it brings is read by more than one op")
        if body.kind(place) not in ("reshape", "convert"):
            break
        between.append(place)
        value = body.ops[place].results[0]
    op = body.ops[place]
    if body.kind(place) != "gather" or op.operands[0] != value:
        raise NotProved(f"no combine: its rows are not read by index (read by {body.kind(place)})")
    numbers_of = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    if numbers_of.operand_batching_dims:
        raise NotProved("no combine: its indices are batched")
    sizes, made = ints(op, "slice_sizes"), shape_of(op.results[0])
    offset = tuple(numbers_of.offset_dims)
    if offset != tuple(range(len(made) - len(offset), len(made))):
        raise NotProved("no combine: tokens do not lead in what is read")
    buffer = shape_of(op.operands[0])
    collapsed = tuple(numbers_of.collapsed_slice_dims)
    rows = _rows(
        buffer,
        collapsed,
        tuple(numbers_of.start_index_map),
        tuple(sizes[d] for d in range(len(buffer)) if d not in collapsed),
        numbers_of.index_vector_dim,
        integer(body.ops[i], "split_count"),
    )
    _check_leading(shape_of(body.ops[i].results[0]), "concat_dimension", body.ops[i], rows)
    clamps = not is_masked(body, place, numbers, distinct.counting.constants)
    doubt = (
        ": what is read beyond the buffer is read at its edge"
        if clamps else _doubt(distinct, op.operands[1], rows)
    )  # fmt: skip
    return Site(place, i, tuple(between), rows, not doubt, clamps, doubt)


def _doubt(distinct: DistinctRows, indices: ir.Value, rows: RowBuffer) -> str:
    """Say what keeps tokens from being proved not to share rows; "" if they are."""
    dims = tuple(size for _, size in sorted(zip(rows.columns, rows.dims, strict=True)))
    if distinct.are_distinct(indices, dims, rows.index_dim):
        return ""
    return f": {distinct.doubt(indices, dims, rows.index_dim)}"


def _rows(
    buffer: tuple[int, ...],
    indexed: tuple[int, ...],
    columns_to_dims: tuple[int, ...],
    width: tuple[int, ...],
    index_dim: int,
    peers: int,
) -> RowBuffer:
    """Check that index vectors address whole rows, and return how."""
    count = len(indexed)
    if sorted(indexed) != list(range(count)) or sorted(columns_to_dims) != list(range(count)):
        raise NotProved("the indices do not address the leading dims of the buffer")
    if not count or width != buffer[count:]:
        raise NotProved("the indices do not address whole rows of the buffer")
    columns = tuple(columns_to_dims.index(d) for d in range(count))
    return RowBuffer(buffer[:count], columns, width, peers, index_dim)


def _check_leading(
    shape: tuple[int, ...], name: str, exchange: ir.Operation, rows: RowBuffer
) -> None:
    """Check that the blocks of the peers follow each other in memory, and hold whole rows."""
    dim = integer(exchange, name)
    if any(size != 1 for size in shape[:dim]) or rows.count % rows.peers:
        raise NotProved("the rows of one peer are not behind each other in the buffer")


def is_masked(
    body: Body, gather: int, numbers: Mapping[ir.Value, int], constants: Constants
) -> bool:
    """Whether what a gather reads beyond its buffer is replaced afterwards, as `mode="fill"` does.

    All readers have to be selects between it and something else, by a mask that is false for every
    index vector of the gather that points outside.

    Args:
        body: the block.
        gather: place of the gather.
        numbers: value numbers of the block.
        constants: what values hold whatever the input.
    """
    op = body.ops[gather]
    users = body.users.get(op.results[0], [])
    return bool(users) and all(
        body.kind(user) == "select"
        and body.ops[user].operands[1] == op.results[0]
        and body.ops[user].operands[2] != op.results[0]
        and _means_inside(body, body.ops[user].operands[0], op, numbers, constants)
        for user in users
    )


def _means_inside(
    body: Body,
    mask: ir.Value,
    gather: ir.Operation,
    numbers: Mapping[ir.Value, int],
    constants: Constants,
) -> bool:
    """Whether a mask is all(0 <= index <= limit) over the index vectors of a gather."""
    place, kind = body.made_by(mask)
    numbers_of = stablehlo.GatherDimensionNumbers(gather.attributes["dimension_numbers"])
    batch = len(shape_of(gather.results[0])) - len(numbers_of.offset_dims)
    if kind != "broadcast_in_dim":
        return False
    if ints(body.ops[place], "broadcast_dimensions") != tuple(range(batch)):
        return False
    place, kind = body.made_by(body.ops[place].operands[0])
    if kind != "reduce" or ints(body.ops[place], "dimensions") != (numbers_of.index_vector_dim,):
        return False
    both, kind = body.made_by(body.ops[place].operands[0])
    if kind != "and":
        return False
    found = {_bound(side, gather, numbers, constants) for side in body.ops[both].operands}
    return found == {"GE", "LE"}


def _bound(
    value: ir.Value, gather: ir.Operation, numbers: Mapping[ir.Value, int], constants: Constants
) -> str | None:
    """Return GE or LE if a value says that indices are at least 0, or within the buffer."""
    op = maker_of(value)
    if op is None or kind_of(op) != "compare":
        return None
    if numbers.get(op.operands[0]) != numbers[gather.operands[1]]:
        return None
    direction = direction_of(op)
    if direction == "GE":
        return "GE" if constants.is_zero(op.operands[1]) else None
    limits = constants.all_of(op.operands[1])
    if direction != "LE" or limits is None:
        return None
    numbers_of = stablehlo.GatherDimensionNumbers(gather.attributes["dimension_numbers"])
    dims, sizes = shape_of(gather.operands[0]), ints(gather, "slice_sizes")
    wanted = [dims[d] - sizes[d] for d in numbers_of.start_index_map]
    along = [-1 if d == numbers_of.index_vector_dim else 1 for d in range(limits.ndim)]
    return "LE" if np.all(limits <= np.reshape(wanted, along)) else None
