"""What ops make of numbers that are known, element by element, exactly as every backend does.

XLA may keep more digits inside a fusion than a type has, or fuse a product with a sum. So a number
that had to be rounded is not known. Integers wrap around as they do at run time.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import ml_dtypes
import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import kind_of

_FLOATS = MappingProxyType({
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16,
    "f8E3M4": ml_dtypes.float8_e3m4, "f8E4M3": ml_dtypes.float8_e4m3,
    "f8E4M3FN": ml_dtypes.float8_e4m3fn, "f8E4M3B11FNUZ": ml_dtypes.float8_e4m3b11fnuz,
    "f8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "f8E5M2": ml_dtypes.float8_e5m2,
    "f8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
})  # fmt: skip

_WHOLE = 2**53
"""Up to which number a double counts exactly."""


def element_of(value: ir.Value) -> ir.Type | None:
    """Return the element type of a tensor; None for what is no tensor."""
    kind = value.type
    return kind.element_type if isinstance(kind, ir.RankedTensorType) else None


def dtype_of(element: ir.Type | None) -> np.dtype | None:
    """Return the type of elements in numpy's terms; None for one that is not followed."""
    if isinstance(element, ir.IntegerType):
        if element.width == 1:
            return np.dtype(bool)
        if element.width not in (8, 16, 32, 64):
            return None
        return np.dtype(f"{'u' if element.is_unsigned else ''}int{element.width}")
    found = _FLOATS.get(str(element))
    return None if found is None else np.dtype(found)


def is_float(dtype: np.dtype) -> bool:
    """Whether elements are floating-point numbers, of any width."""
    return dtype.kind not in "biu"


def counts_to(dtype: np.dtype) -> int:
    """Return up to which number, and down to which negative one, a float type counts exactly."""
    return 2 ** (ml_dtypes.finfo(dtype).nmant + 1)


def direction_of(op: ir.Operation) -> str:
    """Return what a comparison asks: `EQ`, `LT`, ..."""
    return str(op.attributes["comparison_direction"]).split()[-1].rstrip(">")


def is_total(op: ir.Operation) -> bool:
    """Whether a comparison tells -0 from 0, as that of a sort does."""
    return "compare_type" in op.attributes and "TOTAL" in str(op.attributes["compare_type"])


COMPARE: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType({
    "EQ": np.equal, "NE": np.not_equal, "LT": np.less, "LE": np.less_equal, "GT": np.greater,
    "GE": np.greater_equal,
})  # fmt: skip

_PLAIN: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType({
    "abs": np.abs, "add": np.add, "ceil": np.ceil, "floor": np.floor, "maximum": np.maximum,
    "minimum": np.minimum, "multiply": np.multiply, "negate": np.negative, "sign": np.sign,
    "subtract": np.subtract, "clamp": lambda low, x, high: np.minimum(np.maximum(low, x), high),
    "select": np.where, "not": np.invert, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "square": np.square,
})  # fmt: skip
_FLAGS: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType({
    "maximum": np.bitwise_or, "minimum": np.bitwise_and, "multiply": np.bitwise_and,
})  # fmt: skip
_UNSURE = frozenset({"abs", "add", "negate"})
"""Ops on flags of which nothing is said: XLA makes "or" of a sum when it runs, "xor" before."""
_WHOLE_ONLY: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType({
    "divide": lambda x, y: _quotient(x, y), "remainder": lambda x, y: np.fmod(x, y),
})  # fmt: skip

FOLDED = frozenset({*_PLAIN, *_WHOLE_ONLY, "compare", "convert"})
"""Kinds of ops that may be worked out."""


def fold(op: ir.Operation, sides: Sequence[np.ndarray]) -> np.ndarray | None:
    """Work out an op of `FOLDED` on known numbers, whose shapes broadcast; None if not exactly.

    Args:
        op: the op.
        sides: per operand its numbers, in the operand's type.
    """
    kind, made = kind_of(op), dtype_of(element_of(op.results[0]))
    if made is None:
        return None
    with np.errstate(all="ignore"):
        if kind == "compare":
            return None if is_total(op) else COMPARE[direction_of(op)](*sides)
        if kind == "convert":
            return converted(sides[0], made)
        if kind == "select":
            return np.where(*sides).astype(made)
        if made.kind == "b":
            return _of_flags(kind, sides)
        if is_float(made):
            return _rounded(_PLAIN[kind], sides, made) if kind in _PLAIN else None
        return _of_integers(kind, sides, made)


def _of_flags(kind: str, sides: Sequence[np.ndarray]) -> np.ndarray | None:
    change = None if kind in _UNSURE else _FLAGS.get(kind, _PLAIN.get(kind))
    return None if change is None else change(*sides)


def _of_integers(kind: str, sides: Sequence[np.ndarray], made: np.dtype) -> np.ndarray | None:
    if kind not in _WHOLE_ONLY:
        return _PLAIN[kind](*sides).astype(made)
    undefined = (0, -1) if made.kind == "i" else (0,)
    if np.isin(sides[1], undefined).any():
        return None
    return _WHOLE_ONLY[kind](*sides).astype(made)


def converted(numbers: np.ndarray, made: np.dtype) -> np.ndarray | None:
    """Convert numbers as XLA does; None where that depends on the backend."""
    if made.kind == "b":
        return numbers != 0
    if is_float(made):
        return _exact(numbers.astype(np.float64), made) if _is_small(numbers) else None
    if not is_float(numbers.dtype):
        return numbers.astype(made)
    wide = np.trunc(numbers.astype(np.float64))
    limits = np.iinfo(made)
    inside = np.isfinite(wide) & (wide >= float(limits.min)) & (wide < float(limits.max) + 1)
    return wide.astype(made) if np.all(inside) else None


def _rounded(
    change: Callable[..., np.ndarray], sides: Sequence[np.ndarray], made: np.dtype
) -> np.ndarray | None:
    wide = change(*(side.astype(np.float64) for side in sides))
    if made == np.float64 and not np.all((wide == np.trunc(wide)) & (np.abs(wide) <= _WHOLE)):
        return None
    return _exact(wide, made)


def _exact(wide: np.ndarray, made: np.dtype) -> np.ndarray | None:
    """Return doubles in another type, if none of them had to be rounded."""
    narrow = wide.astype(made)
    return narrow if np.array_equal(narrow.astype(np.float64), wide) else None


def _is_small(numbers: np.ndarray) -> bool:
    """Whether doubles hold these numbers."""
    if is_float(numbers.dtype) or not numbers.size:
        return True
    return int(numbers.min()) >= -_WHOLE and int(numbers.max()) <= _WHOLE


def _quotient(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Divide towards zero."""
    return (left - np.fmod(left, right)) // right
