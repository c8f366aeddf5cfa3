"""Where a mask can be other than zero, from the comparisons that it is made of.

    hot[t, k, e]  = (expert[t, k] == e)
    mask[t, e, c] = sum over k of weight[t, k] * hot[t, k, e] * (slot[t, k] == c)

So `mask[t, e, c] != 0` means that for some choice k expert[t, k] is e and slot[t, k] is c. Such
terms are followed through products, sums, selections and whatever moves elements. A term that says
less is true of more elements: where nothing is known there is one that says nothing.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import ints, kind_of, reducer, shape_of
from hlo_passes.ir.traits import KEEPS_ONE, KEEPS_ZERO
from hlo_passes.proofs.arithmetic import direction_of, element_of, is_total
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.element_moves import DimName, move_of, root_of
from hlo_passes.proofs.engine import Domain, FactRules
from hlo_passes.proofs.ranges import Ranges, in_type

_MOST = 16
"""Terms of one value; with more, nothing is said."""
_BELOW = -(2**30)
"""Negative numbers from here on stay negative in every type that is followed."""


@dataclass(frozen=True, slots=True)
class Hot:
    """An index equals the place along a dim.

    Attributes:
        index: the index.
        at: per dim of the index, the dim that it runs along; None if it is of size 1.
        counted: the dim whose places it is compared with.
    """

    index: ir.Value
    at: tuple[DimName | None, ...]
    counted: DimName

    @property
    def labels(self) -> frozenset[DimName]:
        """All dims that it speaks of."""
        return frozenset(label for label in (*self.at, self.counted) if label is not None)


@dataclass(frozen=True, slots=True)
class Term:
    """Hots that all hold, for some place along the dims that were summed over.

    Attributes:
        hots: what holds.
        exact: whether the value is 1 where they do and 0 elsewhere, if no two places along the
            summed dims fit one element.
    """

    hots: frozenset[Hot] = frozenset()
    exact: bool = False

    def renamed(self, names: Mapping[DimName, DimName | None]) -> "Term":
        """Return the term with other names for its dims; hots along dims without one are lost."""
        kept = [
            Hot(hot.index, tuple(names.get(a, a) if a is not None else None for a in hot.at), new)
            for hot in self.hots
            if (new := names.get(hot.counted, hot.counted)) is not None
        ]
        return Term(frozenset(kept), self.exact and len(kept) == len(self.hots))


type Terms = tuple[Term, ...]

ANYTHING: Terms = (Term(),)


class OneHot(Domain[Terms]):
    """Where values of a block can be other than zero.

    Attributes:
        constants: what values hold in every run.
        ranges: between which numbers they are.
        places: where they can be the number of a place.
    """

    rules: ClassVar[FactRules]

    def __init__(self, constants: Constants, ranges: Ranges) -> None:
        super().__init__()
        self.constants, self.ranges = constants, ranges
        self.places = _Places(self)
        self._names = itertools.count(-1, -1)

    def unknown(self, value: ir.Value) -> Terms:
        """Say nothing."""
        return ANYTHING

    def fresh(self) -> DimName:
        """Return a name that no dim has yet."""
        return next(self._names)

    def terms(self, value: ir.Value) -> Terms:
        """Return the terms of which one holds wherever a value is not zero.

        Labels are dims of the value; those of summed dims are new in every answer.
        """
        found = self.of(value)
        return tuple(map(self._with_fresh, found)) if len(found) <= _MOST else ANYTHING

    def _with_fresh(self, term: Term) -> Term:
        summed = {label for hot in term.hots for label in hot.labels if label < 0}
        if not summed:
            return term
        return term.renamed({label: self.fresh() for label in sorted(summed)})

    def dims_of(self, op: ir.Operation) -> tuple[list[DimName], list[DimName], list[DimName]]:
        """Name the dims of a product's operands after those of its result; and the contracted."""
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        names: list[dict[int, DimName]] = [{}, {}]
        batch = zip(numbers.lhs_batching_dimensions, numbers.rhs_batching_dimensions, strict=True)
        at = 0
        for pair in batch:
            for side, d in enumerate(pair):
                names[side][d] = at
            at += 1
        contracted = []
        pairs = zip(
            numbers.lhs_contracting_dimensions, numbers.rhs_contracting_dimensions, strict=True
        )
        for pair in pairs:
            contracted.append(self.fresh())
            for side, d in enumerate(pair):
                names[side][d] = contracted[-1]
        for side, value in enumerate(op.operands):
            for d in range(len(shape_of(value))):
                if d not in names[side]:
                    names[side][d] = at
                    at += 1
        left, right = ([side[d] for d in sorted(side)] for side in names)
        return left, right, contracted


def _moved(domain: "OneHot | _Places", op: ir.Operation, value: ir.Value) -> Terms:
    """Follow what only moves elements."""
    step = move_of(op, value)
    if step is None:
        return ANYTHING
    names = dict(enumerate(step[1]))
    return tuple(term.renamed(names) for term in domain.terms(step[0]))


def _kept(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    """Zero and one stay what they are."""
    return domain.terms(op.operands[0])


def _first(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    """Zero stays what it is."""
    return _vague(domain.terms(op.operands[0]))


def _divided(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    """Zero stays what it is; but the integer 0 over 0 is -1."""
    by = domain.ranges.of(op.operands[1])
    is_integer = isinstance(element_of(value), ir.IntegerType)
    return ANYTHING if is_integer and by.low <= 0 <= by.high else _first(domain, op, value)


def _both(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    """What is not zero is neither zero here nor there."""
    return both(domain.terms(op.operands[0]), domain.terms(op.operands[1]))


def _all(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    """What is both zero and zero is zero."""
    return _vague(domain.terms(op.operands[0]) + domain.terms(op.operands[1]))


def _compared(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    left, right = op.operands
    direction = direction_of(op)
    if is_total(op):
        return ANYTHING
    if direction == "EQ":
        for index, counted in ((left, right), (right, left)):
            dim = domain.constants.counts_along(counted)
            root, at = root_of(index)
            if dim is not None and dim not in at:
                hot = Term(frozenset({Hot(root, at, dim)}), exact=True)
                names = dict(enumerate(at))
                implied = tuple(t.renamed(names) for t in domain.places.terms(root))
                found = both((hot,), implied)
                return tuple(replace(term, exact=len(found) == 1) for term in found)
    for number, zero, ways in ((left, right, ("GT", "NE")), (right, left, ("LT", "NE"))):
        if direction in ways and domain.constants.is_zero(zero):
            found = domain.terms(number)
            return found if len(found) == 1 else _vague(found)
    return ANYTHING


def _selected(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    mask, yes, no = op.operands
    where = domain.terms(mask) if shape_of(mask) == shape_of(yes) else ANYTHING
    if domain.terms(no) == ():
        return both(where, domain.terms(yes))
    return _vague(both(where, domain.terms(yes)) + domain.terms(no))


def _reduced(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    merge = reducer(op) if len(op.results) == 1 else None
    start = domain.constants.number(op.operands[1]) if merge else None
    if merge not in ("add", "or", "maximum") or start is None or start > 0:
        return ANYTHING
    if merge != "maximum" and start != 0:
        return ANYTHING
    return _summed(domain, op, domain.terms(op.operands[0]))


def _summed(domain: OneHot, op: ir.Operation, terms: Terms) -> Terms:
    summed, rank = ints(op, "dimensions"), len(shape_of(op.operands[0]))
    kept = [d for d in range(rank) if d not in summed]
    names: dict[DimName, DimName] = {d: i for i, d in enumerate(kept)}
    names |= {d: domain.fresh() for d in summed}
    several = [names[d] for d in summed if shape_of(op.operands[0])[d] > 1]
    return tuple(
        _without(term.renamed(names), [names[d] for d in summed], several) for term in terms
    )


def _product(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    left, right, contracted = domain.dims_of(op)
    names = [dict(enumerate(side)) for side in (left, right)]
    terms = [
        tuple(term.renamed(side) for term in domain.terms(read))
        for read, side in zip(op.operands, names, strict=True)
    ]
    several = [d for d in contracted if shape_of(op.operands[0])[left.index(d)] > 1]
    return tuple(_without(term, contracted, several) for term in both(*terms))


def _constant(domain: OneHot, op: ir.Operation, value: ir.Value) -> Terms:
    number = domain.constants.number(value)
    if number is None:
        return ANYTHING
    return () if number == 0 else (Term(exact=number == 1),)


OneHot.rules = {
    "compare": _compared,
    "multiply": _both, "and": _both,
    **dict.fromkeys(("add", "subtract", "or", "xor", "maximum", "minimum"), _all),
    **dict.fromkeys(KEEPS_ZERO, _first), "divide": _divided,
    **dict.fromkeys(KEEPS_ONE, _kept),
    "select": _selected,
    "dot_general": _product,
    "reduce": _reduced,
    "constant": _constant,
    **dict.fromkeys(
        ("optimization_barrier", "transpose", "broadcast_in_dim", "reshape"), _moved
    ),
}  # fmt: skip


class _Places(Domain[Terms]):
    """Where values can be above -1: elsewhere they are no place along a dim.

    What is x - 1 is no place where x is zero.
    """

    rules: ClassVar[FactRules]

    def __init__(self, one_hot: OneHot) -> None:
        super().__init__()
        self.one_hot = one_hot

    def unknown(self, value: ir.Value) -> Terms:
        """Say nothing."""
        return ANYTHING

    def terms(self, value: ir.Value) -> Terms:
        """Return the terms of which one holds wherever a value is above -1."""
        found = self.of(value)
        return found if len(found) <= _MOST else ANYTHING


def _less(domain: _Places, op: ir.Operation, value: ir.Value) -> Terms:
    number = domain.one_hot.constants.number(op.operands[1])
    sign = 1 if kind_of(op) == "add" else -1
    element = element_of(value)
    is_signed = not (isinstance(element, ir.IntegerType) and element.is_unsigned)
    if is_signed and number is not None and _BELOW <= sign * number <= -1:
        return domain.one_hot.terms(op.operands[0])
    return ANYTHING


def _largest(domain: _Places, op: ir.Operation, value: ir.Value) -> Terms:
    if kind_of(op) == "maximum":
        return domain.terms(op.operands[0]) + domain.terms(op.operands[1])
    start = domain.one_hot.constants.number(op.operands[1])
    is_largest = len(op.results) == 1 and reducer(op) == "maximum"
    if not is_largest or start is None or start > -1:
        return _moved(domain, op, value)
    return _summed(domain.one_hot, op, domain.terms(op.operands[0]))


def _chosen(domain: _Places, op: ir.Operation, value: ir.Value) -> Terms:
    mask, yes, no = op.operands
    number = domain.one_hot.constants.number(no)
    if number is None or number > -1 or shape_of(mask) != shape_of(value):
        return ANYTHING
    return both(domain.one_hot.terms(mask), domain.terms(yes))


def _converted(domain: _Places, op: ir.Operation, value: ir.Value) -> Terms:
    """Follow a conversion that makes no number above -1 of one that is not."""
    found, element = domain.one_hot.ranges.of(op.operands[0]), element_of(value)
    source = element_of(op.operands[0])
    is_float = isinstance(element, ir.FloatType)
    if isinstance(source, ir.FloatType):
        keeps = is_float or (not found.is_any and in_type(found, element) == found)
    else:
        keeps = is_float or in_type(found, element) == found
    return domain.terms(op.operands[0]) if keeps else ANYTHING


_Places.rules = {
    "add": _less, "subtract": _less,
    "maximum": _largest, "reduce": _largest,
    "select": _chosen,
    "convert": _converted,
    **dict.fromkeys(
        ("optimization_barrier", "transpose", "broadcast_in_dim", "reshape"), _moved
    ),
}  # fmt: skip


def both(left: Terms, right: Terms) -> Terms:
    """Return the terms of a product."""
    return tuple(Term(a.hots | b.hots, a.exact and b.exact) for a in left for b in right)


def _vague(terms: Terms) -> Terms:
    return tuple(replace(term, exact=False) for term in terms)


def _without(term: Term, summed: Sequence[DimName], several: Sequence[DimName]) -> Term:
    """Sum over dims: a hot along one of them says no more.

    One that has several places and is named by no hot makes a number of more than 1.
    """
    kept = frozenset(hot for hot in term.hots if hot.counted not in summed)
    named = {label for hot in kept for label in hot.labels}
    return Term(kept, term.exact and len(kept) == len(term.hots) and named.issuperset(several))
