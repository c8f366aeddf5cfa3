"""Times by experiment: of exchanges over payload, and of compute ops by shape. Overrides formulas.

A table is a JSON file. `source` says whether its times were read off a clock (`measured`) or out of
XLA's own estimator (`xla`); only the former may contradict nothing larger being faster.
"""

from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from hlo_passes.cost.curve import Curve
from hlo_passes.cost.model import CostSource
from hlo_passes.cost.target import Cluster
from hlo_passes.errors import InputError, OptionError
from hlo_passes.files import read_file, write_atomically
from hlo_passes.ir.collectives import KINDS

SCHEMA = 1

_DIP = 0.2
"""A larger payload that is faster by more than this share is a disturbed measurement."""


class ExchangeTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times of one kind of exchange.

    Attributes:
        kind: as in `Collective.kind`.
        group_size: devices of a group.
        nodes: nodes that a group reaches.
        points: (bytes of one device's payload, us).
    """

    kind: str
    group_size: int
    nodes: int = 1
    points: tuple[tuple[int, float], ...]


class OpTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time of one compute op, or of the kernel that it is the last op of.

    Attributes:
        kind: as in `Op.kind`.
        operands: types of its operands, as `bf16[8,64]`.
        dtype: as in `Op.dtype`.
        us: its time.
        kernel: name of the kernel (`kernel_names`), with all that is fused into it; "" for the
            time of the op alone, whatever stands around it.
        spread: distance of the quartiles as a share of `us`; 0 where it is not known.
        flops, bytes, matmul: the kernel's work, for kernels that were not measured.
    """

    kind: str
    operands: tuple[str, ...]
    dtype: str
    us: float
    kernel: str = ""
    spread: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    matmul: bool = False


class CostTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Times of exchanges and ops on one target.

    Attributes:
        schema: version of this format.
        source: `measured` or `xla`.
        target: what it holds for, as `h100:1x8`.
        date: when it was made, `2026-11-24`.
        versions: of what made it: jax, a driver, NCCL.
        note: what a reader has to know.
        exchanges: at most one entry per kind, group size and nodes.
        ops: at most one entry per kernel, or per kind, operand types and dtype.
    """

    schema: int = SCHEMA
    source: Literal["measured", "xla"]
    target: str
    date: str
    versions: dict[str, str] = {}
    note: str = ""
    exchanges: tuple[ExchangeTimes, ...] = ()
    ops: tuple[OpTime, ...] = ()

    @property
    def cost_source(self) -> CostSource:
        """What a cost from this table may call itself."""
        return CostSource(self.source)

    def exchange_us(self, kind: str, group_size: int, nodes: int, bytes: float) -> float | None:
        """Return the us of an exchange; None if the table has none of its kind and group.

        A ragged all-to-all without times of its own takes those of a dense one of its bytes.

        Args:
            kind: as in `Collective.kind`.
            group_size: how many devices exchange with each other.
            nodes: on how many nodes they are.
            bytes: payload of one device.
        """
        for name in (kind, kind.removeprefix("ragged_")):
            if (curve := self.curves.get((name, group_size, nodes))) is not None:
                return curve.at(bytes)
        return None

    def op_us(self, kind: str, operands: tuple[str, ...], dtype: str) -> float | None:
        """Return the us of a compute op; None if it is not in the table.

        Args:
            kind: StableHLO's name of the op.
            operands: types of what it reads.
            dtype: what it computes in.
        """
        return self._times.get((kind, operands, dtype))

    @cached_property
    def kernels(self) -> dict[str, OpTime]:
        """Kernels by name."""
        return {op.kernel: op for op in self.ops if op.kernel}

    @cached_property
    def curves(self) -> dict[tuple[str, int, int], Curve]:
        """Curves by (kind, group size, nodes)."""
        return {(e.kind, e.group_size, e.nodes): Curve.of(e.points) for e in self.exchanges}

    @cached_property
    def _times(self) -> dict[tuple[str, tuple[str, ...], str], float]:
        return {(op.kind, op.operands, op.dtype): op.us for op in self.ops if not op.kernel}

    def check(self, where: str = "<table>") -> None:
        """Raise unless the table makes sense.

        Raises:
            InputError: naming the entry: an unknown kind or schema, an entry twice, a point that
                is none, or a measured payload much faster than a smaller one.
        """
        if self.schema != SCHEMA:
            raise InputError(where, f"table schema {self.schema}, this version reads {SCHEMA}",
                             "measure again")  # fmt: skip
        seen: set[tuple[object, ...]] = set()
        for entry in self.exchanges:
            place = f"{where}: {entry.kind} of {entry.group_size} devices on {entry.nodes} nodes"
            _once(seen, (entry.kind, entry.group_size, entry.nodes), place)
            _check_exchange(entry, place, self.source == "measured")
        for op in self.ops:
            place = f"{where}: {op.kind}({', '.join(op.operands)}) {op.dtype}"
            _once(seen, (op.kernel,) if op.kernel else (op.kind, op.operands, op.dtype), place)
            if not 0 <= op.us < float("inf"):
                raise InputError(place, f"{op.us} us is no time", "measure it again")

    def check_device(self, target: Cluster) -> None:
        """Raise unless the table is of the target's kind of device.

        Raises:
            OptionError: naming both kinds.
        """
        device = self.target.partition(":")[0]
        if device != target.profile.name:
            raise OptionError(
                f"target {target.name!r}", f"the table of costs is of {device} devices",
                "name no other target, or calibrate on such devices",
            )  # fmt: skip

    def to_json(self) -> bytes:
        """Return the table as JSON, one line per entry."""
        fields = msgspec.json.decode(msgspec.json.encode(self), type=dict[str, msgspec.Raw])
        lines = [f' "{name}": {_layout(bytes(value))}' for name, value in fields.items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    @staticmethod
    def from_json(data: bytes, where: str = "<table>") -> "CostTable":
        """Read a table.

        Raises:
            InputError: if `data` is no table of this schema, or `check` finds fault with it.
        """
        try:
            table = msgspec.json.decode(data, type=CostTable)
        except msgspec.MsgspecError as error:
            raise InputError(
                where, f"not a cost table: {error}", "write it with CostTable.save"
            ) from None
        table.check(where)
        return table

    def save(self, path: str | Path) -> None:
        """Write the table to `path`, whole or not at all.

        Raises:
            InputError: if it makes no sense or cannot be written there.
        """
        self.check(str(path))
        write_atomically(Path(path), self.to_json())

    @staticmethod
    def load(path: str | Path) -> "CostTable":
        """Read the table at `path`.

        Raises:
            InputError: if the file cannot be read or holds no table.
        """
        return CostTable.from_json(read_file(path, "name a table file"), str(path))


def _once(seen: set[tuple[object, ...]], key: tuple[object, ...], place: str) -> None:
    if key in seen:
        raise InputError(place, "stands there twice", "merge the points into one entry")
    seen.add(key)


def _check_exchange(entry: ExchangeTimes, place: str, measured: bool) -> None:
    if entry.kind not in KINDS:
        raise InputError(
            place, "no exchange of that kind", f"use one of {', '.join(sorted(KINDS))}"
        )
    if entry.group_size < 2 or not 1 <= entry.nodes <= entry.group_size:
        raise InputError(place, "no such group", "give 2 devices or more, on 1 node or more")
    try:
        dips = Curve.of(entry.points).dips(_DIP)
    except ValueError as error:
        raise InputError(place, str(error), "drop the point, or measure again") from None
    if measured and dips:
        raise InputError(
            place,
            f"{dips[0]:,.0f} bytes take over {_DIP:.0%} less time than a smaller payload",
            "measure with more repetitions on an idle machine, or drop the point",
        )


def _layout(value: bytes) -> str:
    """Put every entry of a list of objects on a line of its own."""
    if not value.startswith(b"[{"):
        return value.decode()
    entries = msgspec.json.decode(value, type=list[msgspec.Raw])
    return "[\n  " + ",\n  ".join(bytes(entry).decode() for entry in entries) + "\n ]"
