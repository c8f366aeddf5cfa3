"""Follows numbers that count tokens back to what they count.

    hot[t, e]   = (e == expert[t])               one token a row
    count[t, e] = hot[0, e] + ... + hot[t, e]    grows by one with every token of that expert
    rank[t]     = sum over e of hot[t, e] * (count[t, e] + constant)

Groups of tokens may be counted by themselves, along further dims: `hot[g, t, e]`. Values may be
reshaped, transposed and converted on the way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.analysis.moves import counts_along
from hlo_passes.analysis.split_rules.pointwise import splat_of
from hlo_passes.analysis.split_rules.reduce import is_prefix, is_prefix_scan, reducer
from hlo_passes.ir.attributes import integer, ints, shape_of
from hlo_passes.ir.body import Body

_SAME = ("convert", "reshape", "optimization_barrier")
_EXACT = {"f32": 2**24, "f64": 2**53}
"""Up to which number of tokens a float counts exactly."""

_CHOICES = {"stablehlo.select": 1, "stablehlo.minimum": 0, "stablehlo.maximum": 0}
"""Ops that hand on one of their operands, and the first that they may."""


@dataclass(frozen=True, slots=True)
class View:
    """Elements of a value in some order.

    Attributes:
        value: number of the value that the elements are from.
        at: which of its elements, int64, in the shape of the view.
    """

    value: int
    at: np.ndarray

    def is_like(self, other: "View") -> bool:
        """Whether both hold the same elements in the same order."""
        return self.value == other.value and np.array_equal(self.at.ravel(), other.at.ravel())


@dataclass(frozen=True, slots=True)
class Count:
    """Numbers per token, and per expert in the last dim unless they are ranks.

    Attributes:
        expert: the experts that are counted, one per token, in the order of this value.
        experts: how many experts there are; a token of another is not counted.
        counted: whether tokens before are counted in; else the value is one-hot.
        least: a number that none here is below.
        group: per token, in the order of this value, which tokens it is counted with; None if all
            are counted together.
        first: what the first token of an expert gets, where tokens before are counted in.
    """

    expert: View
    experts: int
    counted: bool
    least: int
    group: np.ndarray | None = None
    first: int = 1


@dataclass
class Counting:
    """Answers what the values of a block count.

    Attributes:
        body: the block.
        numbers: its value numbers.
    """

    body: Body
    numbers: dict[ir.Value, int]
    _memo: dict[tuple[str, ir.Value], Count | None] = field(default_factory=dict)

    def least(self, value: ir.Value) -> int:
        """Return a number that no element is below; -1 if none is known that is not negative."""
        rank = self.rank(value)
        if rank is not None:
            return rank.least
        place, kind = self.made(value, ())
        op = self.body.ops[place] if place >= 0 else None
        if op is None:
            return -1
        if kind == "iota" or (kind == "top_k" and self.root(value) == op.results[1]):
            return 0
        if kind == "constant":
            number = splat_of(op)
            return int(number.value) if isinstance(number, ir.IntegerAttr) else -1
        if kind == "reduce":
            index = list(op.results).index(self.root(value))
            pair = op.operands[index], op.operands[index + len(op.results)]
            return min(self.least(v) for v in pair) if only_chooses(op, index) else -1
        if kind in ("broadcast_in_dim", "transpose", "slice"):
            return self.least(op.operands[0])
        if kind in ("minimum", "add", "multiply"):
            return min(self.least(v) for v in op.operands)
        if kind == "select":
            return min(self.least(v) for v in op.operands[1:])
        return max(self.least(v) for v in op.operands) if kind == "maximum" else -1

    def rank(self, value: ir.Value) -> Count | None:
        """Return what a value counts, if it is one rank a token."""
        return self._known("rank", value)

    def hot(self, value: ir.Value) -> Count | None:
        """Return what a value counts, if it is one-hot: a token's expert in the last dim."""
        found = self._table(value)
        return None if found is None or found.counted else found

    def _table(self, value: ir.Value) -> Count | None:
        """Return what a value counts, if it is a number per token and expert."""
        return self._known("table", value)

    def _known(self, name: str, value: ir.Value) -> Count | None:
        key = (name, value)
        if key not in self._memo:
            self._memo[key] = None
            find = self._find_rank if name == "rank" else self._find_table
            self._memo[key] = find(value)
        return self._memo[key]

    def _find_rank(self, value: ir.Value) -> Count | None:
        place, kind = self.body.made_by(value)
        if place < 0 or not self._counts_exactly(value) or not is_ascending(self.body.ops[place]):
            return None
        op = self.body.ops[place]
        if kind in (*_SAME, "broadcast_in_dim", "transpose"):
            return self._moved(self.rank(_source(op, value)), op)
        if kind in ("add", "subtract"):
            return self._shifted(op, self.rank)
        if kind == "reduce" and len(op.results) == 1 and reducer(op) == "add":
            gone = ints(op, "dimensions")
            picked, is_product = self.body.made_by(op.operands[0])
            if gone != (len(shape_of(op.operands[0])) - 1,) or is_product != "multiply":
                return None
            if self.splat(op.operands[1]) != 0:
                return None
            tables = [self._table(v) for v in self.body.ops[picked].operands]
            for hot, count in (tables, tables[::-1]):
                if hot is None or count is None or hot.counted or not count.counted:
                    continue
                if hot.expert.is_like(count.expert):
                    return replace(count, least=min(0, count.least + 1))
        return None

    def _find_table(self, value: ir.Value) -> Count | None:
        place, kind = self.body.made_by(value)
        if place < 0 or not self._counts_exactly(value):
            return None
        op, shape = self.body.ops[place], shape_of(value)
        if kind == "compare":
            return self._hot(op) if direction_of(op) == "EQ" else None
        if kind in _SAME or kind == "transpose":
            source = _source(op, value)
            keeps = shape_of(source)[-1:] == shape[-1:]
            if kind == "transpose":
                keeps = ints(op, "permutation")[-1] == len(shape) - 1
            found = self._table(source) if keeps else None
            is_flag = kind == "convert" and _width(value) == 1
            return None if is_flag and found and found.counted else self._moved(found, op, 1)
        if kind in ("add", "subtract"):
            return self._shifted(op, self._table)
        along = [d for d in range(len(shape) - 1) if _is_prefix(op, kind, d)]
        hot = self._table(op.operands[0]) if along else None
        if hot is not None and not hot.counted and value == op.results[0]:
            # A prefix sum over a dim of size 1 is one over any.
            dim = max(along, key=lambda d: shape[d])
            return replace(hot, counted=True, group=_groups(shape[:-1], dim))
        return None

    def _hot(self, op: ir.Operation) -> Count | None:
        """Recognise `expert[t] == e` with e in the last dim."""
        for expert, counted in (op.operands, list(op.operands)[::-1]):
            if counts_along(counted) == len(shape_of(counted)) - 1:
                narrow = self._without_last(expert)
                if narrow is not None:
                    return Count(self.view(narrow), shape_of(counted)[-1], False, 0)
        return None

    def _without_last(self, value: ir.Value) -> ir.Value | None:
        """Return what is repeated along the last dim, if that is all that happens there."""
        count = math.prod(shape_of(value)[:-1])
        while math.prod(shape_of(value)) != count:
            place, kind = self.body.made_by(value)
            if kind not in ("broadcast_in_dim", "convert"):
                return None
            op, shape = self.body.ops[place], shape_of(value)
            source = shape_of(op.operands[0])
            if not is_ascending(op):
                return None
            if kind == "broadcast_in_dim":
                placed = dict(zip(ints(op, "broadcast_dimensions"), source, strict=True))
                last = len(shape) - 1
                if placed.get(last, 1) != 1 and math.prod(source) == count:
                    return None
                if any(placed.get(d, 1) != n for d, n in enumerate(shape[:-1])):
                    return None
            value = op.operands[0]
        return value

    def _shifted(self, op: ir.Operation, read: Callable[[ir.Value], Count | None]) -> Count | None:
        """A constant more or less, or the token itself left out, changes no order."""
        left, right = op.operands
        sign = -1 if self.body.kind(self.body.maker[op.results[0]]) == "subtract" else 1
        found, number = read(left), self.splat(right)
        if found is None and sign > 0:
            found, number = read(right), self.splat(left)
        if found is None or not found.counted:
            return None
        if number is not None and number == int(number):
            shift = sign * int(number)
            return replace(found, least=found.least + shift, first=found.first + shift)
        other = read(right)
        is_itself = other is not None and not other.counted and other.expert.is_like(found.expert)
        if sign > 0 or not is_itself:
            return None
        return replace(found, least=found.least - 1, first=found.first - 1)

    def _moved(self, found: Count | None, op: ir.Operation, extra: int = 0) -> Count | None:
        """Follow a reshape, a transpose or a conversion, `extra` last dims left alone."""
        if found is None:
            return None
        shape = shape_of(op.results[0])
        shape = shape[: len(shape) - extra]
        source = shape_of(op.operands[0])

        def move(at: np.ndarray) -> np.ndarray:
            if op.name.endswith("transpose"):
                at = at.reshape(source[: len(source) - extra])
                at = at.transpose(ints(op, "permutation")[: len(shape)])
            return at.reshape(shape)

        if found.expert.at.size != math.prod(shape):
            return None
        group = None if found.group is None else move(found.group)
        return replace(found, expert=View(found.expert.value, move(found.expert.at)), group=group)

    def _counts_exactly(self, value: ir.Value) -> bool:
        if (width := _width(value)) is not None:
            return width == 1 or width >= 32
        element = ir.RankedTensorType(value.type).element_type
        return math.prod(shape_of(value)) < _EXACT.get(str(element), 0)

    # --- views

    def places(self, value: ir.Value) -> np.ndarray | None:
        """Return the numbers of a value that counts along a dim, moved about; else None."""
        root, at = self._followed(value)
        place, kind = self.body.made_by(root)
        if kind != "iota":
            return None
        dim = integer(self.body.ops[place], "iota_dimension")
        return np.indices(shape_of(root))[dim].ravel()[at]

    def view(self, value: ir.Value) -> View:
        """Return what a value has from where, through all that only moves elements."""
        root, at = self._followed(value)
        return View(self.numbers[root], at)

    def _followed(self, value: ir.Value) -> tuple[ir.Value, np.ndarray]:
        """Follow a value back to where its elements are from, and say which of those it has."""
        shape = shape_of(value)
        at = np.arange(math.prod(shape))
        while True:
            place, kind = self.body.made_by(value)
            if kind not in (*_SAME, "transpose", "broadcast_in_dim"):
                break
            op = self.body.ops[place]
            source = _source(op, value)
            if kind == "transpose":
                moved = np.arange(at.size).reshape(shape_of(source))
                at = moved.transpose(ints(op, "permutation")).ravel()[at]
            elif not self._keeps_elements(op, source, value):
                break
            value = source
        return value, at

    def _keeps_elements(self, op: ir.Operation, source: ir.Value, value: ir.Value) -> bool:
        """Whether an op keeps elements, their order and their numbers: none gets narrower."""
        if math.prod(shape_of(source)) != math.prod(shape_of(value)) or not is_ascending(op):
            return False
        if source.type.element_type == value.type.element_type:
            return True
        old, new = _width(source), _width(value)
        return old is not None and new is not None and new >= old >= 32

    def root(self, value: ir.Value) -> ir.Value:
        """Strip reshapes and conversions."""
        place, kind = self.body.made_by(value)
        while kind in _SAME:
            value = _source(self.body.ops[place], value)
            place, kind = self.body.made_by(value)
        return value

    def made(self, value: ir.Value, kinds: tuple[str, ...]) -> tuple[int, str]:
        """Return place and kind of the op that makes a value; without `kinds`, of its root.

        Reshapes and added dims before one of `kinds` are looked through.
        """
        place, kind = self.body.made_by(value)
        while kind in ("reshape", "broadcast_in_dim", "optimization_barrier") and kinds:
            source = _source(self.body.ops[place], value)
            if math.prod(shape_of(source)) != math.prod(shape_of(value)):
                break
            value = source
            place, kind = self.body.made_by(value)
        return (place, kind) if kinds else self.body.made_by(self.root(value))

    def splat(self, value: ir.Value) -> float | None:
        """Return the one number that a value holds everywhere, if it is a constant."""
        place, kind = self.body.made_by(value)
        while kind in ("broadcast_in_dim", "reshape", "convert"):
            value = self.body.ops[place].operands[0]
            place, kind = self.body.made_by(value)
        if kind != "constant":
            return None
        number = splat_of(self.body.ops[place])
        return number.value if isinstance(number, ir.IntegerAttr | ir.FloatAttr) else None


def _is_prefix(op: ir.Operation, kind: str, dim: int) -> bool:
    """Whether an op is an inclusive prefix sum along a dim."""
    if kind == "reduce_window" and len(op.results) == 1:
        return is_prefix(op, dim)
    return kind == "scan" and integer(op, "dimension") == dim and is_prefix_scan(op)


def _groups(dims: tuple[int, ...], counted: int) -> np.ndarray | None:
    """Number the groups of tokens that are counted along one of their dims."""
    others = [size if d != counted else 1 for d, size in enumerate(dims)]
    if math.prod(others) == 1:
        return None
    return np.broadcast_to(np.arange(math.prod(others)).reshape(others), dims)


def only_chooses(op: ir.Operation, index: int) -> bool:
    """Whether result `index` of a reduction is one of the numbers it was given, as of argmax."""
    block, count = op.regions[0].blocks[0], len(op.results)
    own = {block.arguments[index], block.arguments[index + count]}
    inside = [view.operation for view in block.operations]
    todo = [inside[-1].operands[index]]
    while todo:
        value = todo.pop()
        if value in own:
            continue
        maker = None if isinstance(value, ir.BlockArgument) else value.owner.operation
        if maker is None or maker.name not in _CHOICES:
            return False
        todo.extend(maker.operands[_CHOICES[maker.name] :])
    return True


def is_ascending(op: ir.Operation) -> bool:
    """Whether a broadcast keeps the order of dims; any other op does."""
    dims = ints(op, "broadcast_dimensions") if op.name.endswith("broadcast_in_dim") else ()
    return list(dims) == sorted(dims)


def _width(value: ir.Value) -> int | None:
    """Return the bits of an integer; None for other elements."""
    element = ir.RankedTensorType(value.type).element_type
    return element.width if isinstance(element, ir.IntegerType) else None


def _source(op: ir.Operation, value: ir.Value) -> ir.Value:
    """Return the operand that a moved value is from."""
    return op.operands[list(op.results).index(value)] if len(op.results) > 1 else op.operands[0]


def direction_of(op: ir.Operation) -> str:
    """Return what a comparison asks: `EQ`, `LT`, ..."""
    return str(op.attributes["comparison_direction"]).split()[-1].rstrip(">")
