"""Facts about values: every value is looked at once, behind what it is made of, by one rule a kind.

A domain says what can be known of a value and what every kind of op makes of what is known of its
operands. An op without a rule gives the fact that is true of any value, and is named when somebody
asks why no more is known. What no trip of a loop changes is what the loop was given, as far as that
can be said without naming values outside the loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import name_op
from hlo_passes.ir.stablehlo.read import kind_of, maker_of


class NotProved(Exception):
    """Something is not as a rewrite needs it, or nobody knows; the message says what and why."""


type FactRule[D, F] = Callable[[D, ir.Operation, ir.Value], F]
"""(domain, op, one of its results) to the fact; what is known of its operands is at hand."""

type FactRules[D, F] = Mapping[str, FactRule[D, F]]
"""By the kind of op, without its dialect."""


class Domain[F](ABC):
    """What is known of values, as far as it was asked for. Holds handles: no edit may come between.

    Attributes:
        rules: what every kind of op makes of what is known of its operands.
        is_absolute: whether facts speak of no other values, so that they hold inside a loop, too.
    """

    rules: ClassVar[FactRules]
    is_absolute: ClassVar[bool] = False

    def __init__(self) -> None:
        self._known: dict[ir.Value, F] = {}

    @abstractmethod
    def unknown(self, value: ir.Value) -> F:
        """Return what is true of any value of this type."""

    def of(self, value: ir.Value) -> F:
        """Return what is known of a value."""
        todo = [value]
        while todo:
            current = todo[-1]
            waits = [v for v in self._made_of(current) if v not in self._known]
            if waits and current not in self._known:
                todo.extend(waits)
                continue
            if current not in self._known:
                self._known[current] = self._find(current)
            todo.pop()
        return self._known[value]

    def say(self, value: ir.Value, fact: F) -> None:
        """Note what is known of a value, before anybody asks for what is made of it."""
        self._known[value] = fact

    def has(self, value: ir.Value) -> bool:
        """Whether somebody has asked for a value, or said what is known of it."""
        return value in self._known

    def is_known(self, value: ir.Value) -> bool:
        """Whether more is known of a value than is true of any."""
        return self.of(value) != self.unknown(value)

    def blame(self, value: ir.Value) -> str:
        """Name the op, or the input, behind which nothing is known that makes a value known."""
        while not self.is_known(value):
            waits = [v for v in self._made_of(value) if not self.is_known(v)]
            if not waits:
                break
            value = waits[0]
        maker = maker_of(value)
        return "an input of the step" if maker is None else name_op(maker)

    def _made_of(self, value: ir.Value) -> list[ir.Value]:
        """Return the values that have to be known before this one."""
        maker = maker_of(value)
        if maker is None:
            given = self._given(value)
            return [] if given is None else [given]
        return list(maker.operands) if kind_of(maker) in self.rules else []

    def _given(self, value: ir.Value) -> ir.Value | None:
        return _given_to_loop(value) if self.is_absolute else None

    def _find(self, value: ir.Value) -> F:
        maker = maker_of(value)
        if maker is None:
            given = self._given(value)
            return self.unknown(value) if given is None else self._known[given]
        rule = self.rules.get(kind_of(maker))
        return self.unknown(value) if rule is None else rule(self, maker, value)


def _given_to_loop(value: ir.Value) -> ir.Value | None:
    """Return what a loop was given for a value that no trip changes; None if it is no such value.

    XLA moves what is the same in every trip out of loops.
    """
    argument = ir.BlockArgument(value)
    block, number = argument.owner, argument.arg_number
    loop = block.owner.operation
    if loop.name != "stablehlo.while" or block != loop.regions[1].blocks[0]:
        return None
    end = block.operations[len(block.operations) - 1].operation
    return loop.operands[number] if end.operands[number] == value else None
