"""Orders of sorted rows that come from a sort, not from counts.

`argsort` of the choices says which choice lies at a place, and `argsort` of that says at which
place a choice lies: sorting a permutation gives its inverse. Tokens are read and written by what
follows from such an order element by element, as `order // choices` does: the token of a choice.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.analysis.bounds import is_index
from hlo_passes.analysis.counting import Counting, direction_of, is_ascending
from hlo_passes.analysis.cuts import NoSplit
from hlo_passes.analysis.dropless.routing import Routing, made_in_order, without_wrap
from hlo_passes.analysis.dropless.tables import Table, Tables
from hlo_passes.ir.attributes import integer, shape_of
from hlo_passes.ir.body import Body

type Side = Literal["places", "choices"]
"""What elements stand for: `places` of the rows of choices, or `choices` by place."""

_POINTWISE = frozenset({
    "add", "and", "compare", "convert", "divide", "maximum", "minimum", "multiply", "negate", "or",
    "remainder", "select", "sign", "subtract",
})  # fmt: skip


@dataclass(frozen=True)
class Orders:
    """Answers what indices that follow from a sort stand for.

    Attributes:
        body: the block.
        numbers: its value numbers.
        counting: what its values count.
    """

    body: Body
    numbers: dict[ir.Value, int]
    counting: Counting

    def read(self, indices: ir.Value, routing: Routing) -> tuple[Side, np.ndarray]:
        """Return what indices list, and what they say of each: `f(0), f(1), ...`.

        Raises:
            NoSplit: if they do not follow from a sort by expert, or it is not proved.
        """
        leaves: dict[ir.Value, None] = {}
        self._find_leaves(indices, leaves)
        if len(leaves) != 1:
            raise NoSplit("rows are placed neither by counts of choices nor by a sort")
        (order,) = leaves
        side = self._side(order, routing)
        known = Tables(self.body, {}, {}, 0, {})
        known.assume(order, Table(np.arange(routing.rows).reshape(shape_of(order))))
        return side, known.of(indices, 0).at.ravel()

    def _find_leaves(self, value: ir.Value, leaves: dict[ir.Value, None]) -> None:
        """Collect the values, constants aside, that a value follows from element by element."""
        place, kind, value = made_in_order(self.body, value)
        if self.counting.splat(value) is not None:
            return
        if kind == "sort" or kind not in _POINTWISE:
            if kind == "broadcast_in_dim" and self._is_fixed(value):
                return
            leaves[value] = None
            return
        for operand in self.body.ops[place].operands:
            self._find_leaves(operand, leaves)

    def _is_fixed(self, value: ir.Value) -> bool:
        """Whether all elements of a repeated value are one number that no input changes."""
        place, _ = self.body.made_by(value)
        source = self.body.ops[place].operands[0]
        if shape_of(source):
            return False
        try:
            return not Tables(self.body, {}, {}, 0, {}).of(source, 0).counts
        except NoSplit:
            return False

    def _side(self, order: ir.Value, routing: Routing) -> Side:
        place, kind, order = made_in_order(self.body, order)
        op = self.body.ops[place]
        if kind != "sort" or not _is_argsort(self.body, op) or order != op.results[1]:
            raise NoSplit("rows are placed neither by counts of choices nor by a sort")
        keys = op.operands[0]
        ids = without_wrap(self.body, self.numbers, self.counting, keys)
        if self.counting.view(ids).is_like(routing.chosen.expert):
            if not is_index(self.counting, ids, routing.experts):
                raise NoSplit("rows may be sorted by experts that do not exist")
            return "choices"
        side, found = self.read(keys, routing)
        if not np.array_equal(found, np.arange(routing.rows)):
            raise NoSplit("rows are sorted by something else than an order")
        return "places" if side == "choices" else "choices"


def _is_argsort(body: Body, op: ir.Operation) -> bool:
    """Whether a sort is stable, ascending by its first operand, and carries places along."""
    if len(op.operands) != 2 or len(shape_of(op.operands[0])) != 1:
        return False
    place, kind = body.made_by(op.operands[1])
    element = ir.RankedTensorType(op.operands[1].type).element_type
    counted = kind == "iota" and integer(body.ops[place], "iota_dimension") == 0
    counted = counted and isinstance(element, ir.IntegerType) and element.width >= 32
    block = op.regions[0].blocks[0]
    inside = [view.operation for view in block.operations]
    return (
        counted
        and ir.BoolAttr(op.attributes["is_stable"]).value
        and len(inside) == 2
        and inside[0].name == "stablehlo.compare"
        and direction_of(inside[0]) == "LT"
        and list(inside[0].operands) == list(block.arguments)[:2]
        and list(inside[1].operands) == list(inside[0].results)
        and is_ascending(op)
    )
