"""Follows numbers that count tokens back to what they count.

    hot[t, e]   = (expert[t] == e)               one token a row
    count[t, e] = hot[0, e] + ... + hot[t, e]    grows by one with every token of that expert
    rank[t]     = sum over e of hot[t, e] * (count[t, e] + constant)

Groups of tokens may be counted by themselves, along further dims: `hot[g, t, e]`. Values may be
reshaped, transposed and converted on the way.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import integer, ints, kind_of, reducer, same_operand, shape_of
from hlo_passes.proofs.arithmetic import (
    counts_to,
    direction_of,
    dtype_of,
    element_of,
    is_float,
    is_total,
)
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.elements import Elements, View, repeated
from hlo_passes.proofs.engine import Domain, FactRules
from hlo_passes.proofs.prefix import is_prefix, is_prefix_scan
from hlo_passes.proofs.ranges import Range, Ranges

type CountForm = Literal["hot", "upto", "own", "rank"]
"""`hot` is one-hot; `upto` counts tokens before in; `own` is that where a token is hot and 0
elsewhere: these are per token and expert. `rank` is one number a token."""

_TOO_LARGE = 2**30
"""Constants from here on might make a count overflow."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Numbers per token, and per expert in the last dim unless they are ranks.

    Attributes:
        form: what they are.
        expert: the experts that are counted, one per token, in the order of this value.
        experts: how many experts there are; a token of another is not counted.
        group: per token, in the order of this value, which tokens it is counted with; None if all
            are counted together.
        first: what the first token of an expert gets, where tokens before are counted in.
    """

    form: CountForm
    expert: View
    experts: int
    group: np.ndarray | None = None
    first: int = 1


class Counting(Domain[TokenCount | None]):
    """What the values of a block count.

    Attributes:
        body: the block.
        numbers: its value numbers.
        constants, ranges, elements: what else is known of its values.
    """

    rules: ClassVar[FactRules]

    def __init__(self, body: Body, numbers: Mapping[ir.Value, int]) -> None:
        super().__init__()
        self.body, self.numbers = body, numbers
        self.constants = Constants()
        self.ranges = Ranges(self.constants, self._rank_range)
        self.elements = Elements(numbers, self.ranges)

    def unknown(self, value: ir.Value) -> TokenCount | None:
        """Most values count nothing."""
        return None

    def is_known(self, value: ir.Value) -> bool:
        """Whether a value counts something, or is the same in every run."""
        return self.of(value) is not None or self.constants.is_known(value)

    def least(self, value: ir.Value) -> float:
        """Return a number that no element is below; minus infinity if none is known."""
        return self.ranges.of(value).low

    def rank(self, value: ir.Value) -> TokenCount | None:
        """Return what a value counts, if it is one rank a token."""
        found = self.of(value)
        return found if found is not None and found.form == "rank" else None

    def _rank_range(self, value: ir.Value) -> Range | None:
        found = self.rank(value)
        if found is None:
            return None
        return Range(min(0, found.first), max(0, found.expert.at.size + found.first - 1))

    def hot(self, value: ir.Value) -> TokenCount | None:
        """Return what a value counts, if it is one-hot: a token's expert in the last dim."""
        found = self.of(value)
        return found if found is not None and found.form == "hot" else None


def _counts_exactly(value: ir.Value) -> bool:
    """Whether a type holds the number of all tokens."""
    dtype = dtype_of(element_of(value))
    if dtype is None:
        return False
    if is_float(dtype):
        return dtype.itemsize >= 4 and math.prod(shape_of(value)) < counts_to(dtype)
    return dtype.kind == "b" or dtype.itemsize >= 4


def _is_flag(value: ir.Value) -> bool:
    dtype = dtype_of(element_of(value))
    return dtype is not None and dtype.kind == "b"


def _has_no_sign(value: ir.Value) -> bool:
    dtype = dtype_of(element_of(value))
    return dtype is not None and dtype.kind == "u"


def _compare(domain: Counting, op: ir.Operation, value: ir.Value) -> TokenCount | None:
    """Recognise `expert[t] == e` with e in the last dim."""
    last = len(shape_of(value)) - 1
    if direction_of(op) != "EQ" or is_total(op) or last < 0:
        return None
    for expert, counted in (op.operands, list(op.operands)[::-1]):
        if domain.constants.counts_along(counted) == last:
            found = domain.elements.without_last(expert)
            if found is not None:
                return TokenCount("hot", found, shape_of(value)[last])
    return None


def _moved(domain: Counting, op: ir.Operation, value: ir.Value) -> TokenCount | None:
    """Follow what moves tokens about, experts left where they are."""
    source = same_operand(op, value)
    found, shape = domain.of(source), shape_of(value)
    if found is None or math.prod(shape_of(source)) != math.prod(shape):
        return None
    if not _counts_exactly(value) or (_is_flag(value) and found.form != "hot"):
        return None
    if found.first < 0 and _has_no_sign(value):
        return None
    extra = 0 if found.form == "rank" else 1
    if extra and not _keeps_last(op, source, value):
        return None
    tokens, before = shape[: len(shape) - extra], shape_of(source)

    def move(at: np.ndarray) -> np.ndarray:
        at = at.reshape(before[: len(before) - extra])
        if kind_of(op) == "transpose":
            at = at.transpose(ints(op, "permutation")[: len(tokens)])
        elif kind_of(op) == "broadcast_in_dim":
            placed = ints(op, "broadcast_dimensions")
            at = repeated(at, placed[: len(before) - extra], tokens)
        return at.reshape(tokens)

    group = None if found.group is None else move(found.group)
    return replace(found, expert=View(found.expert.value, move(found.expert.at)), group=group)


def _keeps_last(op: ir.Operation, source: ir.Value, value: ir.Value) -> bool:
    before, after = len(shape_of(source)) - 1, len(shape_of(value)) - 1
    if kind_of(op) == "transpose":
        return ints(op, "permutation")[-1] == after
    if kind_of(op) == "broadcast_in_dim":
        return ints(op, "broadcast_dimensions")[before] == after
    return shape_of(source)[-1:] == shape_of(value)[-1:]


def _shifted(domain: Counting, op: ir.Operation, value: ir.Value) -> TokenCount | None:
    """A constant more or less, or the token itself left out, changes no order."""
    left, right = op.operands
    sign = -1 if kind_of(op) == "subtract" else 1
    if sign > 0 and domain.of(left) is None:
        left, right = right, left
    found = domain.of(left)
    if found is None or found.form not in ("upto", "rank") or not _counts_exactly(value):
        return None
    shift = _shift_by(domain, found, right, sign)
    least = 0 if _has_no_sign(value) else 1 - _TOO_LARGE
    if shift is None or not least <= found.first + shift < _TOO_LARGE:
        return None
    return replace(found, first=found.first + shift)


def _shift_by(domain: Counting, count: TokenCount, other: ir.Value, sign: int) -> int | None:
    """Return by how much another value, added or subtracted, shifts counts; None if unknown."""
    number = domain.constants.number(other)
    if number is None:
        # Elsewhere than at its expert a token's count stays: nobody who asks for ranks reads it.
        return -1 if sign < 0 and _counts_hot(count, domain.hot(other)) else None
    is_small = abs(number) < _TOO_LARGE and number == int(number)
    return sign * int(number) if is_small else None


def _counts_hot(count: TokenCount, hot: TokenCount | None) -> bool:
    """Whether counts of tokens before in are those of the tokens that a one-hot value marks."""
    return (
        count.form == "upto" and hot is not None
        and hot.expert.is_like(count.expert) and hot.experts == count.experts
    )  # fmt: skip


def _masked(domain: Counting, op: ir.Operation, value: ir.Value) -> TokenCount | None:
    """Recognise counts that are left where a token is hot: a product, or a choice."""
    sides = list(op.operands)
    if kind_of(op) == "select" and (
        shape_of(sides[0]) != shape_of(value) or not domain.constants.is_zero(sides.pop())
    ):
        return None
    for hot, count in (sides, sides[::-1]):
        found = domain.of(count)
        if found is not None and _counts_hot(found, domain.hot(hot)):
            return replace(found, form="own") if _counts_exactly(value) else None
    return None


def _reduce(domain: Counting, op: ir.Operation, value: ir.Value) -> TokenCount | None:
    """Recognise ranks: of every token, the count at its expert."""
    found = domain.of(op.operands[0]) if len(op.results) == 1 else None
    if found is None or found.form != "own" or reducer(op) != "add":
        return None
    is_last = ints(op, "dimensions") == (len(shape_of(op.operands[0])) - 1,)
    if not is_last or not domain.constants.is_zero(op.operands[1]) or not _counts_exactly(value):
        return None
    return replace(found, form="rank")


def _prefix(domain: Counting, op: ir.Operation, value: ir.Value) -> TokenCount | None:
    shape, hot = shape_of(value), domain.hot(op.operands[0])
    if hot is None or value != op.results[0] or not _counts_exactly(value) or _is_flag(value):
        return None
    along = [d for d in range(len(shape) - 1) if _is_prefix(op, d)]
    if not along:
        return None
    # A prefix sum over a dim of size 1 is one over any.
    dim = max(along, key=lambda d: shape[d])
    return replace(hot, form="upto", group=_groups(shape[:-1], dim))


def _is_prefix(op: ir.Operation, dim: int) -> bool:
    """Whether an op is an inclusive prefix sum along a dim."""
    if kind_of(op) == "reduce_window":
        return len(op.results) == 1 and is_prefix(op, dim)
    return integer(op, "dimension") == dim and is_prefix_scan(op)


def _groups(dims: tuple[int, ...], counted: int) -> np.ndarray | None:
    """Number the groups of tokens that are counted along one of their dims."""
    others = [size if d != counted else 1 for d, size in enumerate(dims)]
    if math.prod(others) == 1:
        return None
    return np.broadcast_to(np.arange(math.prod(others)).reshape(others), dims)


Counting.rules = {
    "compare": _compare,
    **dict.fromkeys(
        ("convert", "reshape", "optimization_barrier", "broadcast_in_dim", "transpose"), _moved
    ),
    "add": _shifted, "subtract": _shifted,
    "multiply": _masked, "select": _masked,
    "reduce": _reduce,
    "reduce_window": _prefix, "scan": _prefix,
}  # fmt: skip
