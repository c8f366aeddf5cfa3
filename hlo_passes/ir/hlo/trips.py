"""How often a loop of HLO runs: as XLA has counted, else as the loop itself counts.

XLA writes the number beside a loop late. In a module that it has not scheduled, a loop may count
all the same: on `compare(counter, constant)`, with additions in its body, as in `trips`.
"""

import re
from dataclasses import dataclass

from hlo_passes.ir.hlo.text import Computation, HloText, Instruction
from hlo_passes.ir.trips import MIRRORED, Counter

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_NUMBER = re.compile(r"\s*(-?\d+)\s*(?:$|[),])")


def trips_of(loop: Instruction, around: Computation, module: HloText) -> int:
    """Return how often a loop runs; 0 where that is not known.

    Args:
        loop: a `while`.
        around: the computation that it is in.
        module: with its condition and body.
    """
    if match := _KNOWN.search(loop.attributes):
        return int(match[1])
    counter = None if module.is_scheduled else _counter_of(loop, around, module)
    return counter.trips if counter else 0


@dataclass(frozen=True)
class _Block:
    """A computation whose only parameter is what trips carry."""

    lines: dict[str, Instruction]
    root: Instruction

    @staticmethod
    def of(module: HloText, names: tuple[str, ...]) -> "_Block | None":
        """Return the block of a name; None where there is none."""
        found = module.computations.get(next(iter(names), ""))
        if found is None or not found.instructions:
            return None
        lines = found.instructions
        return _Block.of_lines(lines, next((line for line in lines if line.is_root), lines[-1]))

    @staticmethod
    def of_lines(lines: list[Instruction], root: Instruction) -> "_Block":
        """Return the block of instructions that end in `root`."""
        return _Block({line.name: line for line in lines}, root)

    def place(self, name: str) -> int | None:
        """Return which leaf of what trips carry a value is."""
        line = self.lines[name]
        if line.opcode != "get-tuple-element":
            return None
        is_carried = self.lines[line.operands[0]].opcode == "parameter"
        return int(line.attribute("index")) if is_carried else None

    def number(self, name: str) -> int | None:
        """Return the integer that a value is; None if it is no such constant."""
        line = self.lines[name]
        match = _NUMBER.match(line.attributes) if line.opcode == "constant" else None
        return int(match[1]) if match else None

    def step(self, at: int) -> int | None:
        """Return what a trip adds to leaf `at`; None if that is no constant."""
        if self.root.opcode != "tuple" or at >= len(self.root.operands):
            return None
        name, total = self.root.operands[at], 0
        while self.place(name) != at:
            line = self.lines[name]
            if line.opcode not in ("add", "subtract"):
                return None
            left, right = line.operands
            if line.opcode == "add" and self.number(left) is not None:
                left, right = right, left
            if (by := self.number(right)) is None:
                return None
            total += by if line.opcode == "add" else -by
            name = left
        return total


def _counter_of(loop: Instruction, around: Computation, module: HloText) -> Counter | None:
    """Return how a loop counts; None if it does not, or its counter would overflow."""
    condition = _Block.of(module, loop.called("condition"))
    body = _Block.of(module, loop.called("body"))
    if condition is None or body is None or condition.root.opcode != "compare":
        return None
    outside = _Block.of_lines(around.instructions, loop)
    start = outside.lines[loop.operands[0]]
    direction = condition.root.attribute("direction")
    if start.opcode != "tuple" or direction not in MIRRORED:
        return None
    counter, limit = condition.root.operands
    if _is_mirrored(condition, body):
        counter, limit, direction = limit, counter, MIRRORED[direction]
    at, other = condition.place(counter), condition.place(limit)
    if at is None:
        return None
    to = condition.number(limit)
    if other is not None and body.step(other) == 0:
        to = outside.number(start.operands[other])
    return Counter.of(
        outside.number(start.operands[at]), body.step(at), to, direction,
        condition.lines[counter].leaves[0].dtype,
    )  # fmt: skip


def _is_mirrored(condition: _Block, body: _Block) -> bool:
    """Whether a loop compares its limit with its counter: the second operand is what moves."""
    at, other = map(condition.place, condition.root.operands)
    return at is None or (other is not None and body.step(at) == 0)
