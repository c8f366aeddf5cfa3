"""Which elements of a value its readers need, if they multiply it with masks.

The gradient of a one-hot mask is made for every element and then multiplied with the mask's own
factors, one by one. Every reader is followed through what is linear in the value until, for all
that is left of it, some hots hold; elsewhere the value may as well be zero.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from jaxlib.mlir import ir

from hlo_passes.analysis.moves import Label, move_of
from hlo_passes.analysis.one_hot import Hot, OneHot, Terms
from hlo_passes.analysis.split_rules.reduce import reducer
from hlo_passes.ir.attributes import ints
from hlo_passes.ir.body import Body


class NotOnly(Exception):
    """Somebody reads elements of a value that no hot holds for; the message says who."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A value that is linear in the one that is followed.

    Attributes:
        dims: per dim its name; dims of the followed value are called 0, 1, ...
        terms: of which one holds wherever an element of the followed value has a share in it.
    """

    dims: tuple[Label, ...]
    terms: frozenset[frozenset[Hot]]


@dataclass
class _Follower:
    body: Body
    one_hot: OneHot
    rows: Collection[Label]
    value: ir.Value
    seen: dict[ir.Value, _Seen] = field(default_factory=dict)
    found: set[frozenset[Hot]] = field(default_factory=set)

    def run(self) -> frozenset[frozenset[Hot]]:
        start = len(self.value.type.shape)
        self._reach(self.value, _Seen(tuple(range(start)), frozenset({frozenset()})))
        for place in range(self.body.maker[self.value] + 1, len(self.body.ops)):
            op = self.body.ops[place]
            if any(value in self.seen for value in self.body.reads[place]):
                self._read(place, op)
        return frozenset(self.found)

    def _reach(self, value: ir.Value, seen: _Seen) -> None:
        """Go on from a value, unless hots hold for all its elements."""
        if all({hot.counted for hot in term}.issuperset(self.rows) for term in seen.terms):
            self.found |= seen.terms
        else:
            self.seen[value] = seen

    def _read(self, place: int, op: ir.Operation) -> None:
        kind = self.body.kind(place)
        mine = [i for i, value in enumerate(op.operands) if value in self.seen]
        if len(self.body.reads[place]) > len(op.operands):
            raise NotOnly(f"{self.body.where(place)} reads all of it")
        seen = self._after(kind, op, mine)
        if seen is None:
            raise NotOnly(f"{self.body.where(place)} reads all of it")
        for result in op.results:
            if kind != "optimization_barrier":
                self._reach(result, seen)
            elif op.operands[list(op.results).index(result)] in self.seen:
                self._reach(result, self.seen[op.operands[list(op.results).index(result)]])

    def _after(self, kind: str, op: ir.Operation, mine: list[int]) -> _Seen | None:
        """Return what is known of an op's result; None if it is not linear, or nobody knows."""
        seen = self.seen[op.operands[mine[0]]]
        if kind in ("optimization_barrier", "negate", "convert"):
            return seen
        if kind in ("add", "subtract"):
            others = [self.seen[op.operands[i]] for i in mine]
            if any(other.dims != seen.dims for other in others):
                return None
            return _Seen(seen.dims, frozenset().union(*(other.terms for other in others)))
        if kind == "divide" and mine == [0]:
            return seen
        if kind == "multiply" and len(mine) == 1:
            other = self.one_hot.terms(op.operands[1 - mine[0]])
            return _Seen(seen.dims, _with(seen.terms, other, seen.dims))
        if kind == "select" and 0 not in mine:
            if mine == [1] and op.operands[0].type.shape == op.operands[1].type.shape:
                other = self.one_hot.terms(op.operands[0])
                return _Seen(seen.dims, _with(seen.terms, other, seen.dims))
            return seen if len(mine) == 1 else None
        if kind == "dot_general" and len(mine) == 1:
            return self._multiplied(op, mine[0], seen)
        if kind == "reduce" and mine == [0] and reducer(op) == "add":
            gone = ints(op, "dimensions")
            dims = tuple(name for d, name in enumerate(seen.dims) if d not in gone)
            return _Seen(dims, seen.terms)
        move = move_of(op, op.results[0]) if len(op.results) == 1 else None
        return None if move is None else self._moved(op, seen, move[1])

    def _moved(
        self, op: ir.Operation, seen: _Seen, places: tuple[Label | None, ...]
    ) -> _Seen | None:
        dims: list[Label | None] = [None] * len(op.results[0].type.shape)
        for name, place in zip(seen.dims, places, strict=True):
            if place is not None:
                dims[place] = name
        fresh = tuple(self.one_hot.fresh() if name is None else name for name in dims)
        return _Seen(fresh, seen.terms)

    def _multiplied(self, op: ir.Operation, side: int, seen: _Seen) -> _Seen:
        *sides, _ = self.one_hot.dims_of(op)
        names: dict[Label, Label] = dict(zip(sides[side], seen.dims, strict=True))
        for name in sides[1 - side]:
            names.setdefault(name, self.one_hot.fresh())
        other = tuple(names[name] for name in sides[1 - side])
        terms = _with(seen.terms, self.one_hot.terms(op.operands[1 - side]), other)
        made = range(len(op.results[0].type.shape))
        return _Seen(tuple(names[d] for d in made), terms)


def _with(
    terms: frozenset[frozenset[Hot]], other: Terms, dims: tuple[Label, ...]
) -> frozenset[frozenset[Hot]]:
    """Let one of some terms of another value hold too, whose dims have the given names."""
    named = [term.renamed(dict(enumerate(dims))).hots for term in other]
    return frozenset(mine | hots for mine in terms for hots in named)


def terms_of_readers(
    body: Body, one_hot: OneHot, value: ir.Value, rows: Collection[Label]
) -> frozenset[frozenset[Hot]]:
    """Return terms of which one holds for every element of a value that is needed.

    Args:
        body: the block.
        one_hot: answers about its values.
        value: what is read.
        rows: dims of it for each of which a hot has to hold.

    Raises:
        NotOnly: if an element is needed for which none holds.
    """
    return _Follower(body, one_hot, rows, value).run()
