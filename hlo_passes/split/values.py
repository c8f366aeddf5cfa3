"""The values of a block while it is cut: which are there in parts, which whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxlib.mlir import ir

from hlo_passes.cut.states import Cut
from hlo_passes.ir.stablehlo.build import alone
from hlo_passes.ir.stablehlo.parts import join_parts, take_part


@dataclass
class PartValues:
    """Makes parts of whole values and whole values of parts, each once, where first needed.

    Ops are built in program order at a moving insertion point, so what was made for one reader
    stands before every later one.

    Attributes:
        k: number of parts.
    """

    k: int
    _parts: dict[ir.Value, tuple[Cut, list[ir.Value]]] = field(default_factory=dict)
    _whole: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _own: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)
    _taken: dict[tuple[ir.Value, Cut], list[ir.Value]] = field(default_factory=dict)

    def give_parts(self, value: ir.Value, cut: Cut, parts: Sequence[ir.Value]) -> None:
        """Say that a value of the old program is there in parts.

        Args:
            value: the value.
            cut: how it is cut.
            parts: per part, its slice in the new program.
        """
        self._parts[value] = (cut, list(parts))

    def give_whole(self, value: ir.Value, new: ir.Value) -> None:
        """Say that a value of the old program is there whole, under another name."""
        self._whole[value] = new

    def whole(self, value: ir.Value) -> ir.Value:
        """Return a value of the old program, whole."""
        if value not in self._whole and value in self._parts:
            cut, parts = self._parts[value]
            self._whole[value] = join_parts(parts, cut.dim, cut.outer)
        return self._whole.get(value, value)

    def own(self, value: ir.Value, index: int) -> ir.Value:
        """Return a value of the old program, whole, under a name that one part has for itself."""
        key = (value, index)
        if key not in self._own:
            self._own[key] = alone(self.whole(value), index)
        return self._own[key]

    def parts(self, value: ir.Value, cut: Cut) -> list[ir.Value]:
        """Return the parts of a value of the old program, cut as asked."""
        made = self._parts.get(value)
        if made is not None and made[0] == cut:
            return made[1]
        key = (value, cut)
        if key not in self._taken:
            whole = self.whole(value)
            self._taken[key] = [
                take_part(whole, cut.dim, cut.outer, i, self.k) for i in range(self.k)
            ]
        return self._taken[key]
