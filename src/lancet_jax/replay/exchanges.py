"""What exchanges mean, on arrays of one process and a link to the others."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lancet_jax.replay.link import Link
from lancet_jax.replay.score import Launch

type Arrays = Sequence[np.ndarray]

_ALIGNED = 64
"""Bytes at a multiple of which XLA:CPU wants an array to begin."""


def exchange(what: Launch, arrays: Arrays, link: Link) -> list[np.ndarray]:
    """Do an exchange and return its results.

    Args:
        what: kind, groups and dims.
        arrays: this process's operands.
        link: to the other processes.
    """
    since = time.perf_counter()
    made = _DOERS[what.kind](what, arrays, link)
    link.settle(since)
    return made


def _all_to_all(what: Launch, arrays: Arrays, link: Link) -> list[np.ndarray]:
    """Block j of the split dim goes to process j, and what comes is put together."""
    (array,) = arrays
    blocks = np.split(array, link.size, axis=what.split)
    came = _swap(link, {peer: blocks[peer] for peer in _others(link)})
    shape = list(blocks[0].shape)
    shape[what.concat] *= link.size
    made = _empty(shape, array.dtype)
    for peer, place in enumerate(np.split(made, link.size, axis=what.concat)):
        place[...] = blocks[peer] if peer == link.rank else _as(came[peer], blocks[peer])
    return [made]


def _all_reduce(what: Launch, arrays: Arrays, link: Link) -> list[np.ndarray]:
    """Every process adds up a share of the elements, in order of rank, and hands it out."""
    shares = [_equal_shares(array, link.size) for array in arrays]
    came = _swap(link, {p: _join([share[p] for share in shares]) for p in _others(link)})
    made = [_empty(share.shape, share.dtype) for share in shares]
    totals = [whole[link.rank] for whole in made]
    for i, (share, total) in enumerate(zip(shares, totals, strict=True)):
        for peer in range(link.size):
            other = share[peer] if peer == link.rank else _piece(came[peer], shares, i)
            np.add(total if peer else np.zeros((), total.dtype), other, out=total)
    back = _swap(link, dict.fromkeys(_others(link), _join(totals)))
    for i, whole in enumerate(made):
        for peer in _others(link):
            whole[peer] = _piece(back[peer], shares, i)
    return list(map(_shaped_as, made, arrays))


def _shaped_as(shares: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Put equal shares together as the array that they are of."""
    return shares.reshape(-1)[: array.size].reshape(array.shape)


def _equal_shares(array: np.ndarray, count: int) -> np.ndarray:
    """Return an array's elements in equal rows, `[count, n]`, the last ones padded with zeros."""
    flat = array.reshape(-1)
    missing = -flat.size % count
    return (np.pad(flat, (0, missing)) if missing else flat).reshape(count, -1)


def _piece(data: bytearray, shares: Arrays, i: int) -> np.ndarray:
    """Return share `i` of a message that holds one of every array."""
    offset = sum(share[0].nbytes for share in shares[:i])
    return np.frombuffer(data, shares[i].dtype, shares[i][0].size, offset)


def _ragged(what: Launch, arrays: Arrays, link: Link) -> list[np.ndarray]:
    """Only filled rows are sent, each to the place where its receiver wants it."""
    source, target, starts, counts, places, _ = arrays
    made = _empty(target.shape, target.dtype)
    made[...] = target
    rows = {
        peer: source[int(starts[peer]) : int(starts[peer]) + int(counts[peer])]
        for peer in range(link.size)
    }
    heads = {peer: np.asarray([places[peer], len(rows[peer])], np.int64) for peer in rows}
    came = _swap(link, {p: _join([heads[p], rows[p]]) for p in _others(link)})
    width = source[:1].size
    for peer in range(link.size):
        if peer == link.rank:
            place, block = int(places[peer]), rows[peer]
        else:
            place, count = (int(x) for x in np.frombuffer(came[peer], np.int64, 2))
            block = np.frombuffer(came[peer], source.dtype, count * width, 16)
            block = block.reshape(count, *source.shape[1:])
        made[place : place + len(block)] = block
    return [made]


def _empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Return memory of an array, as aligned as XLA needs it to take it over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return raw[start : start + size].view(dtype).reshape(shape)


def _others(link: Link) -> list[int]:
    return [peer for peer in range(link.size) if peer != link.rank]


def _swap(link: Link, parts: Mapping[int, np.ndarray]) -> dict[int, bytearray]:
    return link.swap({p: memoryview(_bytes(part)) for p, part in parts.items()})


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _join(arrays: Arrays) -> np.ndarray:
    return np.concatenate([_bytes(array) for array in arrays])


def _as(data: bytearray, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(data, like.dtype).reshape(like.shape)


_DOERS: Mapping[str, Callable[[Launch, Arrays, Link], list[np.ndarray]]] = {
    "all_to_all": _all_to_all,
    "all_reduce": _all_reduce,
    "ragged_all_to_all": _ragged,
}
