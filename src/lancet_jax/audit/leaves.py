"""How far one output of a step is from the same output of the step compiled otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

_CHUNK = 1 << 22
"""Elements that are widened at a time: what is compared may fill half the memory."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far an output is from what it should be.

    Attributes:
        is_identical: whether every bit agrees.
        largest: the largest |a - b|; infinite where only one of them is a number.
        scale: the largest |a| that is finite.
    """

    is_identical: bool
    largest: float = 0.0
    scale: float = 0.0

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest element."""
        return self.largest / (self.scale or 1.0)

    def __or__(self, other: "Deviation") -> "Deviation":
        """Return the deviation of both parts of an output together."""
        return Deviation(
            self.is_identical and other.is_identical,
            max(self.largest, other.largest),
            max(self.scale, other.scale),
        )

    @staticmethod
    def of(a: np.ndarray, b: np.ndarray) -> "Deviation":
        """Compare what should be, `a`, with what is, `b`."""
        if a.shape != b.shape or a.dtype != b.dtype:
            return Deviation(False, float("inf"))
        found = Deviation(True)
        for x, y in zip(chunks(a), chunks(b), strict=True):
            found |= _deviation(x, y)
        return found


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield an array piece by piece, flat."""
    flat = np.ascontiguousarray(array).reshape(-1)
    yield from (flat[start : start + _CHUNK] for start in range(0, max(flat.size, 1), _CHUNK))


def bits(leaf: Any) -> np.ndarray:
    """Return an output as NumPy has it; a typed random key as the integers that it is made of."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def is_key(leaf: Any) -> bool:
    """Whether an output is a typed random key."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def wide(array: np.ndarray) -> np.ndarray:
    """Return numbers in 64 bits."""
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _deviation(a: np.ndarray, b: np.ndarray) -> Deviation:
    is_identical = np.array_equal(a.view(np.uint8), b.view(np.uint8))
    a, b = wide(a), wide(b)
    sizes = np.abs(a)
    scale = float(np.max(sizes[np.isfinite(sizes)], initial=0.0))
    if is_identical:
        return Deviation(True, 0.0, scale)
    with np.errstate(invalid="ignore"):
        gaps = np.abs(a - b)
    gaps[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    gaps[np.isnan(gaps)] = np.inf
    return Deviation(False, float(np.max(gaps, initial=0.0)), scale)
