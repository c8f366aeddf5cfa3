"""Who talks to whom: groups as HLO spells them, and the devices that their ids are of."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

_MESH = re.compile(
    r"^@?mesh\w*\[(?P<axes>[^\]]*)\](?:,\s*device_ids=\((?P<ids>.*)\))?\s*\{(?P<over>[^}]*)\}$"
)
_IOTA = re.compile(r"^\[(?P<shape>[\d,]+)\]<=\[(?P<iota>[\d,]+)\](?:T\((?P<perm>[\d,]+)\))?$")


type DeviceGroups = Sequence[Sequence[int]]
"""Who exchanges with whom: device ids, a row for each group; of permutations, pairs (from, to)."""

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
    grid = np.arange(replicas * partitions).reshape(replicas, partitions)
    of_replicas = not has_channel or kind in _BY_MODE
    with_partitions = has_channel and of_replicas
    named = grid if of_replicas else grid.T  # an id names a row of it
    if not rows and min(replicas, partitions) > 1 and not with_partitions:
        rows = (tuple(range(len(named))),)
    if is_global or max(chain(*rows), default=-1) >= len(named):
        return rows
    groups = [named[list(row)] for row in rows]
    if with_partitions:
        return _as_rows(map(np.ravel, groups))
    return _as_rows(_columns(groups, group_first=of_replicas))


def _columns(groups: list[np.ndarray], *, group_first: bool) -> Iterable[np.ndarray]:
    """Return the columns of grids, grid by grid or column by column: one is one exchange."""
    columns = [group.T for group in groups]
    return chain(*columns) if group_first else chain(*zip(*columns, strict=True))


def _as_rows(arrays: Iterable[np.ndarray]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(array.tolist()) for array in arrays)


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
    sub_axes = _sub_axes_of(axes, parsed)
    sizes = list(sub_axes.values())
    missing = [axis for axis, before, _ in parsed if (axis, before) not in sub_axes]
    if missing:
        raise ValueError(f"mesh axes {missing} are not among {[name for name, _ in axes]}")
    places = list(sub_axes)
    order = [places.index((axis, before)) for axis, before, _ in parsed]
    ids = np.arange(math.prod(sizes)) if device_ids is None else np.asarray(device_ids)
    rest = [i for i in range(len(sizes)) if i not in order]
    members = math.prod(sizes[i] for i in order)
    return _as_rows(ids.reshape(sizes).transpose(rest + order).reshape(-1, members))


def _sub_axes_of(
    axes: tuple[tuple[str, int], ...], parsed: list[tuple[str, int, int]]
) -> dict[tuple[str, int], int]:
    """Return the sizes of the sub-axes that a mesh falls into, by name and sizes before."""
    return {
        (name, before): length
        for name, size in axes
        for before, length in _cut_axis(size, [(b, n) for axis, b, n in parsed if axis == name])
    }


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
        return tuple(_integers(row) for row in rows if row.strip())
    if match := _IOTA.match(text):
        iota = _integers(match["iota"])
        grid = np.arange(math.prod(iota)).reshape(iota)
        if match["perm"]:
            grid = grid.transpose(_integers(match["perm"]))
        return _as_rows(grid.reshape(_integers(match["shape"])))
    if match := _MESH.match(text):
        sizes = (item.rpartition("=") for item in match["axes"].split(","))
        axes = tuple((name.strip().strip("'\""), int(size)) for name, _, size in sizes)
        names = tuple(_axis_name(part) for part in match["over"].split(",") if part.strip())
        return groups_from_mesh(axes, names, mesh_ids(match["ids"]))
    raise ValueError(f"replica groups in a spelling that is not known: {text!r}")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _axis_name(text: str) -> str:
    return text.strip().replace("'", "").replace('"', "")


def mesh_ids(text: str | None) -> tuple[int, ...] | None:
    """Read a mesh's device ids, listed (`0,2,1,3`) or as an iota (`[2,4]T(1,0)`)."""
    if not text:
        return None
    if "[" not in text:
        return _integers(text)
    shape, _, perm = text.partition("T(")
    sizes = _integers(shape.strip(" []<="))
    grid = np.arange(math.prod(sizes)).reshape(sizes)
    if perm:
        grid = grid.transpose(_integers(perm.strip(" )")))
    return tuple(int(x) for x in grid.reshape(-1))
