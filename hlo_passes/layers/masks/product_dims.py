"""What the dims of a product with a mask count: tokens, rows of a buffer, or elements of a row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.masks.address import Dims
from hlo_passes.proofs.element_moves import DimName, move_of
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.one_hot import Hot, OneHot
from hlo_passes.proofs.only_where import terms_of_readers

type ProductRole = Literal["dispatch", "combine", "gradient"]

type Names = tuple[tuple[DimName, ...], tuple[DimName, ...]]
"""Per operand of a product, the names of its dims; those of the result are 0, 1, ..."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the dims of a product count, and which rows its tokens have.

    Attributes:
        dims: its dims; rows in any order.
        terms: hots, each of which say where a token has a row.
        is_one: whether the mask is 1 there.
    """

    dims: Dims
    terms: tuple[frozenset[Hot], ...]
    is_one: bool = False


@dataclass
class ProductDims:
    """Answers what the dims of products count.

    Attributes:
        body: the block.
        one_hot: answers where masks are not zero.
    """

    body: Body
    one_hot: OneHot
    _named: dict[int, Names] = field(default_factory=dict)

    def names(self, place: int) -> Names:
        """Name the dims of a product's operands after those of its result."""
        if place not in self._named:
            left, right, _ = self.one_hot.dims_of(self.body.ops[place])
            self._named[place] = tuple(left), tuple(right)
        return self._named[place]

    def moved(self, op: ir.Operation, names: tuple[DimName, ...]) -> tuple[DimName, ...] | None:
        """Name the dims of what an op moves, given those of its operand; fresh ones for new."""
        if op.name.endswith("convert"):
            return names
        step = move_of(op, op.results[0])
        if step is None:
            return None
        placed = {p: name for p, name in zip(step[1], names, strict=True) if p is not None}
        rank = len(shape_of(op.results[0]))
        return tuple(placed[d] if d in placed else self.one_hot.fresh() for d in range(rank))

    def of_mask(self, place: int, side: int, role: ProductRole) -> Meaning | None:
        """Return what a product's dims count, if an operand is a mask; None if it is none.

        Args:
            place: the product.
            side: which operand may be the mask.
            role: what the product would do.

        Raises:
            NotProved: if it is a mask, and not of one row a token and choice.
        """
        value, dims = self.body.ops[place].operands[side], self._dims(place, side, role)
        mine = dict(enumerate(self.names(place)[side]))
        terms = [term.renamed(mine) for term in self.one_hot.terms(value)]
        if not terms or not dims.tokens:
            return None
        known = set.intersection(*({hot.counted for hot in term.hots} for term in terms))
        rows = _addressed(dims, known)
        if rows is None:
            return None
        if len(terms) > 1:
            raise NotProved("its mask is a sum of several, and nothing says that their rows differ")
        (term,) = terms
        return Meaning(Dims(dims.sizes, dims.tokens, rows), (term.hots,), term.exact)

    def of_gradient(self, place: int, side: int) -> Meaning:
        """Return what the dims of a mask's gradient count.

        Args:
            place: the product.
            side: which operand is the buffer.

        Raises:
            NotProved: if it is no such gradient.
            NotProved: if others than rows of tokens are needed.
        """
        dims = self._dims(place, side, "gradient")
        own = [r for r in dims.rows if r not in dims.tokens and dims.sizes[r] > 1]
        if not dims.tokens or not own:
            raise NotProved("it is no product with a mask")
        terms = terms_of_readers(self.body, self.one_hot, self.body.ops[place].results[0], own)
        if not terms:
            raise NotProved("nobody needs it")
        known = set.intersection(*({hot.counted for hot in hots} for hots in terms))
        rows = _addressed(dims, known)
        assert rows is not None
        return Meaning(Dims(dims.sizes, dims.tokens, rows), tuple(terms))

    def _dims(self, place: int, side: int, role: ProductRole) -> Dims:
        """Sort the dims of a product by what they would count in a role."""
        names, sizes = self.names(place), self._sizes(place)
        mine, other = names[side], names[1 - side]
        free, rest = _not_in(mine, other), _not_in(other, mine)
        shared = _not_in(mine, free)
        batch = [n for n in shared if n >= 0 and sizes[n] > 1]
        summed = [n for n in shared if n < 0]
        rows, tokens = {
            "dispatch": (free, summed),
            "combine": (summed, free),
            "gradient": (free, rest),
        }[role]
        return Dims(sizes, (*batch, *(t for t in tokens if sizes[t] > 1)), (*batch, *rows))

    def _sizes(self, place: int) -> dict[DimName, int]:
        """Return how long the dims of a product are, by name."""
        sides = zip(self.body.ops[place].operands, self.names(place), strict=True)
        pairs = (zip(labels, shape_of(value), strict=True) for value, labels in sides)
        return dict(pair for side in pairs for pair in side)


def _not_in(names: Sequence[DimName], others: Sequence[DimName]) -> list[DimName]:
    return [name for name in names if name not in others]


def _addressed(dims: Dims, known: set[DimName]) -> tuple[DimName, ...] | None:
    """Return the dims that an address has columns for; None if one of them is not known.

    A dim of size 1 needs none.
    """
    rows = tuple(r for r in dims.rows if r in known or dims.sizes[r] > 1)
    own = [r for r in rows if r not in dims.tokens]
    return rows if own and known.issuperset(own) else None
