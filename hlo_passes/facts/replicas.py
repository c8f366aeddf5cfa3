"""Which devices hold the same value, and so decide alike, as far as dataflow proves it.

Constants are the same everywhere, arguments as the module says, a device's own number nowhere.
What reads values that two devices share is shared by them; an exchange makes equal what it gives
to all members of a group. What is decided by values that differ differs itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.traits import BRANCHES

type Labels = tuple[int, ...]
"""A number per device, equal where devices hold the same; () for the same everywhere."""

type Leaves = tuple[Labels, ...]
"""Of every tensor of a value."""

SAME: Labels = ()

_CALLS = ("call", "named_computation")
_TO_ALL = ("all_reduce", "all_gather", "collective_broadcast")
"""Kinds that give all members of a group the same."""


def is_same(labels: Labels, devices: Sequence[int]) -> bool:
    """Whether all of `devices` hold the same."""
    return not labels or len({labels[device] for device in devices}) == 1


def meet(one: Labels, other: Labels) -> Labels:
    """Return who shares both of two values."""
    if one == other or not other:
        return one
    return other if not one else _numbered(list(zip(one, other, strict=True)))


def received(exchange: Collective, sent: Labels, devices: int) -> Labels:
    """Return who holds the same after an exchange of what devices share as `sent` says.

    Args:
        exchange: who exchanges what.
        sent: who holds the same of what is sent.
        devices: how many run the program.
    """
    if exchange.members:
        labels = SAME
        for member in exchange.members:
            labels = meet(labels, received(member, sent, devices))
        return labels
    sent = sent or (0,) * devices
    keys: list[object] = [("none", device) for device in range(devices)]
    if exchange.kind == "collective_permute":
        keys = [("zero",)] * devices
        for source, target in exchange.groups:
            keys[target] = sent[source]
        return _numbered(keys)
    for row in exchange.groups or (tuple(range(devices)),):
        everything = tuple(sent[device] for device in row)
        for place, device in enumerate(row):
            own = () if exchange.kind in _TO_ALL else (place,)
            keys[device] = (everything, *own)
    return _numbered(keys)


def _numbered(keys: Sequence[object]) -> Labels:
    number: dict[object, int] = {}
    labels = tuple(number.setdefault(key, len(number)) for key in keys)
    return labels if len(number) > 1 else SAME


@dataclass
class Replicas:
    """Follows a program and notes what its branches and loops are decided by.

    Attributes:
        devices: how many run it.
        decisions: by computation and op id, who decides alike at a branch or loop.
    """

    devices: int
    decisions: dict[tuple[str, int], Labels] = field(default_factory=dict)

    def run(
        self,
        graph: Graph,
        given: Sequence[Leaves] | None = None,
        around: Mapping[int, Leaves] | None = None,
        is_local: bool = True,
    ) -> Leaves:
        """Follow one computation and return who shares what it returns.

        Args:
            graph: the computation.
            given: its arguments; by default as `Graph.spread` says.
            around: values of the computation that it is in.
            is_local: whether it is what one device runs. A program that is yet to be partitioned
                is the same for all devices.
        """
        given = [(self._of_all(labels),) for labels in graph.spread] if given is None else given
        held = _outside(graph, given, around or {})
        for op in graph.ops:
            if op.kind == "parameter":
                (value,) = op.results
                unknown = (SAME,) * len(graph.values[value].leaves)
                held[value] = given[op.index] if op.index < len(given) else unknown
                continue
            made = iter(self._op(graph, op, held, is_local))
            for value in op.results:
                held[value] = tuple(next(made, SAME) for _ in graph.values[value].leaves)
        return tuple(leaf for value in graph.returns for leaf in held[value])

    def _op(self, graph: Graph, op: Op, held: dict[int, Leaves], is_local: bool) -> Leaves:
        """Return who shares the tensors that an op makes."""
        reads = [held[value] for value in op.operands]
        known = self._inside(graph, op, held, is_local)
        known = _repacked(graph, op, reads) if known is None else known
        if known is not None:
            return known
        (labels,) = _all(reads, 1)
        if op.collective is not None:
            labels = received(op.collective, labels, self.devices)
        elif op.by_rank and is_local:
            labels = self._nobody
        return (labels,) * _leaves_made(graph, op)

    def _inside(
        self, graph: Graph, op: Op, held: dict[int, Leaves], is_local: bool
    ) -> Leaves | None:
        """Return who shares what computations inside an op make; None if there are none."""
        if op.kind == "while" and op.inner:
            return self._loop(graph, op, held, is_local)
        if op.kind in BRANCHES:
            return self._branch(graph, op, held, is_local)
        if op.kind == "manual_computation":
            for inner in op.inner:
                self.run(inner, around=held)
            return ()  # whole arrays again
        if op.kind in _CALLS and op.inner:
            return self.run(op.inner[0], [held[value] for value in op.operands], held, is_local)
        return None

    @property
    def _nobody(self) -> Labels:
        """What no two devices share."""
        return tuple(range(self.devices)) if self.devices > 1 else SAME

    def _of_all(self, labels: Labels) -> Labels:
        """Number the devices that a mesh leaves out, each for itself."""
        rest = range(len(labels), self.devices) if labels else ()
        return labels + tuple(self.devices + device for device in rest)

    def _both(self, ours: Leaves, theirs: Leaves) -> Leaves:
        """Meet tensor by tensor; of what does not fit together nothing is known."""
        if len(ours) != len(theirs):
            return (self._nobody,) * len(ours)
        return tuple(meet(a, b) for a, b in zip(ours, theirs, strict=True))

    def _loop(self, graph: Graph, op: Op, held: dict[int, Leaves], is_local: bool) -> Leaves:
        """Follow a loop until no trip changes who shares what it carries."""
        (body,), condition = op.inner, op.condition
        wanted = sum(len(graph.values[value].leaves) for value in op.results)
        carried = tuple(leaf for value in op.operands for leaf in held[value])[:wanted]
        while True:
            given = _bound(body, carried)
            decision = SAME
            if condition is not None:
                (decision, *_) = self.run(condition, given, held, is_local) or (SAME,)
            if op.trips and any(inside.kind == "parameter" for inside in body.ops):
                decision = SAME  # XLA has counted the trips
            self._note(graph, op, decision)
            after = self.run(body, given, held, is_local)
            found = tuple(meet(leaf, decision) for leaf in self._both(carried, after))
            if found == carried:
                return carried
            carried = found

    def _branch(self, graph: Graph, op: Op, held: dict[int, Leaves], is_local: bool) -> Leaves:
        """Follow all branches; results are shared by who takes the same one and shares its own."""
        decision, *others = (held[value] for value in op.operands)
        self._note(graph, op, decision[0])
        made = sum(len(graph.values[value].leaves) for value in op.results)
        results = decision[:1] * made
        for place, inner in enumerate(op.inner):
            after = self.run(inner, others[place : place + 1], held, is_local)
            results = self._both(results, after)
        return results

    def _note(self, graph: Graph, op: Op, decision: Labels) -> None:
        where = graph.name, op.id
        self.decisions[where] = meet(self.decisions.get(where, SAME), decision)


def _outside(
    graph: Graph, given: Sequence[Leaves], around: Mapping[int, Leaves]
) -> dict[int, Leaves]:
    """Return who shares what a computation does not make: its arguments, and what is around it."""
    held: dict[int, Leaves] = {v.id: (SAME,) * len(v.leaves) for v in graph.values if v.op < 0}
    held |= {i: leaves for i, leaves in enumerate(given) if i in held}
    return held | {here: around[there] for here, there in graph.captured if around}


def _repacked(graph: Graph, op: Op, reads: Sequence[Leaves]) -> Leaves | None:
    """Return who shares the tensors of a tuple, or what is taken out of one; None of others."""
    if op.kind == "tuple" and all(len(leaves) == 1 for leaves in reads):
        return tuple(leaf for leaves in reads for leaf in leaves)
    if op.kind == "get_tuple_element" and op.index < len(reads[0]):
        makes = _leaves_made(graph, op)
        return reads[0][op.index : op.index + 1] if makes == 1 else _all(reads, makes)
    return None


def _leaves_made(graph: Graph, op: Op) -> int:
    """Return how many tensors an op makes."""
    return sum(len(graph.values[value].leaves) for value in op.results)


def _bound(body: Graph, carried: Leaves) -> list[Leaves]:
    """Hand carried tensors to a body: HLO's takes one tuple, StableHLO's one by one."""
    is_hlo = any(op.kind == "parameter" for op in body.ops)
    return [carried] if is_hlo else [(leaf,) for leaf in carried]


def _all(reads: Sequence[Leaves], times: int) -> Leaves:
    """Return who shares everything that is read."""
    labels = SAME
    for leaves in reads:
        for leaf in leaves:
            labels = meet(labels, leaf)
    return (labels,) * times
