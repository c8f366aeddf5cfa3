"""Compares all outputs of a step, as far as they lie on this process's devices."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

import jax
import numpy as np

from lancet_jax.audit.leaves import Deviation, bits, is_key
from lancet_jax.audit.sketch import Sketch


def sketches(outputs: Sequence[Any]) -> list[list[Sketch]]:
    """Return what stays of every output, device by device."""
    return [_read(array, Sketch.of) for array in outputs]


def compared(expected: Sequence[Any], got: Sequence[Any]) -> list[Deviation]:
    """Return how far every output is off, on the device where it is farthest.

    Args:
        expected: outputs.
        got: what they are compared with, or the sketches of that.
    """
    return [_compared(a, b) for a, b in zip(expected, got, strict=True)]


def _compared(expected: Any, got: Any) -> Deviation:
    if not isinstance(got, jax.Array):
        pairs = zip(_read(expected, Sketch.of), got, strict=True)
        return reduce(or_, (a.deviation(b) for a, b in pairs), Deviation(True))
    lies_alike = expected.sharding.is_equivalent_to(got.sharding, expected.ndim)
    if expected.shape != got.shape or not lies_alike:
        return Deviation(False, float("inf"))
    found = map(Deviation.of, _read(expected, bits), _read(got, bits))
    return reduce(or_, found, Deviation(True))


def _read(array: Any, how: Callable[[np.ndarray], Any]) -> list[Any]:
    """Read what every device of this process holds of an array."""
    plain = jax.random.key_data(array) if is_key(array) else array
    return [how(np.asarray(shard.data)) for shard in plain.addressable_shards]
