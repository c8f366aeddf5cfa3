"""Which row a token has, read off the hots of a mask."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.proofs.element_moves import DimName
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.one_hot import Hot
from hlo_passes.proofs.ranges import Ranges

type IndexedBy = tuple[str, int]
"""What an index runs along: `("token", i)`, `("choice", i)` or `("row", i)`."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a row's address.

    Attributes:
        index: where it is read; None if it is the place along a token dim.
        at: per dim of the index, what that runs along, None if it is of size 1; for no index, the
            token dim.
    """

    index: ir.Value | None
    at: tuple[IndexedBy | None, ...]

    @property
    def by_rows(self) -> tuple[int, ...]:
        """The dims of the buffer whose place has to be known to read it."""
        return tuple(place[1] for place in self.at if place is not None and place[0] == "row")


@dataclass(frozen=True, slots=True)
class Address:
    """Which rows of a buffer tokens have.

    Attributes:
        tokens: sizes of the dims that count tokens.
        choices: sizes of the dims that count the choices of a token.
        rows: sizes of the dims of a buffer that are addressed.
        columns: per such dim.
    """

    tokens: tuple[int, ...]
    choices: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[Column, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens, and choices of each."""
        return math.prod(self.tokens), math.prod(self.choices)

    def made_at(self, body: Body) -> tuple[int, ...]:
        """Return the places of the ops that make its indices."""
        return tuple(body.maker.get(c.index, -1) for c in self.columns if c.index is not None)

    def key(self, numbers: Mapping[ir.Value, int]) -> object:
        """Return what equal addresses have in common, whatever made them."""
        named = [(None if c.index is None else numbers[c.index], c.at) for c in self.columns]
        return self.tokens, self.choices, self.rows, tuple(named)


@dataclass(frozen=True, slots=True)
class Dims:
    """The dims of a product that matter, by name.

    Attributes:
        sizes: of all of them.
        tokens: those that count tokens.
        rows: those that count rows, in the order of the buffer; one that both count tokens is a
            row of its own.
    """

    sizes: Mapping[DimName, int]
    tokens: tuple[DimName, ...]
    rows: tuple[DimName, ...]


def address_of(
    hots: frozenset[Hot],
    dims: Dims,
    body: Body,
    numbers: Mapping[ir.Value, int],
    ranges: Ranges,
) -> tuple[Address, tuple[DimName, ...], bool]:
    """Return the rows that hots name, the token dims in their order, and whether that is all.

    It is not if further hots have to hold for a token to have a row.

    Args:
        hots: all hold where a token has a row.
        dims: what their labels are.
        body: the block.
        numbers: its value numbers, by which one of several hots is chosen.
        ranges: between which numbers its values are.

    Raises:
        NotProved: if there is no hot for some dim of the buffer, or none that is an index.
    """
    chosen = {
        label: None if label in dims.tokens else _best(label, hots, dims, body, numbers)
        for label in dims.rows
    }
    needed = [hot for hot in chosen.values() if hot is not None]
    tokens, choices = _runs_along(needed, dims)
    columns = _columns(chosen, tokens, choices)
    _check(columns, ranges)
    sizes = dict(pair for hot in needed for pair in _sizes(hot))
    address = Address(
        tuple(dims.sizes[t] for t in tokens),
        tuple(sizes[c] for c in choices),
        tuple(dims.sizes[r] for r in dims.rows),
        columns,
    )
    return address, tokens, _keys(needed, numbers) == _keys(map(_plain, hots), numbers)


def _best(
    label: DimName, hots: frozenset[Hot], dims: Dims, body: Body, numbers: Mapping[ir.Value, int]
) -> Hot:
    """Return the hot that says best where along a dim of the buffer a token's row is."""
    fits = [_plain(hot) for hot in hots if hot.counted == label]
    if not fits:
        raise NotProved(f"nothing is compared with the places along a dim of {dims.sizes[label]}")
    return min(fits, key=lambda hot: _rank(hot, dims, body, numbers))


def _runs_along(hots: Sequence[Hot], dims: Dims) -> tuple[tuple[DimName, ...], tuple[DimName, ...]]:
    """Return the dims of tokens, and those of choices, in the order in which indices have them."""
    labels = [label for hot in hots for label in hot.at if label is not None]
    tokens = dict.fromkeys([*(a for a in labels if a in dims.tokens), *dims.tokens])
    choices = dict.fromkeys(a for a in labels if a not in {*dims.tokens, *dims.rows})
    return tuple(tokens), tuple(choices)


def _columns(
    chosen: Mapping[DimName, Hot | None],
    tokens: Sequence[DimName],
    choices: Sequence[DimName],
) -> tuple[Column, ...]:
    """Return a column per dim of the buffer, read off the hot that is chosen for it."""
    places: dict[DimName, IndexedBy] = {label: ("row", i) for i, label in enumerate(chosen)}
    places |= {label: ("token", i) for i, label in enumerate(tokens)}
    places |= {label: ("choice", i) for i, label in enumerate(choices)}
    return tuple(
        Column(None, (places[label],)) if hot is None
        else Column(hot.index, tuple(None if a is None else places[a] for a in hot.at))
        for label, hot in chosen.items()
    )  # fmt: skip


def _keys(hots: Iterable[Hot], numbers: Mapping[ir.Value, int]) -> set[tuple]:
    """Return what equal hots have in common, whatever made them."""
    return {(numbers[hot.index], hot.at, hot.counted) for hot in hots}


def _plain(hot: Hot) -> Hot:
    """Return a hot whose index runs along nothing in dims of size 1."""
    shape = shape_of(hot.index)
    at = [None if size == 1 else label for label, size in zip(hot.at, shape, strict=True)]
    return Hot(hot.index, tuple(at), hot.counted)


def _rank(
    hot: Hot, dims: Dims, body: Body, numbers: Mapping[ir.Value, int]
) -> tuple[int, int, int, tuple[int, ...]]:
    """Prefer an index that can be read without knowing other columns, then the first."""
    by_rows = sum(label in dims.rows and label not in dims.tokens for label in hot.at)
    at = tuple(dims.rows.index(a) if a in dims.rows else -1 for a in hot.at)
    return by_rows, numbers[hot.index], body.maker.get(hot.index, -1), at


def _check(columns: Sequence[Column], ranges: Ranges) -> None:
    for column in columns:
        if len(column.by_rows) > 1 or any(columns[row].by_rows for row in column.by_rows):
            raise NotProved("the places along dims of the buffer depend on each other")
        if column.index is not None and _is_wide(column.index):
            raise NotProved("an index of 64 bits")
        if column.index is not None and ranges.of(column.index).is_any:
            raise NotProved(
                f"{ranges.blame(column.index)} may give an index that is no whole number"
            )


def _is_wide(index: ir.Value) -> bool:
    element = index.type.element_type
    return isinstance(element, ir.IntegerType) and element.width > 32


def _sizes(hot: Hot) -> list[tuple[DimName, int]]:
    return [
        (label, size)
        for label, size in zip(hot.at, shape_of(hot.index), strict=True)
        if label is not None
    ]
