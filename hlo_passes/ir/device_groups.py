"""Who talks to whom: groups as HLO spells them, and the devices that their ids are of."""

import math
import re

import numpy as np

_MESH = re.compile(
    r"^@?mesh\w*\[(?P<axes>[^\]]*)\](?:,\s*device_ids=\((?P<ids>.*)\))?\s*\{(?P<over>[^}]*)\}$"
)
_IOTA = re.compile(r"^\[(?P<shape>[\d,]+)\]<=\[(?P<iota>[\d,]+)\](?:T\((?P<perm>[\d,]+)\))?$")


_BY_MODE = ("all_reduce", "all_gather", "reduce_scatter")
"""Kinds whose groups may hold ids of replicas and stand for all partitions of these."""


def device_groups(
    kind: str,
    rows: tuple[tuple[int, ...], ...],
    *,
    has_channel: bool,
    is_global: bool,
    replicas: int,
    partitions: int,
) -> tuple[tuple[int, ...], ...]:
    """Return who exchanges, as rows of device ids: replica times `partitions`, plus partition.

    What the ids in a module are of depends on how an exchange is spelled: of replicas without a
    channel, of partitions with one; for sums and gathers of replicas and all their partitions with
    a channel, of devices if `use_global_device_ids` says so. Ids that cannot be those are taken
    for devices, as people write them.

    Source: XLA's `GetCollectiveOpGroupMode`, StableHLO's specification of `all_reduce`.

    Args:
        kind: as in `Collective.kind`.
        rows: groups, or pairs (from, to), as the module has them; () for everybody.
        has_channel: whether it has a channel id above 0.
        is_global: whether it says `use_global_device_ids`.
        replicas, partitions: of the module.
    """
    of_replicas = not has_channel or kind in _BY_MODE
    known = replicas if of_replicas else partitions
    if not rows and min(replicas, partitions) > 1 and not (has_channel and of_replicas):
        rows = (tuple(range(known)),)
    if is_global:
        return rows
    if any(id >= known for row in rows for id in row):
        return rows
    every = range(partitions)
    if not of_replicas:
        ids = ([r * partitions + p for p in row] for r in range(replicas) for row in rows)
    elif has_channel:
        ids = ([r * partitions + p for r in row for p in every] for row in rows)
    else:
        ids = ([r * partitions + p for r in row] for row in rows for p in every)
    return tuple(map(tuple, ids))


def groups_from_mesh(
    axes: tuple[tuple[str, int], ...],
    over: tuple[str, ...],
    device_ids: tuple[int, ...] | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Expand an exchange over mesh axes to rows of device ids.

    Args:
        axes: name and size of every mesh axis, outermost first.
        over: the axes that take part. `name:(before)size` names a sub-axis of `size`
            positions, with `before` the product of the sub-axes left of it.
        device_ids: the mesh's devices in row-major order; by default 0, 1, 2, ...

    Raises:
        ValueError: if `over` names an axis that the mesh lacks.
    """
    parsed = [_sub_axis(axis) for axis in over]
    pieces = [
        (name, before, length)
        for name, size in axes
        for before, length in _cut_axis(size, [(b, n) for axis, b, n in parsed if axis == name])
    ]
    sizes = [length for _, _, length in pieces]
    place = {(name, before): i for i, (name, before, _) in enumerate(pieces)}
    missing = [axis for axis, before, _ in parsed if (axis, before) not in place]
    if missing:
        raise ValueError(f"mesh axes {missing} are not among {[name for name, _ in axes]}")
    order = [place[axis, before] for axis, before, _ in parsed]
    count = math.prod(sizes)
    ids = np.arange(count) if device_ids is None else np.asarray(device_ids)
    grid = ids.reshape(sizes)
    rest = [i for i in range(len(sizes)) if i not in order]
    rows = grid.transpose(rest + order).reshape(-1, math.prod(sizes[i] for i in order))
    return tuple(tuple(int(x) for x in row) for row in rows)


def _sub_axis(text: str) -> tuple[str, int, int]:
    """Read `name` or `name:(before)size` as (name, before, size); size 0 is the whole axis."""
    match = re.match(r"^(.*):\((\d+)\)(\d+)$", text)
    return (match[1], int(match[2]), int(match[3])) if match else (text, 1, 0)


def _cut_axis(size: int, subs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cut an axis at its sub-axes: (product of the sizes before, size) of every piece."""
    pieces, done = [], 1
    for before, length in sorted(subs):
        if before > done:
            pieces.append((done, before // done))
        pieces.append((before, length or size))
        done = before * (length or size)
    if done < size or not pieces:
        pieces.append((done, size // done))
    return pieces


def parse_hlo_groups(text: str) -> tuple[tuple[int, ...], ...]:
    """Read HLO's `replica_groups` in any of its three spellings.

    `{{0,1},{2,3}}` (listed), `[2,4]<=[4,2]T(1,0)` (iota) and `mesh['d'=2,'e'=4] {'e'}` (axes).

    Raises:
        ValueError: if `text` is none of them.
    """
    text = text.strip()
    if text.startswith("{"):
        rows = re.findall(r"\{([\d,\s]*)\}", text[1:-1])
        return tuple(tuple(map(int, row.split(","))) for row in rows if row.strip())
    if match := _IOTA.match(text):
        shape, iota = (tuple(map(int, match[k].split(","))) for k in ("shape", "iota"))
        grid = np.arange(math.prod(iota)).reshape(iota)
        if match["perm"]:
            grid = grid.transpose(tuple(map(int, match["perm"].split(","))))
        return tuple(tuple(int(x) for x in row) for row in grid.reshape(shape))
    if match := _MESH.match(text):
        axes = tuple(
            (name.strip().strip("'\""), int(size))
            for name, _, size in (item.rpartition("=") for item in match["axes"].split(","))
        )
        names = tuple(_axis_name(part) for part in match["over"].split(",") if part.strip())
        return groups_from_mesh(axes, names, mesh_ids(match["ids"]))
    raise ValueError(f"replica groups in a spelling that is not known: {text!r}")


def _axis_name(text: str) -> str:
    return text.strip().replace("'", "").replace('"', "")


def mesh_ids(text: str | None) -> tuple[int, ...] | None:
    """Read a mesh's device ids, listed (`0,2,1,3`) or as an iota (`[2,4]T(1,0)`)."""
    if not text:
        return None
    if "[" not in text:
        return tuple(map(int, text.split(",")))
    shape, _, perm = text.partition("T(")
    sizes = tuple(map(int, shape.strip(" []<=").split(",")))
    grid = np.arange(math.prod(sizes)).reshape(sizes)
    if perm:
        grid = grid.transpose(tuple(map(int, perm.strip(" )").split(","))))
    return tuple(int(x) for x in grid.reshape(-1))
