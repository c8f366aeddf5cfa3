"""Between which whole numbers the elements of a value are, in every run.

Integers that may overflow may be anything that their type holds. Of floating-point numbers it is
known that they are whole, and small enough for their type to count exactly, or nothing at all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import (
    integer,
    ints,
    only_chooses,
    reducer,
    same_operand,
    shape_of,
    update_of,
)
from hlo_passes.proofs.arithmetic import (
    counts_to,
    direction_of,
    dtype_of,
    element_of,
    is_float,
    is_total,
)
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.engine import Domain, FactRules


@dataclass(frozen=True, slots=True)
class Range:
    """All elements are whole numbers from `low` to `high`, or, if these are infinite, anything."""

    low: float
    high: float

    @property
    def is_any(self) -> bool:
        """Whether nothing is known, not even that elements are numbers."""
        return math.isinf(self.low)

    def is_within(self, low: float, high: float) -> bool:
        """Whether all elements are from `low` to `high`."""
        return low <= self.low and self.high <= high


_MULTIPLIED = 2**8
"""Up to which number products of floats are exact: their operands may be rounded to bfloat16."""

ANY = Range(-math.inf, math.inf)
NEVER, _ALWAYS, _FLAG = Range(0, 0), Range(1, 1), Range(0, 1)


class Ranges(Domain[Range]):
    """Between which numbers values are.

    Attributes:
        constants: what values hold in every run.
        ranks: range of a value that is one rank a token, where that is asked for: less than that
            of a sum may be. None of other values.
    """

    rules: ClassVar[FactRules]
    is_absolute = True

    def __init__(
        self, constants: Constants, ranks: Callable[[ir.Value], Range | None] = lambda _: None
    ) -> None:
        super().__init__()
        self.constants, self.ranks = constants, ranks

    def unknown(self, value: ir.Value) -> Range:
        """Return all numbers of an integer type."""
        return _all_of(element_of(value))

    def is_index(self, value: ir.Value, count: int) -> bool:
        """Whether every element of a value is one of 0, 1, ..., count - 1."""
        return self.of(value).is_within(0, count - 1)


def _all_of(element: ir.Type | None) -> Range:
    dtype = dtype_of(element)
    if dtype is None or is_float(dtype):
        return ANY
    if dtype.kind == "b":
        return _FLAG
    return Range(np.iinfo(dtype).min, np.iinfo(dtype).max)


def in_type(found: Range, element: ir.Type | None) -> Range:
    """Return a range as a type holds it: what it may not hold exactly makes it unknown."""
    dtype = dtype_of(element)
    if dtype is None or found.is_any:
        return _all_of(element)
    if is_float(dtype):
        most = counts_to(dtype)
        return found if found.is_within(-most, most) else ANY
    whole = _all_of(element)
    return found if found.is_within(whole.low, whole.high) else whole


def _union(*ranges: Range) -> Range:
    if any(r.is_any for r in ranges):
        return ANY
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))


def _product(a: Range, b: Range) -> Range:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Range(min(corners), max(corners))


def _times(count: int, one: Range) -> Range:
    """Return what the sum of up to `count` elements may be, in any order."""
    return Range(min(0, count * one.low), max(0, count * one.high))


def _plus(a: Range, b: Range) -> Range:
    return Range(a.low + b.low, a.high + b.high)


# --- ops that work element by element


def _numeric(change: Callable[..., Range]):
    """Return a rule for ops on numbers, of which all have to be known."""

    def rule(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
        sides = [domain.of(v) for v in op.operands]
        element = element_of(value)
        is_flag = isinstance(element, ir.IntegerType) and element.width == 1
        if any(side.is_any for side in sides) or is_flag:
            return _all_of(element)
        return in_type(change(*sides), element)

    return rule


def _extreme(choose: Callable[[float, float], float]):
    def change(a: Range, b: Range) -> Range:
        return Range(choose(a.low, b.low), choose(a.high, b.high))

    return change


def _clamp(low: Range, x: Range, high: Range) -> Range:
    return _extreme(min)(_extreme(max)(low, x), high)


def _abs(x: Range) -> Range:
    least = 0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    return Range(least, max(abs(x.low), abs(x.high)))


def _sign(x: Range) -> Range:
    return Range((x.low > 0) - (x.low < 0), (x.high > 0) - (x.high < 0))


def _divide(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    """Integers are divided towards zero."""
    element = element_of(value)
    x, by = (domain.of(v) for v in op.operands)
    if not isinstance(element, ir.IntegerType) or by.low < 1:
        return domain.unknown(value)
    corners = [
        abs(a) // b if a >= 0 else -(abs(a) // b)
        for a in (x.low, x.high)
        for b in (by.low, by.high)
    ]
    return Range(min(corners), max(corners))


def _remainder(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    """The sign is that of what is divided."""
    x, by = (domain.of(v) for v in op.operands)
    if not isinstance(element_of(value), ir.IntegerType) or by.low < 1:
        return domain.unknown(value)
    most = by.high - 1
    return Range(max(x.low, -most) if x.low < 0 else 0, min(x.high, most) if x.high > 0 else 0)


def _bits(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    """Flags, and what has no sign."""
    a, b = (domain.of(v) for v in op.operands)
    is_and = op.name.endswith(".and")
    if isinstance(element := element_of(value), ir.IntegerType) and element.width == 1:
        return (_extreme(min) if is_and else _extreme(max))(a, b)
    natural = [side.high for side in (a, b) if side.low >= 0]
    if is_and:
        return Range(0, min(natural)) if natural else domain.unknown(value)
    if len(natural) < 2:
        return domain.unknown(value)
    return in_type(Range(max(a.low, b.low), 2 ** int(max(natural)).bit_length() - 1), element)


def _not(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    x, element = domain.of(op.operands[0]), element_of(value)
    is_flag = isinstance(element, ir.IntegerType) and element.width == 1
    return Range(1 - x.high, 1 - x.low) if is_flag else domain.unknown(value)


def _compare(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    a, b = (domain.of(v) for v in op.operands)
    if a.is_any or b.is_any or is_total(op):
        return _FLAG
    holds, fails = _COMPARED[direction_of(op)](a, b)
    return _ALWAYS if holds else NEVER if fails else _FLAG


def _are_less(a: Range, b: Range) -> bool:
    return a.high < b.low


def _are_at_most(a: Range, b: Range) -> bool:
    return a.high <= b.low


def _are_apart(a: Range, b: Range) -> bool:
    return _are_less(a, b) or _are_less(b, a)


def _are_one(a: Range, b: Range) -> bool:
    """Whether both ranges are the same single number."""
    return a == b and a.low == a.high


_COMPARED = {
    "LT": lambda a, b: (_are_less(a, b), _are_at_most(b, a)),
    "LE": lambda a, b: (_are_at_most(a, b), _are_less(b, a)),
    "GT": lambda a, b: (_are_less(b, a), _are_at_most(a, b)),
    "GE": lambda a, b: (_are_at_most(b, a), _are_less(a, b)),
    "EQ": lambda a, b: (_are_one(a, b), _are_apart(a, b)),
    "NE": lambda a, b: (_are_apart(a, b), _are_one(a, b)),
}
"""Per comparison of two ranges: (whether it always holds, whether it never does)."""


def _select(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    mask, yes, no = (domain.of(v) for v in op.operands)
    return yes if mask == _ALWAYS else no if mask == NEVER else _union(yes, no)


def _convert(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    found, element = domain.of(op.operands[0]), element_of(value)
    if isinstance(element, ir.IntegerType) and element.width == 1:
        return NEVER if found == NEVER else _ALWAYS if found.low > 0 or found.high < 0 else _FLAG
    return in_type(found, element)


# --- ops that move elements, or put them together


def _of_operands(count: int | None = None):
    """Return a rule for ops whose results are made of elements of their first operands."""

    def rule(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
        read = list(op.operands)[:count]
        return _union(*(domain.of(v) for v in read)) if read else domain.unknown(value)

    return rule


def _own(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    return domain.of(same_operand(op, value))


def _constant(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    numbers = domain.constants.of(value)
    if numbers is None or not numbers.size:
        return domain.unknown(value)
    if not is_float(numbers.dtype):
        return Range(int(numbers.min()), int(numbers.max()))
    wide = numbers.astype(np.float64)
    if not np.all(np.isfinite(wide) & (wide == np.trunc(wide))):
        return ANY
    return in_type(Range(int(wide.min()), int(wide.max())), element_of(value))


def _iota(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    return in_type(Range(0, shape_of(value)[integer(op, "iota_dimension")] - 1), element_of(value))


def _reduce(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    count, index = len(op.results), list(op.results).index(value)
    own, start = (domain.of(op.operands[i]) for i in (index, index + count))
    if only_chooses(op, index):
        return _union(own, start)
    merge = reducer(op) if count == 1 else None
    if merge in ("maximum", "minimum"):
        return _union(own, start)
    is_flag = own.is_within(0, 1) and start.is_within(0, 1)
    if merge in ("and", "or") and is_flag:
        return _FLAG
    if merge != "add":
        return domain.unknown(value)
    ranked = domain.ranks(value)
    if ranked is not None:
        return in_type(ranked, element_of(value))
    shape = shape_of(op.operands[0])
    return _summed(domain, value, own, start, [shape[d] for d in ints(op, "dimensions")])


def _summed(
    domain: Ranges, value: ir.Value, own: Range, start: Range, sizes: Sequence[int]
) -> Range:
    element = element_of(value)
    is_flag = isinstance(element, ir.IntegerType) and element.width == 1
    if own.is_any or start.is_any or is_flag:
        return domain.unknown(value)
    return in_type(_plus(_times(math.prod(sizes), own), _union(start, NEVER)), element)


def _window(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    if len(op.results) != 1 or reducer(op) != "add":
        return domain.unknown(value)
    own, start = (domain.of(v) for v in op.operands)
    window = ints(op, "window_dimensions")
    return _summed(domain, value, own, _times(math.prod(window) + 1, start), window)


def _scan(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    if len(op.operands) != 2 or reducer(op) != "add":
        return domain.unknown(value)
    own, start = (domain.of(v) for v in op.operands)
    size = shape_of(op.operands[0])[integer(op, "dimension")]
    return _summed(domain, value, own, start, [size])


def _scatter(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    if len(op.operands) != 3:
        return domain.unknown(value)
    into, put, kind = domain.of(op.operands[0]), domain.of(op.operands[2]), update_of(op)
    if kind in ("set", "maximum", "minimum"):
        return _union(into, put)
    count = math.prod(shape_of(op.operands[2]))
    return _summed(domain, value, put, into, [count]) if kind == "add" else domain.unknown(value)


def _product_of(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    a, b = (domain.of(v) for v in op.operands)
    if a.is_any or b.is_any:
        return domain.unknown(value)
    is_exact = isinstance(element_of(value), ir.IntegerType) or all(
        side.is_within(-_MULTIPLIED, _MULTIPLIED) for side in (a, b)
    )
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    shape = shape_of(op.operands[0])
    sizes = [shape[d] for d in numbers.lhs_contracting_dimensions]
    return _summed(domain, value, _product(a, b), NEVER, sizes) if is_exact else ANY


def _top_k(domain: Ranges, op: ir.Operation, value: ir.Value) -> Range:
    if value == op.results[0]:
        return domain.of(op.operands[0])
    return Range(0, shape_of(op.operands[0])[-1] - 1)


Ranges.rules = {
    **dict.fromkeys(("broadcast_in_dim", "reshape", "reverse", "slice", "transpose",
                     "dynamic_slice", "gather"), _of_operands(1)),
    **dict.fromkeys(("pad", "dynamic_update_slice"), _of_operands(2)),
    **dict.fromkeys(("optimization_barrier", "sort", "all_gather", "all_to_all"), _own),
    "concatenate": _of_operands(),
    "constant": _constant,
    "iota": _iota,
    "convert": _convert,
    "compare": _compare,
    "select": _select,
    "and": _bits, "or": _bits,
    "not": _not,
    "add": _numeric(_plus),
    "subtract": _numeric(lambda a, b: Range(a.low - b.high, a.high - b.low)),
    "multiply": _numeric(_product),
    "maximum": _numeric(_extreme(max)),
    "minimum": _numeric(_extreme(min)),
    "clamp": _numeric(_clamp),
    "abs": _numeric(_abs),
    "negate": _numeric(lambda x: Range(-x.high, -x.low)),
    "sign": _numeric(_sign),
    **dict.fromkeys(("floor", "ceil", "round_nearest_even", "round_nearest_afz"),
                    _numeric(lambda x: x)),
    "divide": _divide,
    "remainder": _remainder,
    "reduce": _reduce,
    "reduce_window": _window,
    "scan": _scan,
    "scatter": _scatter,
    "dot_general": _product_of,
    "top_k": _top_k,
}  # fmt: skip
