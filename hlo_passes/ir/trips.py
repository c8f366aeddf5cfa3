"""How often a counted loop of StableHLO runs.

A loop is counted if it goes on while a counter compares with a constant, and a trip moves the
counter by a constant, in as many additions as it likes: an unrolled loop counts several times.
"""

import re
from dataclasses import dataclass

from jaxlib.mlir import ir

MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}
"""A comparison with its operands changed for each other."""

_INTEGER = re.compile(r"(u?)i(\d+)")


@dataclass(frozen=True, slots=True)
class Counter:
    """How a loop counts.

    Attributes:
        first: where its counter starts.
        step: what a trip adds to it.
        limit: what it is compared with.
        direction: the loop goes on while the counter is `LT`, `LE`, `GT`, `GE` or `NE` the limit.
    """

    first: int
    step: int
    limit: int
    direction: str

    @staticmethod
    def of(
        first: int | None, step: int | None, limit: int | None, direction: str, dtype: str
    ) -> "Counter | None":
        """Return a counter; None where a number is not known, or it would overflow.

        Args:
            first, step, limit, direction: as in the attributes.
            dtype: of the elements that it is kept in.
        """
        if first is None or step is None or limit is None:
            return None
        found = Counter(first, step, limit, direction)
        return found if holds(dtype, found.last) else None

    @property
    def trips(self) -> int:
        """How often the loop runs; 0 if it never does, or never stops."""
        way, rest = self.limit - self.first, 0
        step = self.step
        if self.direction in ("GT", "GE"):
            way, step = -way, -step
        if step == 0 or (step < 0 and self.direction != "NE"):
            return 0
        if self.direction == "NE":
            way, rest = divmod(way, step)
            return max(way, 0) if rest == 0 else 0
        return max(way // step + 1 if self.direction in ("LE", "GE") else -(-way // step), 0)

    @property
    def last(self) -> int:
        """The counter after the last trip."""
        return self.first + self.trips * self.step


def holds(dtype: str, number: int) -> bool:
    """Whether an element type is one of integers and can hold a number."""
    match = _INTEGER.fullmatch(dtype)
    if match is None:
        return False
    bits = int(match[2])
    low, high = (0, 1 << bits) if match[1] else (-(1 << bits - 1), 1 << bits - 1)
    return low <= number < high


def counter_of(loop: ir.Operation) -> Counter | None:
    """Return how a loop counts; None if it does not, or its counter would overflow."""
    condition, body = (region.blocks[0] for region in loop.regions)
    compare = _maker(condition.operations[len(condition.operations) - 1].operands[0])
    if compare is None or compare.name != "stablehlo.compare":
        return None
    direction = str(compare.attributes["comparison_direction"]).split()[-1].strip(">")
    if direction not in MIRRORED:
        return None
    counter, limit = compare.operands
    if _is_mirrored(compare, condition, body):
        counter, limit, direction = limit, counter, MIRRORED[direction]
    at = _place(counter, condition)
    if at is None:
        return None
    return Counter.of(
        number_of(loop.operands[at]), _step(body, counter), _limit(loop, limit), direction,
        str(ir.RankedTensorType(counter.type).element_type),
    )  # fmt: skip


def _is_mirrored(compare: ir.Operation, condition: ir.Block, body: ir.Block) -> bool:
    """Whether a loop compares its limit with its counter: the second operand is what moves."""
    left, right = compare.operands
    if _place(left, condition) is None:
        return True
    return _step(body, left) == 0 and _place(right, condition) is not None


def number_of(value: ir.Value) -> int | None:
    """Return an integer that is the same in every element of a constant; None for other values."""
    maker = _maker(value)
    if maker is None or maker.name != "stablehlo.constant":
        return None
    attribute = maker.attributes["value"]
    if not isinstance(attribute, ir.DenseIntElementsAttr) or not attribute.is_splat:
        return None
    return int(attribute[0])


def _limit(loop: ir.Operation, value: ir.Value) -> int | None:
    """Return the number that a loop compares with: a constant, also one that trips hand on."""
    condition, body = (region.blocks[0] for region in loop.regions)
    at = _place(value, condition)
    if at is None:
        return number_of(value)
    returned = body.operations[len(body.operations) - 1].operands[at]
    return number_of(loop.operands[at]) if returned == body.arguments[at] else None


def _step(body: ir.Block, counter: ir.Value) -> int | None:
    """Return what a trip adds to a counter; None if that is no constant."""
    if not isinstance(counter, ir.BlockArgument):
        return None
    at, total = counter.arg_number, 0
    value = body.operations[len(body.operations) - 1].operands[at]
    while value != body.arguments[at]:
        maker = _maker(value)
        if maker is None or maker.name not in ("stablehlo.add", "stablehlo.subtract"):
            return None
        left, right = maker.operands
        if maker.name == "stablehlo.add" and number_of(left) is not None:
            left, right = right, left
        if (by := number_of(right)) is None:
            return None
        total += by if maker.name == "stablehlo.add" else -by
        value = left
    return total


def _place(value: ir.Value, block: ir.Block) -> int | None:
    """Return which argument of a block a value is."""
    if isinstance(value, ir.BlockArgument) and value.owner == block:
        return value.arg_number
    return None


def _maker(value: ir.Value) -> ir.Operation | None:
    return None if isinstance(value, ir.BlockArgument) else value.owner.operation
