"""Reads how XLA's partitioner spread parameters and results over the devices.

XLA prints a sharding by the axes of a mesh, `{mesh['ep'=8], [{'ep'}, {}]}`, or as a grid of
devices, `{devices=[8,1]<=[8]}`. What is here turns both into axes of one mesh per dim.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hlo_passes.ir.device_groups import mesh_ids

_NAMED = re.compile(
    r"^mesh\[(?P<axes>[^\]]*)\](?:,\s*device_ids=\((?P<ids>.*?)\))?\s*(?:,\s*(?P<rest>.*))?$"
)
_GRID = re.compile(r"^devices=\[(?P<shape>[\d,]+)\](?P<ids>[\d,]+|<=\[[\d,]+\](?:T\([\d,]+\))?)")


@dataclass(frozen=True)
class MeshAxes:
    """A mesh.

    Attributes:
        axes: name and size of every axis, outermost first.
        device_ids: the devices in row-major order; () for 0, 1, 2, ...
    """

    axes: tuple[tuple[str, int], ...]
    device_ids: tuple[int, ...] = ()

    @property
    def devices(self) -> int:
        """Number of devices."""
        return math.prod(size for _, size in self.axes)

    @property
    def grid(self) -> np.ndarray:
        """The devices, a dim per axis."""
        ids = np.asarray(self.device_ids or range(self.devices))
        return ids.reshape([size for _, size in self.axes])


@dataclass(frozen=True)
class Named:
    """A sharding by axes.

    Attributes:
        mesh: whose axes; None where nothing is cut.
        dims: per dim, the axes that cut it, outermost first; () if no dim is cut.
    """

    mesh: MeshAxes | None = None
    dims: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Grid:
    """A sharding by a grid of devices.

    Attributes:
        shape: pieces per dim, and last how many devices hold the same piece.
        device_ids: the devices, row by row.
    """

    shape: tuple[int, ...]
    device_ids: tuple[int, ...]


type Sharding = Named | Grid


def parse_shardings(text: str) -> tuple[Sharding, ...]:
    """Read one sharding, or those of a tuple, as XLA prints them.

    Raises:
        ValueError: if one is neither replicated, nor cuts dims into equal pieces along whole axes.
    """
    text = re.sub(r"/\*.*?\*/", "", text).strip()
    if text.startswith("{{"):
        return tuple(_parse(part) for part in _top_level(text[1:-1]))
    return (_parse(text),)


def _parse(text: str) -> Sharding:
    inner = text.strip()[1:-1].strip()
    if inner == "replicated":
        return Named()
    if match := _NAMED.match(inner):
        return _parse_named(match, text)
    if match := _GRID.match(inner):
        return _parse_grid(match, inner, text)
    raise ValueError(f"a sharding that is not known: {text}")


def _parse_named(match: re.Match[str], text: str) -> Named:
    rest = match["rest"] or ""
    if rest == "replicated":
        return Named()
    sizes = (item.rpartition("=") for item in match["axes"].split(","))
    axes = tuple((_unquoted(name), int(size)) for name, _, size in sizes)
    if not rest.startswith("["):
        raise ValueError(f"a sharding that is not known: {text}")
    end = rest.index("]")
    extra = re.sub(r",\s*replicated=\{[^}]*\}", "", rest[end + 1 :]).strip()
    if extra:
        raise ValueError(f"a sharding that is not known: {text}")
    dims = tuple(_axes_in(dim) for dim in _top_level(rest[1:end]))
    if any({":", "?"}.intersection(name) for dim in dims for name in dim):
        raise ValueError(f"a sharding that cuts along a part of an axis: {text}")
    return Named(MeshAxes(axes, mesh_ids(match["ids"]) or ()), dims)


def _axes_in(dim: str) -> tuple[str, ...]:
    """Return the axes that cut a dim, as in `{'a','b'}`."""
    return tuple(_unquoted(name) for name in dim.strip("{} ").split(",") if name.strip())


def _unquoted(name: str) -> str:
    return name.strip().strip("'")


def _parse_grid(match: re.Match[str], inner: str, text: str) -> Grid:
    tail = inner[match.end() :].strip()
    if tail not in ("", "last_tile_dim_replicate"):
        raise ValueError(f"a sharding that is not known: {text}")
    shape = tuple(map(int, match["shape"].split(",")))
    listed = match["ids"]
    found = mesh_ids(listed.removeprefix("<=")) if "[" in listed else None
    ids = found or tuple(map(int, listed.split(",")))
    return Grid(shape if tail else (*shape, 1), ids)


def _top_level(text: str) -> Iterator[str]:
    """Cut at the commas that no bracket holds."""
    depth, part = 0, ""
    for char in f"{text},":
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            if part.strip():
                yield part.strip()
            part = ""
        else:
            part += char


def named_on(sharding: Sharding, mesh: MeshAxes) -> tuple[tuple[str, ...], ...]:
    """Return the axes of `mesh` that cut every dim; () if no dim is cut.

    Raises:
        ValueError: if the mesh has no such axes.
    """
    if isinstance(sharding, Named):
        if sharding.mesh is None or not any(sharding.dims):
            return ()
        if sharding.mesh != mesh:
            raise ValueError(f"shardings over several meshes: {sharding.mesh.axes}, {mesh.axes}")
        return sharding.dims
    return _axes_of(sharding, mesh)


def _axes_of(grid: Grid, mesh: MeshAxes) -> tuple[tuple[str, ...], ...]:
    """Find axes whose product lays the devices out as a grid does."""
    names = [name for name, _ in mesh.axes]
    for order in itertools.permutations(range(len(names))):
        dims = _deal([mesh.axes[i] for i in order], grid.shape[:-1])
        if dims is None:
            continue
        used = [names.index(name) for dim in dims for name in dim]
        rest = [i for i in range(len(names)) if i not in used]
        laid = mesh.grid.transpose(used + rest).reshape(-1, grid.shape[-1])
        wanted = np.asarray(grid.device_ids).reshape(-1, grid.shape[-1])
        if (np.sort(laid, 1) == np.sort(wanted, 1)).all():
            return dims
    raise ValueError(f"a grid {list(grid.shape)} that no axes of {mesh.axes} make")


def _deal(
    axes: Sequence[tuple[str, int]], sizes: Sequence[int]
) -> tuple[tuple[str, ...], ...] | None:
    """Deal axes out in order so that their products are the sizes; None if they do not fit."""
    left = [axis for axis in axes if axis[1] > 1]
    dims = []
    for size in sizes:
        taken: list[str] = []
        while size > 1 and left and size % left[0][1] == 0:
            name, length = left.pop(0)
            taken.append(name)
            size //= length
        if size > 1:
            return None
        dims.append(tuple(taken))
    return tuple(dims)


def mesh_of(shardings: Sequence[Sharding]) -> MeshAxes | None:
    """Return the mesh that named shardings agree on; None if none names one.

    Raises:
        ValueError: if they name several.
    """
    found = {s.mesh: None for s in shardings if isinstance(s, Named) and s.mesh and any(s.dims)}
    if len(found) > 1:
        raise ValueError(f"shardings over several meshes: {[mesh.axes for mesh in found]}")
    return next(iter(found), None)
