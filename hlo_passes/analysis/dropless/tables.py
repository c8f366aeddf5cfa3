"""What tables of counts and offsets hold, as sums of the counts that they are made from.

A dropless layer counts rows per expert, tells its peers, and makes offsets by adding counts up. So
every entry of a table is a sum of counts, with whole numbers as coefficients. Two such sums are the
same iff they are equal for all counts; here they are compared for counts that are drawn from all
64-bit numbers, with additions modulo 2^64. A difference shows unless the drawn numbers happen to
hide it: a chance below 2^-40 for coefficients below 2^24, and the draw is the same in every run.

What is not a sum of counts (a minimum with a capacity, say) is no table, and is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.analysis.cuts import NoSplit
from hlo_passes.analysis.dropless import table_ops
from hlo_passes.analysis.split_rules.reduce import (
    is_prefix,
    is_prefix_scan,
    reducer,
    starts_from_nothing,
)
from hlo_passes.ir.attributes import integer, ints, shape_of
from hlo_passes.ir.body import Body

type Groups = Sequence[Sequence[int]]
type Devices = frozenset[int] | None
"""On which devices a table is the same; None for all."""

type _Rule = Callable[["Tables", int, ir.Value, int], "Table"]

_LARGEST = 2**24


@dataclass(frozen=True, slots=True)
class Table:
    """A table on one device.

    Attributes:
        at: its entries for the drawn counts, int64.
        counts: numbers of the values, one per routing, whose counts are summed up; none if the
            entries are those of every run.
    """

    at: np.ndarray
    counts: frozenset[int] = frozenset()


@dataclass
class Tables:
    """Answers what tables of a block hold.

    Attributes:
        body: the block.
        numbers: its value numbers.
        groups: per exchange, by its place, the devices that take part together.
        devices: number of devices; none if what differs between devices is no table.
        experts: per number of a value that counts rows, how many experts it counts for.
    """

    body: Body
    numbers: Mapping[ir.Value, int]
    groups: Mapping[int, Groups]
    devices: int
    experts: Mapping[int, int]
    _known: dict[int, dict[object, Table]] = field(default_factory=dict)
    _shared: dict[object, list[tuple[Devices, Table]]] = field(default_factory=dict)
    _drawn: dict[int, np.ndarray] = field(default_factory=dict)
    _scopes: list[Devices] = field(default_factory=lambda: [None])

    def counts(self, number: int) -> np.ndarray:
        """Return the drawn counts of a routing, `[devices, experts]`."""
        if number not in self._drawn:
            random = np.random.default_rng(len(self._drawn) + 1)
            limits = np.iinfo(np.int64)
            size = (self.devices, self.experts[number])
            self._drawn[number] = random.integers(limits.min, limits.max, size)
        return self._drawn[number]

    def of(self, value: ir.Value, device: int) -> Table:
        """Return a table as one device holds it.

        Raises:
            NoSplit: if it is no sum of counts.
        """
        key = self.numbers.get(value, value)
        for devices, table in self._shared.get(key, ()):
            if devices is None or device in devices:
                self._narrow(devices)
                return table
        known = self._known.setdefault(device, {})
        if key in known:
            self._narrow(frozenset({device}))
            return known[key]
        self._scopes.append(None)
        try:
            table = self._find(value, device)
        finally:
            devices = self._scopes.pop()
        if devices is None or len(devices) > 1:
            self._shared.setdefault(key, []).append((devices, table))
        else:
            known[key] = table
        self._narrow(devices)
        return table

    def _narrow(self, devices: Devices) -> None:
        """Note that what is being found is the same on these devices at most."""
        if devices is not None:
            outer = self._scopes[-1]
            self._scopes[-1] = devices if outer is None else outer & devices

    def assume(self, value: ir.Value, table: Table) -> None:
        """Say what a value holds on the first device."""
        self._known.setdefault(0, {})[self.numbers.get(value, value)] = table

    def forget(self, device: int) -> None:
        """Free the tables of a device."""
        self._known.pop(device, None)

    def group_of(self, place: int, device: int) -> Sequence[int]:
        """Return the devices that take part in an exchange with a device, in their order.

        Raises:
            NoSplit: if there are none.
        """
        for group in self.groups.get(place, ()):
            if device in group:
                return group
        raise NoSplit(f"{self.body.where(place)} does not say which devices take part")

    def _find(self, value: ir.Value, device: int) -> Table:
        number = self.numbers.get(value, -1)
        if number in self.experts:
            self._narrow(frozenset({device}))
            return Table(self.counts(number)[device], frozenset({number}))
        place, kind = self.body.made_by(value)
        rule = _RULES.get(kind)
        if rule is None:
            raise self.refusal(place, kind, "is no sum of counts")
        element = ir.RankedTensorType(value.type).element_type
        if not isinstance(element, ir.IntegerType) or 1 < element.width < 32:
            raise self.refusal(place, kind, f"gives {element}, which does not count exactly")
        table = rule(self, place, value, device)
        if not table.counts and not table_ops.fits(table.at, element):
            raise self.refusal(place, kind, f"gives numbers that {element} does not hold")
        return table

    def refusal(self, place: int, kind: str, why: str) -> NoSplit:
        """Return what to raise for an op that makes no table."""
        return NoSplit(f"{self.body.where(place) if kind else 'an input of the step'} {why}")

    def fixed(self, place: int, value: ir.Value, device: int) -> np.ndarray:
        """Return a table that does not follow from counts.

        Raises:
            NoSplit: if it does.
        """
        table = self.of(value, device)
        if table.counts:
            raise self.refusal(place, self.body.kind(place), "is no sum of counts")
        return table.at

    def heard(self, place: int, device: int) -> list[Table]:
        """Return what every device of a group gives to an exchange, in their order.

        Raises:
            NoSplit: if that is no table.
        """
        if len(self.body.ops[place].operands) != 1:
            raise self.refusal(place, self.body.kind(place), "exchanges several tensors")
        group = self.group_of(place, device)
        operand = self.body.ops[place].operands[0]
        self._scopes.append(None)
        try:
            told = [self.of(operand, peer) for peer in group]
        finally:
            self._scopes.pop()
        self._narrow(frozenset(group))
        return told

    def only_on(self, device: int) -> None:
        """Note that what is being found is another table on every device."""
        self._narrow(frozenset({device}))


def _moved(change: Callable[[ir.Operation, np.ndarray, ir.Value], np.ndarray]) -> _Rule:
    """Return a rule for ops that only move entries, or add them up."""

    def rule(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
        op = tables.body.ops[place]
        source = tables.of(op.operands[0], device)
        return Table(change(op, source.at, value), source.counts)

    return rule


def _constant(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    return Table(table_ops.constant(tables.body.ops[place], value))


def _iota(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    return Table(table_ops.counted(tables.body.ops[place], value))


def _partition(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    if device >= tables.devices:
        raise tables.refusal(place, "partition_id", "is another number on every device")
    tables.only_on(device)
    return Table(np.asarray(device, np.int64))


def _same(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op = tables.body.ops[place]
    return tables.of(op.operands[list(op.results).index(value)], device)


def _dynamic_slice(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op = tables.body.ops[place]
    source, sizes = tables.of(op.operands[0], device), ints(op, "slice_sizes")
    starts = [int(tables.fixed(place, v, device)) for v in list(op.operands)[1:]]
    kept = [
        slice(begin, begin + size)
        for begin, size in (
            (min(max(start, 0), whole - size), size)
            for start, size, whole in zip(starts, sizes, source.at.shape, strict=True)
        )
    ]
    return Table(source.at[tuple(kept)], source.counts)


def _concatenate(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op = tables.body.ops[place]
    pieces = [tables.of(v, device) for v in op.operands]
    joined = np.concatenate([piece.at for piece in pieces], axis=integer(op, "dimension"))
    return Table(joined, frozenset().union(*(piece.counts for piece in pieces)))


def _reduce(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op = tables.body.ops[place]
    if len(op.results) != 1 or reducer(op) != "add" or not starts_from_nothing(op, "add"):
        raise tables.refusal(place, "reduce", "is no sum of counts")
    source = tables.of(op.operands[0], device)
    return Table(source.at.sum(axis=ints(op, "dimensions"), dtype=np.int64), source.counts)


def _window(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op, source = tables.body.ops[place], None
    dims = [d for d, size in enumerate(ints(op, "window_dimensions")) if size != 1]
    if len(op.results) == 1 and len(dims) <= 1 and all(is_prefix(op, d) for d in dims):
        source = tables.of(op.operands[0], device)
    if source is None or shape_of(op.operands[0]) != shape_of(value):
        raise tables.refusal(place, "reduce_window", "is no prefix sum of counts")
    for dim in dims:
        source = Table(np.cumsum(source.at, axis=dim, dtype=np.int64), source.counts)
    return source


def _scan(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op = tables.body.ops[place]
    if not is_prefix_scan(op):
        raise tables.refusal(place, "scan", "is no prefix sum of counts")
    source, dim = tables.of(op.operands[0], device), integer(op, "dimension")
    if value == op.results[0]:
        return Table(np.cumsum(source.at, axis=dim, dtype=np.int64), source.counts)
    return Table(source.at.sum(axis=dim, dtype=np.int64), source.counts)


def _sum(sign: int) -> _Rule:
    def rule(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
        left, right = (tables.of(v, device) for v in tables.body.ops[place].operands)
        return Table(left.at + sign * right.at, left.counts | right.counts)

    return rule


def _multiply(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    left, right = (tables.of(v, device) for v in tables.body.ops[place].operands)
    for factor, other in ((left, right), (right, left)):
        small = not factor.at.size or int(np.abs(factor.at).max()) < _LARGEST
        if not factor.counts and (small or not other.counts):
            return Table(factor.at * other.at, other.counts)
    raise tables.refusal(place, "multiply", "is no sum of counts")


def _of_fixed(change: Callable[[ir.Operation, list[np.ndarray]], np.ndarray]) -> _Rule:
    """Return a rule for ops that give no sum of counts, but may work on fixed numbers."""

    def rule(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
        op = tables.body.ops[place]
        at = change(op, [tables.fixed(place, v, device) for v in op.operands])
        return Table(np.asarray(at, np.int64))

    return rule


def _select(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    mask, *sides = tables.body.ops[place].operands
    holds = tables.fixed(place, mask, device) != 0
    yes, no = (tables.of(v, device) for v in sides)
    return Table(np.where(holds, yes.at, no.at), yes.counts | no.counts)


def _gather(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    told = tables.heard(place, device)
    dim = integer(tables.body.ops[place], "all_gather_dim")
    return Table(
        np.concatenate([table.at for table in told], axis=dim),
        frozenset().union(*(table.counts for table in told)),
    )


def _swap(tables: Tables, place: int, value: ir.Value, device: int) -> Table:
    op, told = tables.body.ops[place], tables.heard(place, device)
    tables.only_on(device)
    me = list(tables.group_of(place, device)).index(device)
    split, concat = integer(op, "split_dimension"), integer(op, "concat_dimension")
    came = [np.split(table.at, len(told), axis=split)[me] for table in told]
    return Table(
        np.concatenate(came, axis=concat), frozenset().union(*(table.counts for table in told))
    )


_RULES: Mapping[str, _Rule] = {
    "constant": _constant,
    "iota": _iota,
    "partition_id": _partition,
    "optimization_barrier": _same,
    "convert": _moved(lambda op, at, value: at),
    "reshape": _moved(lambda op, at, value: at.reshape(shape_of(value))),
    "transpose": _moved(lambda op, at, value: at.transpose(ints(op, "permutation"))),
    "reverse": _moved(lambda op, at, value: np.flip(at, ints(op, "dimensions"))),
    "sign": _of_fixed(lambda op, sides: np.sign(sides[0])),
    "negate": _moved(lambda op, at, value: -at),
    "broadcast_in_dim": _moved(table_ops.repeated),
    "slice": _moved(table_ops.sliced),
    "dynamic_slice": _dynamic_slice,
    "concatenate": _concatenate,
    "reduce": _reduce,
    "reduce_window": _window,
    "scan": _scan,
    "add": _sum(1),
    "subtract": _sum(-1),
    "multiply": _multiply,
    "select": _select,
    "compare": _of_fixed(table_ops.compared),
    "and": _of_fixed(lambda op, sides: sides[0] & sides[1]),
    "or": _of_fixed(lambda op, sides: sides[0] | sides[1]),
    "minimum": _of_fixed(lambda op, sides: np.minimum(*sides)),
    "maximum": _of_fixed(lambda op, sides: np.maximum(*sides)),
    "divide": _of_fixed(table_ops.truncated),
    "remainder": _of_fixed(lambda op, sides: sides[0] - table_ops.truncated(op, sides) * sides[1]),
    "all_gather": _gather,
    "all_to_all": _swap,
}
