"""What stands in the rows of a buffer that nobody sent: zeros at first, then what ops make of them.

A product with such a row is zero if either side is: what the other holds then is not asked, as it
is not in the step that is cut, whose result were lost if that was no number.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from jaxlib.mlir import ir

from hlo_passes.analysis.counting import direction_of
from hlo_passes.analysis.cuts import Cut, OpSplit
from hlo_passes.analysis.split_rules.pointwise import splat_of
from hlo_passes.analysis.split_rules.reduce import reducer
from hlo_passes.ir.body import Body


class Beyond:
    """The number of a row behind all that were sent, whatever it is."""


BEYOND: Final = Beyond()

type Idle = float | Beyond | None
"""The number that fills a row; None if none is known."""

_SAME = frozenset({
    "broadcast_in_dim", "concatenate", "dynamic_slice", "optimization_barrier",
    "reshape", "reverse", "slice", "transpose",
})  # fmt: skip
_KEEPS_ZERO = frozenset({
    "abs", "cbrt", "erf", "exponential_minus_one", "log_plus_one", "negate", "round_nearest_even",
    "sign", "sine", "sqrt", "square", "tan", "tanh",
})  # fmt: skip
_FOLD: Mapping[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "maximum": max,
    "minimum": min,
}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
}


@dataclass
class IdleRows:
    """Knows what stands in rows that nobody sent.

    Attributes:
        body: the block.
    """

    body: Body
    _known: dict[ir.Value, Idle] = field(default_factory=dict)

    def say(self, value: ir.Value, idle: Idle) -> None:
        """Note what fills the idle rows of a value."""
        self._known[value] = idle

    def of(self, value: ir.Value) -> Idle:
        """Return what fills the idle rows of a value."""
        return self._known.get(value)

    def follow(self, place: int, value: ir.Value, split: OpSplit) -> None:
        """Work out what an op makes of idle rows, unless it is known."""
        if value in self._known:
            return
        op = self.body.ops[place]
        sides = [
            self.of(v) if isinstance(state, Cut) else self._constant(v)
            for v, state in zip(op.operands, split.operands, strict=True)
        ]
        self._known[value] = self._made(op, self.body.kind(place), sides)

    def _constant(self, value: ir.Value) -> float | None:
        """Return the number that a value holds everywhere, in every run."""
        place, kind = self.body.made_by(value)
        while kind in ("broadcast_in_dim", "reshape", "convert"):
            value = self.body.ops[place].operands[0]
            place, kind = self.body.made_by(value)
        return _splat(self.body.ops[place]) if kind == "constant" else None

    def _made(self, op: ir.Operation, kind: str, sides: list[Idle]) -> Idle:
        if kind == "constant":
            return _splat(op)
        if kind in _SAME:
            values = sides[:1] if kind == "dynamic_slice" else sides
            return values[0] if values and all(v == values[0] for v in values) else None
        if kind == "convert":
            kept = sides[0] in (0, 1) or sides[0] is BEYOND
            return sides[0] if kept else None
        if kind in ("multiply", "dot_general"):
            return 0 if any(side == 0 for side in sides) else None
        if kind == "reduce":
            keeps = reducer(op) in ("and", "or", "maximum", "minimum")
            same = len(sides) == 2 and sides[0] == sides[1] and keeps
            return sides[0] if same or (sides[0] == 0 and reducer(op) == "add") else None
        if kind == "select":
            if isinstance(sides[0], bool | int | float):
                return sides[1] if sides[0] else sides[2]
            return sides[1] if sides[1] == sides[2] else None
        if kind == "and":
            return 0 if any(side == 0 for side in sides) else _both(sides)
        if kind == "or":
            return _both(sides)
        if kind in _KEEPS_ZERO:
            return 0 if sides[0] == 0 else None
        return self._folded(op, kind, sides)

    def _folded(self, op: ir.Operation, kind: str, sides: list[Idle]) -> Idle:
        numbers = [side for side in sides if isinstance(side, bool | int | float)]
        if len(numbers) != 2 or len(sides) != 2 or not all(map(math.isfinite, numbers)):
            return None
        if kind == "compare":
            return int(_COMPARE[direction_of(op)](*numbers))
        return _FOLD[kind](*numbers) if kind in _FOLD else None


def _both(sides: list[Idle]) -> Idle:
    """Return what is the same on both sides of a logical op."""
    return sides[0] if sides[0] == sides[1] else None


def _splat(op: ir.Operation) -> float | None:
    number = splat_of(op)
    is_number = isinstance(number, ir.IntegerAttr | ir.FloatAttr | ir.BoolAttr)
    return number.value if is_number else None
