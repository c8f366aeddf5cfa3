"""Where a mask can be other than zero, from the comparisons that it is made of.

    hot[t, k, e]  = (expert[t, k] == e)
    mask[t, e, c] = sum over k of weight[t, k] * hot[t, k, e] * (slot[t, k] == c)

So `mask[t, e, c] != 0` means that for some choice k expert[t, k] is e and slot[t, k] is c. Such
terms are followed through products, sums, selections and whatever moves elements. A term that says
less is true of more elements: where nothing is known there is one that says nothing.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.analysis.counting import direction_of
from hlo_passes.analysis.moves import Label, counts_along, move_of, root_of
from hlo_passes.analysis.split_rules.pointwise import splat_of
from hlo_passes.analysis.split_rules.reduce import reducer
from hlo_passes.ir.attributes import ints, shape_of
from hlo_passes.ir.body import Body

_MOST = 16
"""Terms of one value; with more, nothing is said."""
_BELOW = -(2**30)
"""Negative numbers from here on stay negative in every type that is followed."""
_KEEPS_ZERO = frozenset({"abs", "convert", "negate", "sign", "sqrt", "reduce_precision"})


@dataclass(frozen=True, slots=True)
class Hot:
    """An index equals the place along a dim.

    Attributes:
        index: the index.
        at: per dim of the index, the dim that it runs along; None if it is of size 1.
        counted: the dim whose places it is compared with.
    """

    index: ir.Value
    at: tuple[Label | None, ...]
    counted: Label

    @property
    def labels(self) -> frozenset[Label]:
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

    def renamed(self, names: Mapping[Label, Label | None]) -> "Term":
        """Return the term with other names for its dims; hots along dims without one are lost."""
        kept = [
            Hot(hot.index, tuple(names.get(a, a) if a is not None else None for a in hot.at), new)
            for hot in self.hots
            if (new := names.get(hot.counted, hot.counted)) is not None
        ]
        return Term(frozenset(kept), self.exact and len(kept) == len(self.hots))


type Terms = tuple[Term, ...]

ANYTHING: Terms = (Term(),)


@dataclass
class OneHot:
    """Answers where values of a block can be other than zero.

    Attributes:
        body: the block.
    """

    body: Body
    _known: dict[ir.Value, Terms] = field(default_factory=dict)
    _done: int = 0
    _names: Iterable[int] = field(default_factory=lambda: itertools.count(-1, -1))

    def fresh(self) -> Label:
        """Return a name that no dim has yet."""
        return next(iter(self._names))

    def terms(self, value: ir.Value) -> Terms:
        """Return the terms of which one holds wherever a value is not zero.

        Labels are dims of the value; those of summed dims are new in every answer.
        """
        place = self.body.maker.get(value, -1)
        while self._done <= place:
            # In program order, so that nothing recurses through the depth of a model.
            for made in self.body.ops[self._done].results:
                found = self._find(made)
                self._known[made] = found if len(found) <= _MOST else ANYTHING
            self._done += 1
        return tuple(self._with_fresh(term) for term in self._known.get(value, ANYTHING))

    def _with_fresh(self, term: Term) -> Term:
        summed = {label for hot in term.hots for label in hot.labels if label < 0}
        if not summed:
            return term
        return term.renamed({label: self.fresh() for label in sorted(summed)})

    def _find(self, value: ir.Value) -> Terms:
        place, kind = self.body.made_by(value)
        op = self.body.ops[place]
        match kind:
            case "compare":
                return self._compared(op)
            case "multiply" | "and":
                return both(*map(self.terms, op.operands))
            case "add" | "subtract" | "or" | "xor":
                return _vague(self.terms(op.operands[0]) + self.terms(op.operands[1]))
            case "maximum" | "minimum":
                return _vague(self.terms(op.operands[0]) + self.terms(op.operands[1]))
            case "divide":
                return _vague(self.terms(op.operands[0]))
            case "select":
                return self._selected(op)
            case "dot_general":
                return self._product(op)
            case "reduce":
                return self._reduced(op)
            case "constant":
                return _constant(op)
        if kind in _KEEPS_ZERO:
            keeps = kind in ("convert", "abs", "sign", "sqrt")
            found = self.terms(op.operands[0])
            return found if keeps else _vague(found)
        return self._moved(op, value)

    def _moved(self, op: ir.Operation, value: ir.Value) -> Terms:
        """Follow what only moves elements."""
        step = move_of(op, value)
        if step is None:
            return ANYTHING
        source, places = step
        names = dict(enumerate(places))
        return tuple(term.renamed(names) for term in self.terms(source))

    def _compared(self, op: ir.Operation) -> Terms:
        left, right = op.operands
        direction = direction_of(op)
        if direction == "EQ":
            for index, counted in ((left, right), (right, left)):
                dim = counts_along(counted)
                root, at = root_of(index)
                if dim is not None and dim not in at:
                    hot = Term(frozenset({Hot(root, at, dim)}), exact=True)
                    names = dict(enumerate(at))
                    implied = tuple(t.renamed(names) for t in self._where_counting(root))
                    found = both((hot,), implied)
                    return tuple(replace(term, exact=len(found) == 1) for term in found)
        for number, zero, ways in ((left, right, ("GT", "NE")), (right, left, ("LT", "NE"))):
            if direction in ways and self.splat(zero) == 0:
                found = self.terms(number)
                return found if len(found) == 1 else _vague(found)
        return ANYTHING

    def _where_counting(self, value: ir.Value) -> Terms:
        """Return the terms of which one holds wherever a value is above -1.

        What is x - 1 is no place where x is zero.
        """
        place, kind = self.body.made_by(value)
        if place < 0:
            return ANYTHING
        op = self.body.ops[place]
        if kind in ("add", "subtract"):
            number = self.splat(op.operands[1])
            sign = 1 if kind == "add" else -1
            if number is not None and _BELOW <= sign * number <= -1:
                return self.terms(op.operands[0])
        elif kind == "maximum":
            return sum(map(self._where_counting, op.operands), ())
        elif kind == "select":
            number = self.splat(op.operands[2])
            if number is not None and number <= -1:
                return both(self.terms(op.operands[0]), self._where_counting(op.operands[1]))
        elif kind == "convert" and _keeps_sign(op):
            return self._where_counting(op.operands[0])
        elif kind == "reduce" and len(op.results) == 1 and reducer(op) == "maximum":
            start = self.splat(op.operands[1])
            if start is not None and start <= -1:
                return self._summed(op, self._where_counting(op.operands[0]))
        elif (step := move_of(op, value)) is not None:
            names = dict(enumerate(step[1]))
            return tuple(term.renamed(names) for term in self._where_counting(step[0]))
        return ANYTHING

    def _selected(self, op: ir.Operation) -> Terms:
        mask, yes, no = op.operands
        where = self.terms(mask) if shape_of(mask) == shape_of(yes) else ANYTHING
        if self.terms(no) == ():
            return both(where, self.terms(yes))
        return _vague(both(where, self.terms(yes)) + self.terms(no))

    def _reduced(self, op: ir.Operation) -> Terms:
        merge = reducer(op) if len(op.results) == 1 else None
        start = self.splat(op.operands[1]) if merge else None
        if merge not in ("add", "or", "maximum") or start is None or start > 0:
            return ANYTHING
        if merge != "maximum" and start != 0:
            return ANYTHING
        return self._summed(op, self.terms(op.operands[0]))

    def _summed(self, op: ir.Operation, terms: Terms) -> Terms:
        gone, rank = ints(op, "dimensions"), len(shape_of(op.operands[0]))
        kept = [d for d in range(rank) if d not in gone]
        names: dict[Label, Label] = {d: i for i, d in enumerate(kept)}
        names |= {d: self.fresh() for d in gone}
        several = [names[d] for d in gone if shape_of(op.operands[0])[d] > 1]
        return tuple(
            _without(term.renamed(names), [names[d] for d in gone], several) for term in terms
        )

    def _product(self, op: ir.Operation) -> Terms:
        left, right, contracted = self.dims_of(op)
        names = [dict(enumerate(side)) for side in (left, right)]
        terms = [
            tuple(term.renamed(side) for term in self.terms(value))
            for value, side in zip(op.operands, names, strict=True)
        ]
        several = [d for d in contracted if shape_of(op.operands[0])[left.index(d)] > 1]
        return tuple(_without(term, contracted, several) for term in both(*terms))

    def dims_of(self, op: ir.Operation) -> tuple[list[Label], list[Label], list[Label]]:
        """Name the dims of a product's operands after those of its result; and the contracted."""
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        names: list[dict[int, Label]] = [{}, {}]
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

    def splat(self, value: ir.Value) -> float | None:
        """Return the one number that a value holds everywhere, if it is a constant."""
        place, kind = self.body.made_by(value)
        while kind in ("broadcast_in_dim", "reshape", "convert", "transpose"):
            value = self.body.ops[place].operands[0]
            place, kind = self.body.made_by(value)
        number = splat_of(self.body.ops[place]) if kind == "constant" else None
        kinds = ir.IntegerAttr | ir.FloatAttr | ir.BoolAttr
        return float(number.value) if isinstance(number, kinds) else None


def both(left: Terms, right: Terms) -> Terms:
    """Return the terms of a product."""
    return tuple(Term(a.hots | b.hots, a.exact and b.exact) for a in left for b in right)


def _vague(terms: Terms) -> Terms:
    return tuple(replace(term, exact=False) for term in terms)


def _without(term: Term, gone: Sequence[Label], several: Sequence[Label]) -> Term:
    """Sum over dims: a hot along one of them says no more.

    One that has several places and is named by no hot makes a number of more than 1.
    """
    kept = frozenset(hot for hot in term.hots if hot.counted not in gone)
    named = {label for hot in kept for label in hot.labels}
    return Term(kept, term.exact and len(kept) == len(term.hots) and named.issuperset(several))


def _constant(op: ir.Operation) -> Terms:
    number = splat_of(op)
    if not isinstance(number, ir.IntegerAttr | ir.FloatAttr | ir.BoolAttr):
        return ANYTHING
    is_flag = str(op.results[0].type.element_type) == "i1"
    return () if not number.value else (Term(exact=is_flag or number.value == 1),)


def _keeps_sign(op: ir.Operation) -> bool:
    """Whether a conversion makes no number above -1 of one that is not, and is above `_BELOW`."""
    source, made = (v.type.element_type for v in (op.operands[0], op.results[0]))
    if isinstance(source, ir.IntegerType) and (source.is_unsigned or source.width == 1):
        return False
    if isinstance(made, ir.IntegerType):
        return not made.is_unsigned and made.width >= 32
    return isinstance(made, ir.FloatType)
