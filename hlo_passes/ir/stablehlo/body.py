"""A block of StableHLO with its edges at hand: who makes a value, who reads it."""

from dataclasses import dataclass
from functools import cached_property

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.to_graph import captured, place_of


@dataclass(frozen=True, eq=False)
class Body:
    """The ops of a block, in order. Holds handles: build a new one after every edit.

    Attributes:
        block: the block.
    """

    block: ir.Block

    @cached_property
    def ops(self) -> list[ir.Operation]:
        """Every op of the block, its terminator last."""
        return [view.operation for view in self.block.operations]

    @cached_property
    def maker(self) -> dict[ir.Value, int]:
        """From a result to the place of the op that makes it; arguments are absent."""
        return {value: i for i, op in enumerate(self.ops) for value in op.results}

    @cached_property
    def reads(self) -> list[list[ir.Value]]:
        """Per op, the values that it reads, captured ones of its regions last."""
        return [[*op.operands, *(captured(op) if len(op.regions) else ())] for op in self.ops]

    @cached_property
    def users(self) -> dict[ir.Value, list[int]]:
        """From a value to the places of the ops that read it, ascending."""
        found: dict[ir.Value, list[int]] = {}
        for i, values in enumerate(self.reads):
            for value in dict.fromkeys(values):
                found.setdefault(value, []).append(i)
        return found

    def kind(self, i: int) -> str:
        """Return the kind of an op, without its dialect."""
        return self.ops[i].name.rpartition(".")[2]

    def made_by(self, value: ir.Value) -> tuple[int, str]:
        """Return place and kind of the op that makes a value; (-1, "") for an argument."""
        i = self.maker.get(value, -1)
        return (i, self.kind(i)) if i >= 0 else (-1, "")

    def only_user(self, value: ir.Value) -> int:
        """Return the place of the one op that reads a value, -1 if there are more or none."""
        users = self.users.get(value, [])
        return users[0] if len(users) == 1 else -1

    def where(self, i: int) -> str:
        """Name an op for a reader: kind, scope, and `file:line` where it is known."""
        return name_op(self.ops[i])


def name_op(op: ir.Operation) -> str:
    """Name an op for a reader: kind, scope, and `file:line` where it is known."""
    scope, source = place_of(op.location)
    tail = f" ({source})" if source else ""
    return f"{op.name.rpartition('.')[2]} {scope}{tail}".replace("  ", " ")
