"""Which elements of a value its readers need, if they multiply it with masks.

The gradient of a one-hot mask is made for every element and then multiplied with the mask's own
factors, one by one. Every reader is followed through what works element by element, or adds up,
until, for all that is left of it, some hots hold; elsewhere the value may as well be zero.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import ints, reducer, same_operand, shape_of
from hlo_passes.proofs.element_moves import DimName, move_of
from hlo_passes.proofs.engine import Domain, FactRules, NotProved
from hlo_passes.proofs.one_hot import Hot, OneHot, Terms


@dataclass(frozen=True, slots=True)
class _Seen:
    """A value that the one that is followed has a share in.

    Attributes:
        dims: per dim its name; dims of the followed value are called 0, 1, ...
        terms: of which one holds wherever an element of the followed value has a share in it.
    """

    dims: tuple[DimName, ...]
    terms: frozenset[frozenset[Hot]]


class _Shares(Domain[_Seen | None]):
    """What has a share of the followed value; None for what has none, or for all of it."""

    rules: ClassVar[FactRules]

    def __init__(self, one_hot: OneHot) -> None:
        super().__init__()
        self.one_hot = one_hot

    def unknown(self, value: ir.Value) -> _Seen | None:
        """Nothing is followed."""
        return None

    def among(self, op: ir.Operation) -> list[int]:
        """Return which operands are followed."""
        return [i for i, value in enumerate(op.operands) if self.of(value) is not None]


def _first(shares: _Shares, op: ir.Operation) -> tuple[int, _Seen]:
    side = shares.among(op)[0]
    seen = shares.of(op.operands[side])
    assert seen is not None
    return side, seen


def _same(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    return shares.of(same_operand(op, value))


def _added(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    found = [seen for v in op.operands if (seen := shares.of(v)) is not None]
    if len({seen.dims for seen in found}) != 1:
        return None
    return _Seen(found[0].dims, frozenset().union(*(seen.terms for seen in found)))


def _divided(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    return shares.of(op.operands[0]) if shares.among(op) == [0] else None


def _multiplied(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    if len(shares.among(op)) != 1:
        return None
    side, seen = _first(shares, op)
    other = shares.one_hot.terms(op.operands[1 - side])
    return _Seen(seen.dims, _with(seen.terms, other, seen.dims))


def _selected(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    mine = shares.among(op)
    if len(mine) != 1 or mine == [0]:
        return None
    _, seen = _first(shares, op)
    if mine == [1] and shape_of(op.operands[0]) == shape_of(value):
        other = shares.one_hot.terms(op.operands[0])
        return _Seen(seen.dims, _with(seen.terms, other, seen.dims))
    return seen


def _product(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    if len(shares.among(op)) != 1:
        return None
    side, seen = _first(shares, op)
    *sides, _ = shares.one_hot.dims_of(op)
    names: dict[DimName, DimName] = dict(zip(sides[side], seen.dims, strict=True))
    for name in sides[1 - side]:
        names.setdefault(name, shares.one_hot.fresh())
    other = tuple(names[name] for name in sides[1 - side])
    terms = _with(seen.terms, shares.one_hot.terms(op.operands[1 - side]), other)
    return _Seen(tuple(names[d] for d in range(len(shape_of(value)))), terms)


def _reduced(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    if shares.among(op) == [0] and reducer(op) == "add":
        _, seen = _first(shares, op)
        summed = ints(op, "dimensions")
        return _Seen(tuple(n for d, n in enumerate(seen.dims) if d not in summed), seen.terms)
    return _moved(shares, op, value)


def _moved(shares: _Shares, op: ir.Operation, value: ir.Value) -> _Seen | None:
    step, seen = move_of(op, value), shares.of(op.operands[0])
    if step is None or seen is None or shares.among(op) != [0]:
        return None
    dims: list[DimName | None] = [None] * len(shape_of(value))
    for name, place in zip(seen.dims, step[1], strict=True):
        if place is not None:
            dims[place] = name
    fresh = tuple(shares.one_hot.fresh() if name is None else name for name in dims)
    return _Seen(fresh, seen.terms)


_Shares.rules = {
    **dict.fromkeys(("optimization_barrier", "negate", "convert"), _same),
    "add": _added, "subtract": _added,
    "divide": _divided,
    "multiply": _multiplied,
    "select": _selected,
    "dot_general": _product,
    "reduce": _reduced,
    **dict.fromkeys(("transpose", "broadcast_in_dim", "reshape"), _moved),
}  # fmt: skip


def _with(
    terms: frozenset[frozenset[Hot]], other: Terms, dims: tuple[DimName, ...]
) -> frozenset[frozenset[Hot]]:
    """Let one of some terms of another value hold too, whose dims have the given names."""
    named = [term.renamed(dict(enumerate(dims))).hots for term in other]
    return frozenset(mine | hots for mine in terms for hots in named)


def terms_of_readers(
    body: Body, one_hot: OneHot, value: ir.Value, rows: Collection[DimName]
) -> frozenset[frozenset[Hot]]:
    """Return terms of which one holds for every element of a value that is needed.

    Args:
        body: the block.
        one_hot: answers about its values.
        value: what is read.
        rows: dims of it for each of which a hot has to hold.

    Raises:
        NotProved: if an element is needed for which none holds.
    """
    shares = _Shares(one_hot)
    shares.say(value, _Seen(tuple(range(len(shape_of(value)))), frozenset({frozenset()})))
    followed = _Followed(shares, rows, {value}, set())
    for place in range(body.maker[value] + 1, len(body.ops)):
        if followed.values.isdisjoint(body.reads[place]):
            continue
        op = body.ops[place]
        reads_inside = len(body.reads[place]) > len(op.operands)
        if reads_inside or not len(op.results) or not followed.through(op):
            raise NotProved(f"{body.where(place)} reads all of it")
    return frozenset(followed.terms)


@dataclass
class _Followed:
    """How far a value has been followed.

    Attributes:
        shares: what has a share of it.
        rows: dims of it for each of which a hot has to hold.
        values: those that have a share, and of which more may be needed than hots hold for.
        terms: of which one holds for what is needed of all others.
    """

    shares: _Shares
    rows: Collection[DimName]
    values: set[ir.Value]
    terms: set[frozenset[Hot]]

    def through(self, op: ir.Operation) -> bool:
        """Follow an op that reads a value; say whether it reads no more than can be followed."""
        for other in op.operands:
            if other not in self.values:
                self.shares.say(other, None)
        return all(self._into(op, result) for result in op.results)

    def _into(self, op: ir.Operation, result: ir.Value) -> bool:
        seen = self.shares.of(result)
        if seen is None:
            return self._is_beside(op, result)
        if all({hot.counted for hot in term}.issuperset(self.rows) for term in seen.terms):
            self.terms |= seen.terms
            self.shares.say(result, None)
        else:
            self.values.add(result)
        return True

    def _is_beside(self, op: ir.Operation, result: ir.Value) -> bool:
        """Whether a result of a barrier has nothing to do with what is followed."""
        is_barrier = op.name.endswith("optimization_barrier")
        return is_barrier and same_operand(op, result) not in self.values
