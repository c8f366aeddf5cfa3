"""Computes what single HLO instructions make of constants.

MLIR folds constants while it builds ops, HLO's own tools do not. To see that two programs are the
same all the same, what can be known without running is computed on both sides.
"""

import re
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from hlo_passes.ir.hlo.text import Instruction
from hlo_passes.ir.types import TensorType

LARGEST = 4096
"""Elements of the largest constant that is computed with."""

_DTYPES: dict[str, type] = {
    "i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "ui8": np.uint8, "ui16": np.uint16, "ui32": np.uint32, "ui64": np.uint64,
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip
_COMPARE = {
    "EQ": np.equal, "NE": np.not_equal, "LT": np.less, "LE": np.less_equal, "GT": np.greater,
    "GE": np.greater_equal,
}  # fmt: skip
_BINARY: dict[str, Callable] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def read_literal(text: str, kind: TensorType) -> np.ndarray | None:
    """Read a constant as HLO prints it; None if it is too large or of a type that is not known."""
    if kind.dtype not in _DTYPES or kind.elements > LARGEST:
        return None
    words = re.sub(r"/\*.*?\*/|[{}]", " ", text).replace(",", " ").split()
    dtype = _DTYPES[kind.dtype]
    try:
        if kind.dtype == "i1":
            flat = [{"true": True, "1": True, "false": False, "0": False}[word] for word in words]
        elif np.issubdtype(dtype, np.integer):
            flat = [int(word) for word in words]
        else:
            flat = [dtype(word) for word in words]
        return np.array(flat, dtype).reshape(kind.shape)
    except (ValueError, KeyError, OverflowError):
        return None


def fold(instruction: Instruction, values: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return what an instruction makes of constants; None if it is not known."""
    made = instruction.leaves[0]
    if len(instruction.leaves) != 1 or made.dtype not in _DTYPES or made.elements > LARGEST:
        return None
    with np.errstate(all="ignore"):
        if instruction.opcode in _BINARY:
            found = _BINARY[instruction.opcode](*values)
        elif instruction.opcode in _RULES:
            found = _RULES[instruction.opcode](instruction, values, made)
        else:
            found = None
    return None if found is None else np.asarray(found).astype(_DTYPES[made.dtype])


def _divide(
    instruction: Instruction, values: Sequence[np.ndarray], made: TensorType
) -> np.ndarray | None:
    first, second = values
    return _quotient(first, second, made) if _is_integer(first) else np.divide(first, second)


def _remainder(
    instruction: Instruction, values: Sequence[np.ndarray], made: TensorType
) -> np.ndarray | None:
    first, second = values
    whole = _quotient(first, second, made) if _is_integer(first) else None
    return None if whole is None else first - whole * second


def _quotient(first: np.ndarray, second: np.ndarray, made: TensorType) -> np.ndarray | None:
    """Divide integers, rounded to zero; None if something is divided by zero."""
    if made.dtype == "i1" or not np.all(second != 0):
        return None
    return np.sign(first) * np.sign(second) * (abs(first) // abs(second))


def _not(
    instruction: Instruction, values: Sequence[np.ndarray], made: TensorType
) -> np.ndarray | None:
    return np.invert(values[0]) if made.dtype == "i1" or _is_integer(values[0]) else None


def _convert(
    instruction: Instruction, values: Sequence[np.ndarray], made: TensorType
) -> np.ndarray | None:
    return values[0].astype(_DTYPES[made.dtype]) if _is_exact(values[0], made) else None


def _slice(instruction: Instruction, values: Sequence[np.ndarray], made: TensorType) -> np.ndarray:
    return values[0][tuple(slice(*part) for part in bounds_of(instruction))]


type _Rule = Callable[[Instruction, Sequence[np.ndarray], TensorType], np.ndarray | None]
_RULES: dict[str, _Rule] = {
    "divide": _divide,
    "remainder": _remainder,
    "compare": lambda op, values, made: _COMPARE[op.attribute("direction")](*values),
    "select": lambda op, values, made: np.where(*values),
    "not": _not,
    "negate": lambda op, values, made: -values[0],
    "sign": lambda op, values, made: np.sign(values[0]) if _is_integer(values[0]) else None,
    "convert": _convert,
    "reshape": lambda op, values, made: values[0].reshape(made.shape),
    "transpose": lambda op, values, made: values[0].transpose(dims_of(op)),
    "broadcast": lambda op, values, made: broadcast(values[0], dims_of(op), made),
    "slice": _slice,
    "concatenate": lambda op, values, made: np.concatenate(list(values), dims_of(op)[0]),
}
"""By opcode: (instruction, its operands, what it makes) to its value, or None if not known."""


def broadcast(value: np.ndarray, dims: Sequence[int], made: TensorType) -> np.ndarray:
    """Repeat a constant along the dims that it lacks.

    Args:
        value: the constant.
        dims: per dim of it, its dim in what is made.
        made: what is made.
    """
    shape = [1] * len(made.shape)
    for dim, size in zip(dims, value.shape, strict=True):
        shape[dim] = size
    return np.broadcast_to(value.reshape(shape), made.shape)


def _is_integer(value: np.ndarray) -> bool:
    return bool(np.issubdtype(value.dtype, np.integer))


def _is_exact(value: np.ndarray, made: TensorType) -> bool:
    """Whether a conversion has one possible result, whoever does it."""
    with np.errstate(all="ignore"):
        there = value.astype(_DTYPES[made.dtype])
        return bool(np.array_equal(there.astype(value.dtype), value))


def identity(instruction: Instruction, values: Sequence[np.ndarray | None]) -> int | None:
    """Return which operand an instruction hands on as it is; None for none.

    `x + 0` is among them although it turns -0 to 0: XLA simplifies it likewise.
    """
    if len(values) != 2:
        return None
    for at, value in enumerate(values):
        if value is not None and value.size and _is_idle(instruction, at, value):
            return 1 - at
    return None


def _is_idle(instruction: Instruction, at: int, value: np.ndarray) -> bool:
    """Whether a constant as operand `at` leaves the other operand as it is."""
    neutral = _neutral(instruction, at, value.dtype)
    return neutral is not None and bool((value == neutral).all())


def _neutral(instruction: Instruction, at: int, kind: np.dtype) -> int | np.generic | None:
    """Return the number that, as operand `at`, leaves the other operand as it is; None if none."""
    match instruction.opcode:
        case "add" | "or" | "xor":
            return 0
        case "subtract" if at == 1:
            return 0
        case "multiply":
            return 1
        case "divide" if at == 1:
            return 1
        case "and":
            return np.invert(kind.type(0))
        case "compare" if kind == np.bool_:
            return {"NE": 0, "EQ": 1}.get(instruction.attribute("direction"))
    return None


def dims_of(instruction: Instruction) -> tuple[int, ...]:
    """Return the attribute `dimensions`."""
    text = instruction.attribute("dimensions").strip("{}")
    return tuple(int(d) for d in text.split(",") if d)


def bounds_of(instruction: Instruction) -> tuple[tuple[int, int, int], ...]:
    """Return (first, limit, step) per dim of a slice."""
    found = re.findall(r"\[(\d+):(\d+)(?::(\d+))?\]", instruction.attribute("slice"))
    return tuple((int(a), int(b), int(c or 1)) for a, b, c in found)
