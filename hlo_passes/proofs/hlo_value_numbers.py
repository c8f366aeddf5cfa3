"""Value numbers of HLO: two instructions of a computation with the same number compute the same.

Called computations count by what they do, not by their names, of which XLA makes a new one for
every copy. Copies have the number of what they copy. A bitcast may turn memory around, so that it
counts with both its shapes as printed, layouts included.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.text import Computation, Instruction

_IGNORED = re.compile(
    r", (?:metadata|frontend_attributes|sharding|origin|control-predecessors)="
    r'\{(?:[^{}"]|"(?:[^"\\]|\\.)*"|\{[^{}]*\})*\}|, channel_id=\d+'
)
"""What does not bear on results. What is nested deeper is kept: then equal ops may look unequal,
never the other way round."""

_NAME = re.compile(r"%([\w.\-]+)")
_ALONE = frozenset({"rng", "infeed", "recv", "recv-done", "partition-id", "replica-id"})


@dataclass
class HloNumbering:
    """Numbers the instructions of a module.

    Attributes:
        module: the module.
    """

    module: ScheduledModule
    _bodies: dict[str, int | str] = field(default_factory=dict)
    _spelled: dict[Hashable, int] = field(default_factory=dict)

    def of(self, name: str) -> tuple[int | None, ...]:
        """Return the number of every instruction of a computation; None for those of constants."""
        found = self._numbers(self.module.parsed.computations[name])
        return tuple(number if varies else None for number, varies in found)

    @cached_property
    def _lines(self) -> list[str]:
        return self.module.text.split("\n")

    def _numbers(self, computation: Computation) -> list[tuple[int, bool]]:
        """Return (number, whether it depends on a parameter) per instruction."""
        known: dict[str, tuple[int, bool]] = {}
        shapes: dict[str, str] = {}
        given: dict[Hashable, int] = {}
        for ins in computation.instructions:
            operands = [known[name] for name in ins.operands]
            varies = ins.opcode == "parameter" or any(v for _, v in operands)
            shapes[ins.name] = self._shape(ins)
            if ins.opcode in ("copy", "opt-barrier") and len(operands) == 1:
                known[ins.name] = operands[0]
                continue
            key = self._key(ins, tuple(number for number, _ in operands))
            if ins.opcode == "bitcast":
                key = key, shapes[ins.name], shapes[ins.operands[0]]
            known[ins.name] = given.setdefault(key, len(given)), varies
        return list(known.values())

    def _key(self, ins: Instruction, operands: tuple[int, ...]) -> Hashable:
        has_effect = "custom_call_has_side_effect=true" in ins.attributes
        if has_effect or ins.opcode in _ALONE:
            return "alone", ins.name
        return ins.opcode, ins.leaves, ins.picks, operands, self._attributes(ins)

    def _attributes(self, ins: Instruction) -> str:
        """Spell what an instruction has for attributes, with numbers for what it calls."""
        attributes = _IGNORED.sub("", ins.attributes)
        return _NAME.sub(lambda match: f"body {self._body(match[1])}", attributes)

    def _body(self, name: str) -> int | str:
        """Return a number that computations which do the same share."""
        computation = self.module.parsed.computations.get(name)
        if computation is None:
            return name
        if name not in self._bodies:
            self._bodies[name] = name  # should it call itself, in a damaged module
            numbers = [number for number, _ in self._numbers(computation)]
            spelled = tuple(
                (number, self._key(ins, ()), self._shape(ins), ins.is_root)
                for number, ins in zip(numbers, computation.instructions, strict=True)
            )
            self._bodies[name] = self._spelled.setdefault(spelled, len(self._spelled))
        return self._bodies[name]

    def _shape(self, ins: Instruction) -> str:
        """Return a shape as printed, layout included."""
        line = self._lines[ins.line - 1]
        return line.partition(" = ")[2].partition(f" {ins.opcode}(")[0]
