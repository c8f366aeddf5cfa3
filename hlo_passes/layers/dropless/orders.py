"""Orders of sorted rows that come from a sort, not from counts.

`argsort` of the choices says which choice lies at a place, and `argsort` of that says at which
place a choice lies: sorting a permutation gives its inverse. Tokens are read and written by what
follows from such an order element by element, as `order // choices` does: the token of a choice.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.cut.rules import pointwise
from hlo_passes.ir.stablehlo.read import kind_of, shape_of
from hlo_passes.layers.dropless.routing import CountedChoices, without_wrap
from hlo_passes.layers.dropless.tables import Table, Tables
from hlo_passes.proofs.arithmetic import direction_of
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.elements import made_in_order
from hlo_passes.proofs.engine import NotProved

type Side = Literal["places", "choices"]
"""What elements stand for: `places` of the rows of choices, or `choices` by place."""

_POINTWISE = frozenset(Tables.rules).intersection(pointwise.RULES) - {"constant", "iota"}


@dataclass(frozen=True)
class Orders:
    """Answers what indices that follow from a sort stand for.

    Attributes:
        counting: what the values of the block count.
    """

    counting: Counting

    def read(self, indices: ir.Value, routing: CountedChoices) -> tuple[Side, np.ndarray]:
        """Return what indices list, and what they say of each: `f(0), f(1), ...`.

        Raises:
            NotProved: if they do not follow from a sort by expert, or it is not proved.
        """
        leaves: dict[ir.Value, None] = {}
        self._find_leaves(indices, leaves)
        if len(leaves) != 1:
            raise NotProved("rows are placed neither by counts of choices nor by a sort")
        (order,) = leaves
        side = self._side(order, routing)
        known = Tables(self.counting.body, {}, {}, 0, {})
        known.say(order, Table(np.arange(routing.rows).reshape(1, *shape_of(order))))
        return side, known.of(indices).at.ravel()

    def _find_leaves(self, value: ir.Value, leaves: dict[ir.Value, None]) -> None:
        """Collect the values, constants aside, that a value follows from element by element."""
        op, value = made_in_order(value)
        if self.counting.constants.number(value) is not None:
            return
        if op is None or kind_of(op) not in _POINTWISE:
            if op is not None and kind_of(op) == "broadcast_in_dim" and self._is_fixed(op):
                return
            leaves[value] = None
            return
        for operand in op.operands:
            self._find_leaves(operand, leaves)

    def _is_fixed(self, repeat: ir.Operation) -> bool:
        """Whether all elements of a repeated value are one number that no input changes."""
        source = repeat.operands[0]
        if shape_of(source):
            return False
        try:
            return not Tables(self.counting.body, {}, {}, 0, {}).of(source).counts
        except NotProved:
            return False

    def _side(self, order: ir.Value, routing: CountedChoices) -> Side:
        op, order = made_in_order(order)
        if op is None or not self._is_argsort(op) or order != op.results[1]:
            raise NotProved("rows are placed neither by counts of choices nor by a sort")
        keys = op.operands[0]
        ids = without_wrap(self.counting, keys)
        if self.counting.elements.of(ids).is_like(routing.chosen.expert):
            if not self.counting.ranges.is_index(ids, routing.experts):
                raise NotProved("rows may be sorted by experts that do not exist")
            return "choices"
        side, found = self.read(keys, routing)
        if not np.array_equal(found, np.arange(routing.rows)):
            raise NotProved("rows are sorted by something else than an order")
        return "places" if side == "choices" else "choices"

    def _is_argsort(self, op: ir.Operation) -> bool:
        """Whether a sort is stable, ascending by its first operand, and carries places along."""
        is_pair = kind_of(op) == "sort" and len(op.operands) == 2
        if not is_pair or len(shape_of(op.operands[0])) != 1:
            return False
        block = op.regions[0].blocks[0]
        inside = [view.operation for view in block.operations]
        return (
            self.counting.constants.counts_along(op.operands[1]) == 0
            and ir.BoolAttr(op.attributes["is_stable"]).value
            and len(inside) == 2
            and inside[0].name == "stablehlo.compare"
            and direction_of(inside[0]) == "LT"
            and list(inside[0].operands) == list(block.arguments)[:2]
            and list(inside[1].operands) == list(inside[0].results)
        )
