"""Element types of StableHLO, and numbers of them that go wrong: limits, halves, NaN, -0, infinity."""

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

DTYPES = {
    "i1": np.dtype(bool), "i8": np.dtype("i1"), "i16": np.dtype("i2"), "i32": np.dtype("i4"),
    "i64": np.dtype("i8"), "ui8": np.dtype("u1"), "ui16": np.dtype("u2"), "ui32": np.dtype("u4"),
    "f64": np.dtype("f8"), "f32": np.dtype("f4"), "f16": np.dtype("f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16), "f8E4M3FN": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8E5M2": np.dtype(ml_dtypes.float8_e5m2),
}  # fmt: skip
INTEGERS = ("i8", "i16", "i32", "i64", "ui8", "ui16", "ui32")
FLOATS = ("f64", "f32", "f16", "bf16", "f8E4M3FN", "f8E5M2")
_WILD = (
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, math.inf, -math.inf, math.nan, 127.0, 128.0,
    255.0, 256.0, 257.0, 448.0, 65504.0, 2.0**24, 2.0**24 + 2, -(2.0**31), 2.0**31, 3e9, 1e20, 1e-20,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a tensor."""

    shape: tuple[int, ...]
    element: str

    def __str__(self) -> str:
        return f"tensor<{''.join(f'{size}x' for size in self.shape)}{self.element}>"

    @property
    def dtype(self) -> np.dtype:
        """Elements in numpy's terms."""
        return DTYPES[self.element]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def of(self, element: str) -> "Kind":
        """Return the same shape with other elements."""
        return Kind(self.shape, element)

    def shaped(self, *shape: int) -> "Kind":
        """Return other dims with the same elements."""
        return Kind(shape, self.element)


def draw_numbers(rng: np.random.Generator, kind: Kind) -> np.ndarray:
    """Draw elements: small whole numbers, or anything that the type holds."""
    dtype = kind.dtype
    if dtype.kind == "b":
        return rng.integers(0, 2, kind.shape).astype(bool)
    if rng.random() < 0.5:
        low = 0 if dtype.kind == "u" else -3
        return rng.integers(low, 6, kind.shape).astype(dtype)
    with np.errstate(all="ignore"):
        if kind.element in FLOATS:
            most = float(ml_dtypes.finfo(dtype).max)
            return rng.choice([*_WILD, most, -most], kind.shape).astype(dtype)
        info = np.iinfo(dtype)
        edges = [0, 1, 2, info.max, info.max - 1, info.min, info.min + 1, info.max // 2 + 1, 100]
        return np.array(edges, dtype)[rng.integers(0, len(edges), kind.shape)]


def draw_small(rng: np.random.Generator, kind: Kind, low: int = -2, high: int = 4) -> np.ndarray:
    """Draw whole numbers from `low` (0 if the type has no sign) up to and without `high`."""
    low = 0 if kind.dtype.kind in "ub" else low
    return rng.integers(low, 2 if kind.dtype.kind == "b" else high, kind.shape).astype(kind.dtype)


def literal(numbers: np.ndarray, kind: Kind) -> str:
    """Spell a constant, bit for bit."""
    if kind.element == "i1":
        words = ["true" if x else "false" for x in numbers.ravel()]
        if len(set(words)) == 1:
            return f"dense<{words[0]}> : {kind}"
        return f"dense<{str(numbers.tolist()).lower()}> : {kind}"
    flat = np.ascontiguousarray(numbers, kind.dtype).ravel()
    if len({x.tobytes() for x in flat}) == 1:
        flat = flat[:1]
    return f'dense<"0x{flat.tobytes().hex().upper()}"> : {kind}'
