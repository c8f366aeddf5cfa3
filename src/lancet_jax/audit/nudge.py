"""Arguments moved in their last bit: how far the results move then is how well they are defined.

Adam divides a gradient by its own size, a router sends a token here or there: what is rounding in
one place can be a visible difference in another, in any two programs of one step. A step's answer
to the least change of its arguments tells such a difference from a wrong one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lancet_jax.audit.leaves import is_key, wide


def nudged(args: Sequence[Any], unit_of: Callable[[Any], float]) -> list[Any]:
    """Return arguments whose floats are moved by one unit in the last place, up or down by lot.

    What lies on several devices, or processes, moves alike on all.

    Args:
        args: what a step is called with; it stays as it is.
        unit_of: gives the unit roundoff of the arithmetic on a type.
    """
    return [_nudged(x, i, unit_of) for i, x in enumerate(args)]


def _nudged(x: Any, place: int, unit_of: Callable[[Any], float]) -> Any:
    is_array = isinstance(x, (jax.Array, np.ndarray)) and not is_key(x)
    if not is_array or not jax.dtypes.issubdtype(x.dtype, np.inexact):
        return x
    step = 2 * unit_of(x.dtype)
    if isinstance(x, np.ndarray):
        return _moved(x, step, [place])
    parts = [
        jax.device_put(
            _moved(np.asarray(part.data), step, [place, *_begin(part)]), part.data.sharding
        )
        for part in x.addressable_shards
    ]
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)


def _begin(shard: Any) -> list[int]:
    """Return where a shard begins in its array."""
    return [part.start or 0 for part in shard.index]


def _moved(x: np.ndarray, step: float, seed: list[int]) -> np.ndarray:
    signs = np.random.default_rng(seed).choice((-step, step), x.shape)
    return (wide(x) * (1 + signs)).astype(x.dtype)
