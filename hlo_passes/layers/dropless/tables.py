"""What tables of counts and offsets hold, as sums of the counts that they are made from.

A dropless layer counts rows per expert, tells its peers, and makes offsets by adding counts up. So
every entry of a table is a sum of counts, with whole numbers as coefficients. Two such sums are the
same iff they are equal for all counts; here they are compared for counts that are drawn from all
64-bit numbers, with additions modulo 2^64. A difference shows unless the drawn numbers happen to
hide it: a chance below 2^-40 for coefficients below 2^24, and the draw is the same in every run.

Tables are followed for all devices at once: an exchange shows a device what others hold.

What is not a sum of counts (a minimum with a capacity, say) is no table, and is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.stablehlo.body import Body, name_op
from hlo_passes.ir.stablehlo.read import integer, ints, maker_of, reducer, same_operand, shape_of
from hlo_passes.proofs.arithmetic import COMPARE, direction_of, dtype_of, element_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.elements import repeated
from hlo_passes.proofs.engine import Domain, FactRules, NotProved
from hlo_passes.proofs.prefix import is_prefix, is_prefix_scan, starts_from_nothing

_LARGEST = 2**24


@dataclass(frozen=True, slots=True)
class Table:
    """A table on all devices.

    Attributes:
        at: its entries for the drawn counts, int64: `[devices, ...]`, or `[1, ...]` if it is the
            same on all.
        counts: numbers of the values, one per routing, whose counts are summed up; none if the
            entries are those of every run.
    """

    at: np.ndarray
    counts: frozenset[int] = frozenset()

    def on(self, device: int) -> np.ndarray:
        """Return its entries on one device."""
        return self.at[device if len(self.at) > 1 else 0]


class Tables(Domain[Table]):
    """What tables of a block hold.

    Attributes:
        body: the block.
        numbers: its value numbers.
        groups: per exchange, by its place, the devices that take part together.
        devices: number of devices; none if what differs between devices is no table.
    """

    rules: ClassVar[FactRules]

    def __init__(
        self,
        body: Body,
        numbers: Mapping[ir.Value, int],
        groups: Mapping[int, DeviceGroups],
        devices: int,
        experts: Mapping[int, int],
    ) -> None:
        """Begin with the values that count rows: `experts`, for how many, by their numbers."""
        super().__init__()
        self.body, self.numbers, self.groups, self.devices = body, numbers, groups, devices
        self.constants = Constants()
        self._experts, self._drawn = experts, dict[int, np.ndarray]()
        for value, number in numbers.items():
            if number in experts:
                self.say(value, Table(self.counts(number), frozenset({number})))

    def counts(self, number: int) -> np.ndarray:
        """Return the drawn counts of a routing, `[devices, experts]`."""
        if number not in self._drawn:
            random = np.random.default_rng(len(self._drawn) + 1)
            limits = np.iinfo(np.int64)
            size = (self.devices, self._experts[number])
            self._drawn[number] = random.integers(limits.min, limits.max, size)
        return self._drawn[number]

    def unknown(self, value: ir.Value) -> Table:
        """Refuse what no rule knows.

        Raises:
            NotProved: always: the value is no sum of counts.
        """
        raise refusal(maker_of(value), "is no sum of counts")

    def group_of(self, place: int, device: int) -> Sequence[int]:
        """Return the devices that take part in an exchange with a device, in their order.

        Raises:
            NotProved: if there are none.
        """
        for group in self.groups.get(place, ()):
            if device in group:
                return group
        raise NotProved(f"{self.body.where(place)} does not say which devices take part")

    def _find(self, value: ir.Value) -> Table:
        table, dtype, maker = super()._find(value), dtype_of(element_of(value)), maker_of(value)
        if dtype is None or dtype.kind not in "biu" or (dtype.kind != "b" and dtype.itemsize < 4):
            raise refusal(maker, f"gives {element_of(value)}, which does not count exactly")
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not table.counts and table.at.size and not (
            low <= int(table.at.min()) and int(table.at.max()) <= high
        ):  # fmt: skip
            raise refusal(maker, f"gives numbers that {element_of(value)} does not hold")
        return table

    def fixed(self, op: ir.Operation, value: ir.Value) -> np.ndarray:
        """Return what an op reads, if it does not follow from counts.

        Raises:
            NotProved: if it does.
        """
        table = self.of(value)
        if table.counts:
            raise refusal(op, "is no sum of counts")
        return table.at

    def received(self, op: ir.Operation) -> tuple[np.ndarray, np.ndarray]:
        """Return, per device, what all of its group give to an exchange, and its place there.

        `[devices, group, ...]`, in the order of the group, and `[devices]`.

        Raises:
            NotProved: if that is no table.
        """
        if len(op.operands) != 1:
            raise refusal(op, "exchanges several tensors")
        place = self.body.maker[op.results[0]]
        groups = [list(self.group_of(place, device)) for device in range(self.devices)]
        if len({len(group) for group in groups}) != 1:
            raise refusal(op, "has groups of several sizes")
        at = self.of(op.operands[0]).at
        full = np.broadcast_to(at, (self.devices, *at.shape[1:]))
        return full[np.asarray(groups)], np.asarray([g.index(d) for d, g in enumerate(groups)])


def refusal(op: ir.Operation | None, why: str) -> NotProved:
    """Return what to raise for an op that makes no table."""
    return NotProved(f"{'an input of the step' if op is None else name_op(op)} {why}")


def _moved(change: Callable[[ir.Operation, np.ndarray], np.ndarray]):
    """Return a rule for ops that only move entries, or turn their signs."""

    def rule(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
        source = tables.of(op.operands[0])
        return Table(change(op, source.at), source.counts)

    return rule


def _behind(dims: Sequence[int]) -> tuple[int, ...]:
    """Return dims of a table as those of one that has devices in front."""
    return tuple(d + 1 for d in dims)


def _fixed(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    found = tables.constants.all_of(value)
    if found is None:
        raise refusal(op, "is no sum of counts")
    return Table(found.astype(np.int64)[None])


def _partition(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    if not tables.devices:
        raise refusal(op, "is another number on every device")
    return Table(np.arange(tables.devices, dtype=np.int64))


def _same(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    return tables.of(same_operand(op, value))


def _sliced(op: ir.Operation, at: np.ndarray) -> np.ndarray:
    bounds = (ints(op, name) for name in ("start_indices", "limit_indices", "strides"))
    return at[(slice(None), *(slice(*bound) for bound in zip(*bounds, strict=True)))]


def _repeated(op: ir.Operation, at: np.ndarray) -> np.ndarray:
    placed = (0, *_behind(ints(op, "broadcast_dimensions")))
    return repeated(at, placed, (len(at), *shape_of(op.results[0])))


def _dynamic_slice(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    """Starts are brought back inside, so that a slice has its size."""
    source, sizes = tables.of(op.operands[0]), ints(op, "slice_sizes")
    at = source.at
    for dim, (operand, size) in enumerate(zip(list(op.operands)[1:], sizes, strict=True)):
        starts = np.clip(tables.fixed(op, operand), 0, at.shape[dim + 1] - size)
        places = starts[:, None] + np.arange(size)
        count = max(len(at), len(places))
        at = np.broadcast_to(at, (count, *at.shape[1:]))
        lined = places.reshape(-1, *(size if d == dim else 1 for d in range(len(sizes))))
        at = np.take_along_axis(at, np.broadcast_to(lined, (count, *lined.shape[1:])), dim + 1)
    return Table(at, source.counts)


def _concatenate(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    pieces = [tables.of(v) for v in op.operands]
    count = max(len(piece.at) for piece in pieces)
    full = [np.broadcast_to(piece.at, (count, *piece.at.shape[1:])) for piece in pieces]
    counts = frozenset().union(*(piece.counts for piece in pieces))
    return Table(np.concatenate(full, axis=integer(op, "dimension") + 1), counts)


def _reduce(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    if len(op.results) != 1 or reducer(op) != "add" or not starts_from_nothing(op, "add"):
        raise refusal(op, "is no sum of counts")
    source = tables.of(op.operands[0])
    dims = _behind(ints(op, "dimensions"))
    return Table(source.at.sum(axis=dims, dtype=np.int64), source.counts)


def _window(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    dims = [d for d, size in enumerate(ints(op, "window_dimensions")) if size != 1]
    is_sum = len(op.results) == 1 and len(dims) <= 1 and all(is_prefix(op, d) for d in dims)
    if not is_sum or shape_of(op.operands[0]) != shape_of(value):
        raise refusal(op, "is no prefix sum of counts")
    source = tables.of(op.operands[0])
    for dim in dims:
        source = Table(np.cumsum(source.at, axis=dim + 1, dtype=np.int64), source.counts)
    return source


def _scan(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    if not is_prefix_scan(op):
        raise refusal(op, "is no prefix sum of counts")
    source, dim = tables.of(op.operands[0]), integer(op, "dimension") + 1
    if value == op.results[0]:
        return Table(np.cumsum(source.at, axis=dim, dtype=np.int64), source.counts)
    return Table(source.at.sum(axis=dim, dtype=np.int64), source.counts)


def _sum(sign: int):
    def rule(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
        left, right = (tables.of(v) for v in op.operands)
        return Table(left.at + sign * right.at, left.counts | right.counts)

    return rule


def _multiply(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    left, right = (tables.of(v) for v in op.operands)
    for factor, other in ((left, right), (right, left)):
        small = not factor.at.size or int(np.abs(factor.at).max()) < _LARGEST
        if not factor.counts and (small or not other.counts):
            return Table(factor.at * other.at, other.counts)
    raise refusal(op, "is no sum of counts")


def _of_fixed(change: Callable[..., np.ndarray]):
    """Return a rule for ops that give no sum of counts, but may work on fixed numbers."""

    def rule(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
        return Table(np.asarray(change(*(tables.fixed(op, v) for v in op.operands)), np.int64))

    return rule


def _compare(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    return _of_fixed(COMPARE[direction_of(op)])(tables, op, value)


def _select(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    mask, *sides = op.operands
    holds = tables.fixed(op, mask) != 0
    yes, no = (tables.of(v) for v in sides)
    if not shape_of(mask):
        holds = holds.reshape(-1, *(1 for _ in shape_of(value)))
    return Table(np.where(holds, yes.at, no.at), yes.counts | no.counts)


def _converted(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    """Sums wrap around as their types do: what is below zero is not so any more without a sign."""
    table = tables.of(op.operands[0])
    before, after = (dtype_of(element_of(v)) for v in (op.operands[0], value))
    is_wider = before is not None and after is not None and after.itemsize > before.itemsize
    if table.counts and is_wider and before.kind == "u":
        raise refusal(op, "widens a sum of counts without a sign")
    return table


def _divided(change: Callable[..., np.ndarray]):
    """Return a rule for divisions of fixed numbers; by zero, backends make what they like."""

    def rule(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
        if np.any(tables.fixed(op, op.operands[1]) == 0):
            raise refusal(op, "divides by zero")
        return _of_fixed(change)(tables, op, value)

    return rule


def _truncated(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Divide as XLA does, towards zero."""
    return np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right))


def _gather(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    came, _ = tables.received(op)
    dim = integer(op, "all_gather_dim") + 1
    joined = np.concatenate(np.moveaxis(came, 1, 0), axis=dim)
    is_same = bool(np.all(joined == joined[:1]))
    return Table(joined[:1] if is_same else joined, tables.of(op.operands[0]).counts)


def _swap(tables: Tables, op: ir.Operation, value: ir.Value) -> Table:
    came, me = tables.received(op)
    split, concat = integer(op, "split_dimension"), integer(op, "concat_dimension")
    peers = came.shape[1]
    blocks = np.stack(np.split(came, peers, axis=split + 2), axis=2)
    mine = blocks[np.arange(len(me)), :, me]
    joined = np.concatenate(np.moveaxis(mine, 1, 0), axis=concat + 1)
    return Table(joined, tables.of(op.operands[0]).counts)


Tables.rules = {
    "constant": _fixed,
    "iota": _fixed,
    "partition_id": _partition,
    "optimization_barrier": _same,
    "convert": _converted,
    "reshape": _moved(lambda op, at: at.reshape(-1, *shape_of(op.results[0]))),
    "transpose": _moved(lambda op, at: at.transpose(0, *_behind(ints(op, "permutation")))),
    "reverse": _moved(lambda op, at: np.flip(at, _behind(ints(op, "dimensions")))),
    "negate": _moved(lambda op, at: -at),
    "broadcast_in_dim": _moved(_repeated),
    "slice": _moved(_sliced),
    "dynamic_slice": _dynamic_slice,
    "concatenate": _concatenate,
    "reduce": _reduce,
    "reduce_window": _window,
    "scan": _scan,
    "add": _sum(1),
    "subtract": _sum(-1),
    "multiply": _multiply,
    "select": _select,
    "compare": _compare,
    "sign": _of_fixed(np.sign),
    "and": _of_fixed(np.bitwise_and),
    "or": _of_fixed(np.bitwise_or),
    "minimum": _of_fixed(np.minimum),
    "maximum": _of_fixed(np.maximum),
    "divide": _divided(_truncated),
    "remainder": _divided(lambda x, y: x - _truncated(x, y) * y),
    "all_gather": _gather,
    "all_to_all": _swap,
}
