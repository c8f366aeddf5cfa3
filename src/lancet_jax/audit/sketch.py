"""Random projections: what stays of an output that there is no memory to keep.

The difference of two outputs projects to the difference of their projections. With random signs the
mean square of those is the squared length of the difference (Johnson and Lindenstrauss 1984;
signs: Achlioptas 2003), so outputs can be compared after the first is gone. Integers and what is
not finite are compared by a hash.
"""

import functools
from dataclasses import dataclass
from hashlib import blake2b

import jax
import numpy as np

from lancet_jax.audit.leaves import Deviation, chunks, wide

_COUNT = 16
"""Projections of an array: a difference is found to about a fifth of its length."""
_ROW = 4096
"""Elements that share one row of signs; every row of elements has a sign of its own besides."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What stays of an array.

    Attributes:
        bits: hash of every bit.
        exact: hash of shape and type, of integers, and of where floats are not finite.
        projections: of the finite floats.
        length: root of the sum of their squares.
    """

    bits: bytes
    exact: bytes
    projections: tuple[float, ...]
    length: float

    @staticmethod
    def of(array: np.ndarray) -> "Sketch":
        """Project an array."""
        bits, exact = blake2b(), blake2b(f"{array.shape} {array.dtype}".encode())
        is_exact = not jax.dtypes.issubdtype(array.dtype, np.inexact)
        total, square = np.zeros(_COUNT), 0.0
        rng = np.random.default_rng(1)
        for number, chunk in enumerate(chunks(array)):
            bits.update(chunk.tobytes())
            if is_exact:
                continue
            numbers = wide(chunk)
            numbers = numbers.view(np.float64) if np.iscomplexobj(numbers) else numbers
            is_finite = np.isfinite(numbers)
            if not is_finite.all():
                what = np.isnan(numbers) + 2 * np.isposinf(numbers)
                exact.update(b"%d " % number + (what + 4 * ~is_finite).astype(np.uint8).tobytes())
                numbers = np.where(is_finite, numbers, 0.0)
            rows = np.pad(numbers, (0, -numbers.size % _ROW)).reshape(-1, _ROW)
            total += np.sum(rows @ _signs() * rng.choice((-1.0, 1.0), (len(rows), _COUNT)), 0)
            square += float(np.sum(numbers * numbers))
        if is_exact:
            exact.update(bits.digest())
        return Sketch(bits.digest(), exact.digest(), tuple(total), square**0.5)

    def deviation(self, other: "Sketch") -> Deviation:
        """Compare what should be with `other`: lengths take the place of largest elements."""
        if self.bits == other.bits:
            return Deviation(True, 0.0, self.length)
        if self.exact != other.exact:
            return Deviation(False, float("inf"), self.length)
        gaps = np.subtract(self.projections, other.projections)
        return Deviation(False, float(np.sqrt(np.mean(gaps * gaps))), self.length)


@functools.cache
def _signs() -> np.ndarray:
    """Return the signs of a row of elements, for every projection `[row, count]`."""
    return np.random.default_rng(0).choice((-1.0, 1.0), (_ROW, _COUNT))
