"""What an HLO module says, once as jaxlib's own parser reads it and once as hlo_passes does.

Both sides are the same plain tuples, so that they can be compared. jaxlib's side is taken from the
HloModuleProto that its parser makes, and shares no code with the reader that is being checked.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxlib import _hlo

from hlo_passes.base import AnyModule
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.wire import fields, packed

type Leaves = tuple[tuple[str, tuple[int, ...]], ...]
type Rows = tuple[tuple[int, ...], ...]

_ELEMENTS = {
    1: "i1", 30: "i1", 26: "i2", 21: "i4", 2: "i8", 3: "i16", 4: "i32", 5: "i64",
    31: "ui1", 27: "ui2", 22: "ui4", 6: "ui8", 7: "ui16", 8: "ui32", 9: "ui64",
    10: "f16", 11: "f32", 16: "bf16", 12: "f64", 19: "f8e5m2", 28: "f8e4m3", 20: "f8e4m3fn",
    23: "f8e4m3b11fnuz", 29: "f8e3m4", 24: "f8e5m2fnuz", 25: "f8e4m3fnuz", 32: "f4e2m1fn",
    33: "f8e8m0fnu", 35: "f6e3m2fn", 36: "f6e2m3fn", 15: "c64", 18: "c128", 14: "opaque",
    17: "token",
}  # fmt: skip
_TUPLE, _BUFFER = 13, 34
_EXCHANGES = frozenset({
    "all-to-all", "ragged-all-to-all", "all-reduce", "all-reduce-start", "all-gather",
    "all-gather-start", "reduce-scatter", "collective-permute", "collective-permute-start",
    "collective-broadcast",
})  # fmt: skip
_ACROSS_PARTITIONS = ("all-to-all", "ragged-all-to-all", "collective-broadcast")


@dataclass(frozen=True)
class Facts:
    """What is compared of one module.

    Attributes:
        sizes: element type and sizes of every leaf of every instruction's result, by
            (computation, instruction); the keys are the names.
        operands: names of what every instruction reads, by the same.
        order: names of every computation's instructions in order of execution, where the module
            has one.
        groups: who exchanges with whom, by name of the instruction: rows of device ids, pairs of
            a permute; none where all devices are one group.
        trips: how often a loop runs, by name, where the text says so.
        inline: computations that XLA prints as a part of the op that calls them.
    """

    sizes: dict[tuple[str, str], Leaves]
    operands: dict[tuple[str, str], tuple[str, ...]]
    order: dict[str, tuple[str, ...]]
    groups: dict[str, Rows]
    trips: dict[str, int]
    inline: frozenset[str] = frozenset()

    def differences(self, other: "Facts") -> Iterator[str]:
        """Yield what disagrees, `names` or the name of an attribute, and the first of it."""
        left_out = other.inline - {computation for computation, _ in self.sizes}
        unlike = {k for k in self.sizes.keys() ^ other.sizes.keys() if k[0] not in left_out}
        if unlike:
            yield f"names: {sorted(unlike)[:4]}"
        for what in ("sizes", "operands", "order", "groups", "trips"):
            mine, theirs = getattr(self, what), getattr(other, what)
            unlike = [k for k in mine.keys() & theirs.keys() if mine[k] != theirs[k]]
            if unlike:
                k = min(unlike, key=str)
                yield f"{what}: {k}: {mine[k]} for {theirs[k]}"
        for what in ("groups", "trips"):
            if missing := getattr(other, what).keys() - getattr(self, what).keys():
                yield f"{what}: {min(missing)} is not there"


def facts_of_ours(module: AnyModule) -> Facts:
    """Return what hlo_passes read."""
    assert isinstance(module, ScheduledModule)
    sizes, operands, order, groups, trips = {}, {}, {}, {}, {}
    for computation in module.parsed.computations.values():
        for ins in computation.instructions:
            leaves = tuple((leaf.dtype, leaf.shape) for leaf in ins.leaves)
            sizes[computation.name, ins.name] = leaves
            operands[computation.name, ins.name] = ins.operands
        if module.parsed.is_scheduled:
            order[computation.name] = tuple(i.name for i in computation.instructions)
    whole = module.snapshot()
    for graph, _ in whole.walk():
        for op in graph.ops:
            if op.collective is not None:
                groups[op.name] = _plain(op.collective.groups, whole.devices)
            if op.kind == "while":
                trips[op.name] = op.trips
    return Facts(sizes, operands, order, groups, trips)


def facts_of_jaxlib(text: str) -> Facts:
    """Return what jaxlib's parser read.

    Raises:
        RuntimeError: what jaxlib's parser raises of a text that it refuses.
    """
    module = _hlo.hlo_module_from_text(text)
    printed = module.to_string()
    top = _by_number(module.as_serialized_hlo_module_proto())
    replicas, partitions = (max(1, n) for n in _device_counts(printed))
    names: dict[int, str] = {}
    sizes, operands, order, groups, trips = {}, {}, {}, {}, {}
    computations = {}
    for data in top.get(3, []):
        fields_of = _by_number(data)
        computations[fields_of.get(5, [0])[0]] = fields_of
    reached = _reached(computations, top.get(6, [0])[0])
    for number, computation in computations.items():
        name = computation[1][0].decode()
        for data in computation.get(2, []):
            ins = _by_number(data)
            called = names[ins.get(35, [0])[0]] = ins[1][0].decode()
            sizes[name, called] = tuple(_leaves(ins.get(3, [b""])[0]))
            operands[name, called] = tuple(names[i] for i in _integers(ins.get(36, [])))
            opcode = ins[2][0].decode()
            if number in reached and opcode in _EXCHANGES:
                groups[called] = _groups(ins, opcode, replicas, partitions)
            if number in reached and opcode == "while" and (n := _trips(ins)) is not None:
                trips[called] = n
    for number, ids in _schedule(top):
        order[computations[number][1][0].decode()] = tuple(names[i] for i in ids)
    called = {computation[1][0].decode() for computation in computations.values()}
    inline = frozenset(name for name in called if f"%{name} (" not in printed)
    return Facts(sizes, operands, order, groups, trips, inline)


def _by_number(data: bytes) -> dict[int, list]:
    found: dict[int, list] = {}
    for number, _, value, _, _ in fields(data):
        found.setdefault(number, []).append(value)
    return found


def _integers(values: list) -> list[int]:
    """Read a repeated number, packed or not."""
    out = []
    for value in values:
        out += packed(value) if isinstance(value, bytes) else [value]
    return [n - (1 << 64) if n >> 63 else n for n in out]


def _leaves(shape: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    parts = _by_number(shape)
    kind = parts.get(2, [0])[0]
    if kind in (_TUPLE, _BUFFER):
        for inner in parts.get(4, []):
            yield from _leaves(inner)
    else:
        yield _ELEMENTS[kind], tuple(_integers(parts.get(3, [])))


def _device_counts(text: str) -> tuple[int, int]:
    """Return (replicas, partitions) of the header: no field of the proto holds them."""
    header = text[: text.find("\n")].split(", ")
    said = dict(part.split("=", 1) for part in header if part.count("=") == 1)
    return int(said.get("replica_count", 1)), int(said.get("num_partitions", 1))


def _reached(computations: dict[int, dict[int, list]], entry: int) -> set[int]:
    """Return the ids of what runs as steps of its own: the entry, loops, branches and calls."""
    reached, todo = set(), [entry]
    while todo:
        at = todo.pop()
        if at in reached or at not in computations:
            continue
        reached.add(at)
        for data in computations[at].get(2, []):
            ins = _by_number(data)
            if ins[2][0] in (b"while", b"conditional", b"call"):
                todo += _integers(ins.get(38, []))
    return reached


def _groups(ins: dict[int, list], opcode: str, replicas: int, partitions: int) -> Rows:
    """Return the rows of device ids that take part; a device is replica x partitions + partition.

    Whether ids are of replicas, of partitions or of devices is XLA's rule, of
    `GetCollectiveOpGroupMode` in xla/service/collective_ops_utils.cc. Ids beyond those, and groups
    of everybody where there is one replica, are what people write who mean devices.
    """
    has_channel = ins.get(26, [0])[0] > 0
    if opcode.startswith("collective-permute"):
        pairs = [_by_number(pair) for pair in ins.get(52, [])]
        rows = [[pair.get(1, [0])[0], pair.get(2, [0])[0]] for pair in pairs]
    else:
        rows = _listed(ins)
    across = opcode in _ACROSS_PARTITIONS or opcode.startswith("collective-permute")
    of_partitions = has_channel and across
    known = partitions if of_partitions else replicas
    as_written = ins.get(71, [0])[0] or any(i >= known for row in rows for i in row)
    if not as_written and (rows or min(replicas, partitions) > 1):
        rows = rows or [list(range(known))]
        if of_partitions:
            rows = [[r * partitions + p for p in row] for r in range(replicas) for row in rows]
        elif has_channel:
            rows = [[r * partitions + p for r in row for p in range(partitions)] for row in rows]
        else:
            rows = [[r * partitions + p for r in row] for row in rows for p in range(partitions)]
    return _plain(rows, replicas * partitions)


def _plain(rows: Sequence[Sequence[int]], devices: int) -> Rows:
    """Leave out what says no more than that all devices are one group."""
    if len(rows) == 1 and sorted(rows[0]) == list(range(max(devices, len(rows[0])))):
        return ()
    return tuple(map(tuple, rows))


def _listed(ins: dict[int, list]) -> list[list[int]]:
    """Return replica groups of any of the spellings of the proto."""
    if 92 in ins:
        iota = _by_number(ins[92][0])
        shape = _integers(iota[3])
        grid = np.arange(math.prod(shape)).reshape(shape)
        if 4 in iota:
            grid = grid.transpose(_integers(iota[4]))
        return grid.reshape(iota[1][0], iota[2][0]).tolist()
    if 93 in ins:
        return _of_mesh(_by_number(ins[93][0]))
    listed = _by_number(ins[87][0]).get(1, []) if 87 in ins else ins.get(49, [])
    return [_integers(_by_number(group).get(1, [])) for group in listed]


def _of_mesh(found: dict[int, list]) -> list[list[int]]:
    """Return the groups over whole axes of a mesh or parts of them."""
    mesh = _by_number(found[1][0])
    sizes = [_by_number(axis)[2][0] for axis in mesh[1]]
    count = math.prod(sizes)
    ids = np.array(_integers(mesh[2]) if 2 in mesh else range(count))
    if 3 in mesh:
        turn = _by_number(mesh[3][0])
        ids = np.arange(count).reshape(_integers(turn[1])).transpose(_integers(turn[2])).ravel()
    place, wanted = [], []
    for axis in map(_by_number, found.get(2, [])):
        at = axis.get(1, [0])[0]
        sub = _by_number(axis[2][0]) if 2 in axis else {}
        before, size = sub.get(1, [1])[0], sub.get(2, [sizes[at]])[0]
        stride = math.prod(sizes[at + 1 :]) * (sizes[at] // before // size)
        wanted.append((stride, size))
    for device in range(count):
        if all(device // stride % size == 0 for stride, size in wanted):
            place.append(device)
    steps = [0]
    for stride, size in wanted:
        steps = [s + stride * k for s in steps for k in range(size)]
    return [[int(ids[start + step]) for step in steps] for start in place]


def _trips(ins: dict[int, list]) -> int | None:
    """Return the known trip count in a loop's backend config."""
    try:
        said = json.loads(ins.get(43, [b""])[0] or b"{}")
    except ValueError:
        return None
    count = said.get("known_trip_count", {}).get("n") if isinstance(said, dict) else None
    return int(count) if count is not None else None


def _schedule(top: dict[int, list]) -> Iterator[tuple[int, list[int]]]:
    """Yield (computation id, ids of its instructions in order of execution)."""
    for schedule in top.get(7, []):
        for entry in _by_number(schedule).get(1, []):
            parts = _by_number(entry)
            sequence = _by_number(parts[2][0]) if 2 in parts else {}
            yield parts.get(1, [0])[0], _integers(sequence.get(1, []))
