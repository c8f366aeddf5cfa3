"""Builds the numbers that say which row a token has."""

import math
from collections.abc import Mapping

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.masks.address import Address, Column, IndexedBy
from hlo_passes.proofs.one_hot import Hot, OneHot
from hlo_passes.split.arrange import arrange


def columns_of(
    body: Body, numbers: Mapping[ir.Value, int], one_hot: OneHot, address: Address
) -> list[ir.Value]:
    """Build the columns of an address, int32 `[tokens, choices]` each, at the insertion point.

    Args:
        body: the block.
        numbers: its value numbers.
        one_hot: answers where its masks are not zero.
        address: which rows tokens have.
    """
    sizes: dict[IndexedBy, int] = {}
    for what, counts in (("token", address.tokens), ("choice", address.choices),
                         ("row", address.rows)):  # fmt: skip
        sizes |= {(what, i): size for i, size in enumerate(counts)}
    made: dict[int, ir.Value] = {}
    for i in sorted(range(len(address.columns)), key=lambda i: len(address.columns[i].by_rows)):
        column = address.columns[i]
        if column.by_rows:
            (row,) = column.by_rows
            made[i] = _looked_up(body, numbers, one_hot, address, column, made[row], sizes)
        else:
            made[i] = _plain(column, address, sizes)
    return [made[i] for i in range(len(made))]


def _order(address: Address) -> list[IndexedBy]:
    tokens, choices = len(address.tokens), len(address.choices)
    return [*(("token", i) for i in range(tokens)), *(("choice", i) for i in range(choices))]


def _plain(column: Column, address: Address, sizes: Mapping[IndexedBy, int]) -> ir.Value:
    i32, order = ir.IntegerType.get_signless(32), _order(address)
    if column.index is None:
        (place,) = column.at
        assert place is not None
        value = build.iota([sizes[p] for p in order], order.index(place))
    else:
        value = build.convert(arrange(column.index, column.at, order, sizes), i32)
    return build.reshape(value, address.shape)


def _looked_up(
    body: Body, numbers: Mapping[ir.Value, int], one_hot: OneHot, address: Address, column: Column,
    known: ir.Value, sizes: Mapping[IndexedBy, int],
) -> ir.Value:  # fmt: skip
    """Read a table of tokens and rows where another column, that is known, says.

    As a sum of products with a one-hot mask: that is how ranks are recognised.
    """
    assert column.index is not None
    (row,) = column.by_rows
    table = _given(body, numbers, one_hot, column, address.columns[row], column.index)
    order: list[IndexedBy] = [*_order(address), ("row", row)]
    table = arrange(table, column.at, order, sizes)
    table = build.reshape(table, (*address.shape, address.rows[row]))
    places = build.int_type(shape_of(table))
    here = build.compare(build.broadcast(known, places, [0, 1]), "EQ", build.iota(places.shape, 2))
    hot = build.convert(here, build.tensor(table).element_type)
    value = build.total(build.binary("multiply", table, hot), 2)
    return build.convert(value, ir.IntegerType.get_signless(32))


def _given(
    body: Body, numbers: Mapping[ir.Value, int], one_hot: OneHot, column: Column, known: Column,
    value: ir.Value,
) -> ir.Value:  # fmt: skip
    """Return what a table is where another column says, in simpler terms: without that mask."""
    place, kind = body.made_by(value)
    if kind not in ("add", "subtract", "convert", "multiply"):
        return value
    op = body.ops[place]
    if kind == "multiply":
        for mask, rest in (op.operands, list(op.operands)[::-1]):
            if _is_hot(numbers, one_hot, column, known, mask):
                return _given(body, numbers, one_hot, column, known, rest)
        return value
    parts = [_given(body, numbers, one_hot, column, known, operand) for operand in op.operands]
    if parts == list(op.operands):
        return value
    return build.op_of(kind, parts, [value.type])[0]


def _is_hot(
    numbers: Mapping[ir.Value, int], one_hot: OneHot, column: Column, known: Column,
    mask: ir.Value,
) -> bool:  # fmt: skip
    """Whether a mask over the same dims is 1 where a column says."""
    terms = one_hot.terms(mask)
    if len(terms) != 1 or not terms[0].exact or len(terms[0].hots) != 1 or known.index is None:
        return False
    (hot,) = terms[0].hots
    row = column.at[hot.counted]
    return (
        row is not None and row[0] == "row" and _places(hot, column) == known.at
        and numbers[hot.index] == numbers[known.index]
        and math.prod(shape_of(hot.index)) == math.prod(shape_of(known.index))
    )  # fmt: skip


def _places(hot: Hot, column: Column) -> tuple[IndexedBy | None, ...]:
    """Return what the index of a hot of a table runs along, in the terms of the table's column."""
    return tuple(
        column.at[a] if a is not None and a >= 0 and size > 1 else None
        for a, size in zip(hot.at, shape_of(hot.index), strict=True)
    )
