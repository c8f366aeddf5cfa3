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
        found = _fold(instruction, values, made)
    return None if found is None else np.asarray(found).astype(_DTYPES[made.dtype])


def _fold(
    instruction: Instruction, values: Sequence[np.ndarray], made: TensorType
) -> np.ndarray | None:
    first = values[0]
    match instruction.opcode:
        case name if name in _BINARY:
            return _BINARY[name](first, values[1])
        case "divide" if not _is_integer(first):
            return np.divide(first, values[1])
        case "divide" | "remainder" if np.all(values[1] != 0) and made.dtype != "i1":
            if _is_integer(first):
                whole = np.sign(first) * np.sign(values[1]) * (abs(first) // abs(values[1]))
                return whole if instruction.opcode == "divide" else first - whole * values[1]
        case "compare":
            return _COMPARE[instruction.attribute("direction")](first, values[1])
        case "select":
            return np.where(first, values[1], values[2])
        case "not" if made.dtype == "i1" or _is_integer(first):
            return np.invert(first)
        case "negate":
            return -first
        case "sign" if _is_integer(first):
            return np.sign(first)
        case "convert" if _is_exact(first, made):
            return first.astype(_DTYPES[made.dtype])
        case "reshape":
            return first.reshape(made.shape)
        case "transpose":
            return first.transpose(dims_of(instruction))
        case "broadcast":
            return broadcast(first, dims_of(instruction), made)
        case "slice":
            return first[tuple(slice(*part) for part in bounds_of(instruction))]
        case "concatenate":
            return np.concatenate(list(values), dims_of(instruction)[0])
    return None


def broadcast(value: np.ndarray, dims: Sequence[int], made: TensorType) -> np.ndarray:
    """Repeat a constant along the dims that it lacks."""
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
    is_zero, is_one = bool((value == 0).all()), bool((value == 1).all())
    is_bool = value.dtype == np.bool_
    match instruction.opcode:
        case "add" | "or" | "xor":
            return is_zero
        case "subtract":
            return at == 1 and is_zero
        case "multiply":
            return is_one
        case "divide":
            return at == 1 and is_one
        case "and":
            return is_one if is_bool else bool((value == np.invert(value.dtype.type(0))).all())
        case "compare" if is_bool:
            direction = instruction.attribute("direction")
            return (direction == "NE" and is_zero) or (direction == "EQ" and is_one)
    return False


def dims_of(instruction: Instruction) -> tuple[int, ...]:
    """Return the attribute `dimensions`."""
    text = instruction.attribute("dimensions").strip("{}")
    return tuple(int(d) for d in text.split(",") if d)


def bounds_of(instruction: Instruction) -> tuple[tuple[int, int, int], ...]:
    """Return (first, limit, step) per dim of a slice."""
    found = re.findall(r"\[(\d+):(\d+)(?::(\d+))?\]", instruction.attribute("slice"))
    return tuple((int(a), int(b), int(c or 1)) for a, b, c in found)
