"""What readers outside a row path want of it whole, and how they get it.

    came -> dot -> h -> tanh -> g -> dot -> sent        h: what tanh's gradient reads, outside
                                                        g: what a weight gradient reads, outside

Either the rows of every part are put into a whole buffer (`h`), or a cheap op runs once more, on
whole values, behind the last part (`g = tanh(h)`). A value is put together itself where that is no
more bytes than what it would be made of.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxlib.mlir import ir

from hlo_passes.cut.rules import layout, pointwise
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.ir.types import TensorType
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.fills import Fills

CHEAP = frozenset({*pointwise.RULES, *layout.RULES} - {"iota"})
"""Kinds of ops that may run again rather than have their results put together."""


@dataclass(frozen=True)
class RowExports:
    """What is there whole behind the last part.

    Attributes:
        kept: places of the ops that run again, on whole values.
        values: what is put together row by row; zero in rows that nothing came for.
    """

    kept: frozenset[int]
    values: tuple[ir.Value, ...]

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return sum(map(_bytes, self.values))


def find_exports(body: Body, came: ir.Value, inside: Collection[int], last: int) -> RowExports:
    """Decide what is put together, and what is made of that.

    Args:
        body: the block.
        came: the rows that a path begins with.
        inside: places of its ops.
        last: place of the exchange that takes its results away.

    Raises:
        NotProved: if a value that has to be put together is not zero in rows that nothing came for.
    """
    path = _Path(body, came, frozenset(inside))
    read = [
        value
        for place in sorted(inside)
        for value in body.ops[place].results
        if any(user not in path.inside and user != last for user in body.users.get(value, ()))
    ]
    direct: frozenset[ir.Value] = frozenset()
    best = path.made_of(read, direct)
    for value in read:
        if path.fills.is_zero(value):
            other = path.made_of(read, direct | {value})
            if other.bytes <= best.bytes:
                direct, best = direct | {value}, other
    for value in best.values:
        if not path.fills.is_zero(value):
            raise NotProved(f"{body.where(body.maker[value])} is read by others, and is not zero "
                            "in rows that nothing came for")  # fmt: skip
    return best


@dataclass(frozen=True)
class _Path:
    body: Body
    came: ir.Value
    inside: frozenset[int]

    def made_of(self, read: Sequence[ir.Value], direct: Collection[ir.Value]) -> RowExports:
        """Go back from values through cheap ops, as far as `direct` ones and ops that are not."""
        kept: set[int] = set()
        starts: dict[ir.Value, None] = {}
        todo = list(read)
        while todo:
            value = todo.pop(0)
            maker, kind = self.body.made_by(value)
            if maker not in self.inside or maker in kept:
                continue
            if kind not in CHEAP or value in direct:
                starts[value] = None
                continue
            kept.add(maker)
            todo.extend(self.body.ops[maker].operands)
        return RowExports(frozenset(kept), tuple(starts))

    @cached_property
    def fills(self) -> Fills:
        """What fills rows that nothing came for, whatever else is read."""
        fills = Fills(Constants())
        fills.say_zero(self.came)
        for place in self.inside:
            for value in self.body.ops[place].operands:
                if self.body.maker.get(value, -1) not in self.inside and value != self.came:
                    fills.say_whole(value)
        return fills


def _bytes(value: ir.Value) -> int:
    element = ir.RankedTensorType(value.type).element_type
    return TensorType(shape_of(value), str(element)).bytes
