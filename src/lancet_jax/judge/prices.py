"""What a line costs: XLA's own figure where the module carries one, else a roofline, else links."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.errors import InputError
from hlo_passes.ir.collectives import Collective
from lancet_jax.judge.listing import Line, ListedComputation, Listing
from lancet_jax.judge.work import NAMES, Effort, LineWork, bytes_of

EXCHANGES = {
    "all-to-all", "all-reduce", "all-gather", "reduce-scatter", "collective-permute",
    "collective-broadcast", "ragged-all-to-all",
}  # fmt: skip
"""Opcodes that talk to other devices."""

_PAIRS = re.compile(r'source_target_pairs="?\{((?:\{[\d,]+\},?)*)\}')
_COSTS = re.compile(r'"reification_cost":(\[[^\]]*\])')
_ABSURD_US = 1e7
"""XLA writes 1.9e10 us where its model does not apply."""
_UNPRICED_US = 0.01
"""XLA writes this beside fusions that it gives to Triton, whatever their size: no price either. On
an H100 those of attention's softmax took 100 us and more (docs/real-gpu.md)."""


type _Rows = tuple[tuple[int, ...], ...]


class Prices:
    """Prices the lines of one module on one target.

    Args:
        listing: the module.
        costs: the target's figures.
    """

    def __init__(self, listing: Listing, costs: TargetCosts) -> None:
        self._listing = listing
        self._costs = replace(costs, program_devices=listing.devices)
        self._work = LineWork(listing)

    def compute(self, line: Line, block: ListedComputation) -> tuple[float, str]:
        """Return the us of a compute line and where the figure is from."""
        if line.opcode in NAMES:
            return 0.0, "none"
        effort = self._work.of(line, block)
        ours = self._costs.xla_compute and not _widens(effort)
        if ours and (us := _xla_us(line)) is not None:
            return us, "xla"
        return self._roofline_us(line, effort), "roofline"

    def exchange(
        self, line: Line, block: ListedComputation, fill: float = 1.0
    ) -> tuple[float, str]:
        """Return the us of an exchange and where the figure is from.

        Args:
            line: the exchange, or what starts it.
            block: where the line stands.
            fill: rows that the busiest device receives in a ragged exchange, over those of a
                balanced routing.
        """
        kind = exchange_kind(line)
        is_ragged = kind == "ragged-all-to-all"
        table = {other.name: other for other in block.lines}
        read = line.reads[:1] if is_ragged else line.reads
        sent = [t for name in read for t in table[name].makes]
        bytes = bytes_of(sent)
        if kind == "all-gather":
            gathered = line.makes[len(line.makes) - len(sent) :]
            bytes = max(bytes, bytes_of(gathered))
        share = _noted(line, "fill")
        if is_ragged and share is None:
            # On average a device gets what it sends, so no more than its own buffer has room for.
            room = bytes_of(table[line.reads[1]].makes)
            share = min(1.0, room / bytes) if bytes else 1.0
        collective = Collective(
            kind.replace("-", "_"), self.groups(line), round(bytes),
            fill=_or_one(share) * (fill if is_ragged else 1.0), skew=_or_one(_noted(line, "skew")),
        )  # fmt: skip
        cost = self._costs.exchange(collective)
        return cost.us, str(cost.source)

    def _roofline_us(self, line: Line, effort: Effort) -> float:
        profile = self._costs.target.profile
        if effort.flops <= 0 and effort.bytes <= 0:
            return 0.0
        dtype = _stablehlo(effort.product or effort.dtype)
        rate = profile.flops_per_s(dtype, matmul=bool(effort.product), tf32=self._costs.tf32)
        rate *= profile.efficiency["matmul" if effort.product else "vector"]
        memory = profile.hbm_bytes_per_s * profile.hbm_share(line.opcode.replace("-", "_"))
        return max(effort.flops / rate, effort.bytes / memory) * 1e6 + profile.launch_us

    def groups(self, line: Line) -> tuple[tuple[int, ...], ...]:
        """Read who talks to whom.

        Raises:
            InputError: if it is spelled in a way that is not known.
        """
        if pairs := _PAIRS.search(line.text):
            return self._devices(line, _rows(pairs[1]))
        said = re.search(r"replica_groups=(.*)$", line.text)
        if said is None or said[1].startswith("{}"):
            return self._devices(line, ())
        try:
            return self._devices(line, read_groups(said[1]))
        except ValueError as error:
            raise InputError(f"{self._listing.path}:{line.number}", str(error),
                             "write the dump with another version of XLA") from None  # fmt: skip

    def _devices(self, line: Line, rows: _Rows) -> _Rows:
        """Turn a line's ids into those of devices: they may be of replicas, or of partitions.

        Without a channel they are replicas, of each partition by itself; with one they are
        partitions, or, for a sum or gather, replicas with all their partitions. Ids that cannot be
        those, and those of a line that says `use_global_device_ids`, are devices.
        """
        ids = np.arange(self._listing.devices).reshape(self._listing.replicas, -1)
        has_channel = re.search(r"channel_id=[1-9]", line.text) is not None
        adds = exchange_kind(line) in ("all-reduce", "all-gather", "reduce-scatter")
        with_partitions = adds and has_channel
        grid = ids if adds or not has_channel else ids.T  # what an id names is a row
        if not rows and min(grid.shape) > 1 and not with_partitions:
            rows = (tuple(range(len(grid))),)
        is_global = "use_global_device_ids=true" in line.text
        if is_global or max(chain(*rows), default=-1) >= len(grid):
            return rows
        named = [grid[list(row)] for row in rows]
        groups = map(np.ravel, named) if with_partitions else chain(*map(np.transpose, named))
        return tuple(tuple(group.tolist()) for group in groups)


def _noted(line: Line, what: str) -> float | None:
    """Return the figure that a routing measured, as the module carries it; None if it does not."""
    found = re.search(rf'lancet_{what}="([\d.eE+-]+)"', line.text)
    return float(found[1]) if found else None


def _or_one(figure: float | None) -> float:
    return 1.0 if figure is None else figure


def exchange_kind(line: Line) -> str:
    """Return the opcode of the exchange that a line does, starts or ends; "" if it does none.

    A send between devices is a permutation; its other half, which receives, is none.
    """
    if line.opcode in ("send", "send-done"):
        return "" if "is_host_transfer=true" in line.text else "collective-permute"
    if line.opcode in ("custom-call", "custom-call-start"):
        return "ragged-all-to-all" if 'target="ragged_all_to_all' in line.text else ""
    kind = line.opcode.removesuffix("-start").removesuffix("-done")
    return kind if kind in EXCHANGES else ""


def peers(line: Line) -> tuple[str, str]:
    """Return what a send and the line that receives what it sends have in common."""
    pairs = _PAIRS.search(line.text)
    return line.value("channel_id"), pairs[1] if pairs else ""


def read_groups(text: str) -> tuple[tuple[int, ...], ...]:
    """Read `{{0,1},{2,3}}`, `[2,4]<=[4,2]T(1,0)` or `mesh['d'=2,'e'=4] {'e'}` at the begin of text.

    Raises:
        ValueError: if it is none of them.
    """
    if listed := re.match(r"\{((?:\{[\d,\s]*\},?\s*)+)\}", text):
        return _rows(listed[1])
    if iota := re.match(r"\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _as_rows(_grid(iota[2]).reshape(_ints(iota[1])))
    if mesh := re.match(
        r"mesh\w*\[([^\]]*)\](?:,\s*device_ids=\((.*?)\)(?=\s*\{))?\s*\{([^}]*)\}", text
    ):
        sizes = {name: int(n) for name, n in re.findall(r"['\"]?([\w.]+)['\"]?=(\d+)", mesh[1])}
        order = _grid(mesh[2]) if mesh[2] else np.arange(int(np.prod([*sizes.values()])))
        return _over_axes(order.reshape(-1), sizes, mesh[3])
    raise ValueError(f"groups of devices in an unknown spelling: {text[:60]!r}")


def _over_axes(order: np.ndarray, sizes: dict[str, int], over: str) -> tuple[tuple[int, ...], ...]:
    """Group the devices of a mesh along axes, or along parts of axes (`'e':(2)4`)."""
    wanted = re.findall(r"['\"]?([\w.]+)['\"]?(?::\((\d+)\)(\d+))?", over)
    shape: list[int] = []
    place: dict[tuple[str, str], int] = {}
    for axis, size in sizes.items():
        parts = sorted((int(before or 1), int(n or size), before) for name, before, n in wanted
                       if name == axis)  # fmt: skip
        done = 1
        for before, length, key in parts:
            shape += [before // done, length]
            place[axis, key] = len(shape) - 1
            done = before * length
        shape.append(size // done)
    if missing := [name for name, _, _ in wanted if name not in sizes]:
        raise ValueError(f"no mesh axis is called {', '.join(missing)}")
    along = [place[name, before] for name, before, _ in wanted]
    grid = np.moveaxis(order.reshape(shape), along, range(-len(along), 0))
    return _as_rows(grid.reshape(-1, int(np.prod([shape[i] for i in along]))))


def _grid(text: str) -> np.ndarray:
    """Return device ids: listed, or a transposed iota as `[4,2]T(1,0)`."""
    if "[" not in text:
        return np.array(_ints(text))
    sizes, _, axes = text.partition("T")
    shape = _ints(sizes)
    ids = np.arange(int(np.prod(shape))).reshape(shape)
    return ids.transpose(_ints(axes)) if axes else ids


def _rows(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_ints(row) for row in re.findall(r"\{([\d,\s]+)\}", text))


def _as_rows(grid: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, grid.tolist()))


def _ints(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _xla_us(line: Line) -> float | None:
    """Return what XLA's speed-of-light model wrote beside a line."""
    if found := _COSTS.search(line.text):
        costs: Sequence[dict[str, object]] = json.loads(found[1])
        for cost in costs:
            us = cost["exec_time_us"]
            if cost.get("name") != "sol" or not isinstance(us, int | float):
                continue
            if us < _ABSURD_US and us != _UNPRICED_US:
                return float(us)
    return None


def _widens(effort: Effort) -> bool:
    """Whether a product of 16-bit numbers gives 32-bit ones: XLA prices those without its tensor
    cores, fifty times too high.
    """
    return effort.product in ("bf16", "f16") and effort.dtype == "f32"


def _stablehlo(dtype: str) -> str:
    """Spell an integer type as the profiles do."""
    if dtype == "pred":
        return "i1"
    return {"s": "i", "u": "ui"}.get(dtype[0], dtype[0]) + dtype[1:]
