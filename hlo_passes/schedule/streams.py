"""On which stream an exchange runs, and which two must not be in flight at once.

XLA:GPU issues exchanges to one stream, where one follows the other. Those that it was told stay on
the fast links inside a node (`Collective.domain`) have a stream of their own, and so run beside
those that cross nodes. Two of different streams with more than one device in a group of both could
wait for each other for ever; XLA orders them one after the other, and so must any other order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, permutations, product

from hlo_passes.facts.deadlocks import issued_in, members_of, shared
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.graph import Graph, Op

type _Members = tuple[str, DeviceGroups]
"""Domain of an exchange, and who waits for whom in it."""

EVERY = -1
"""Stream of an op with exchanges inside: it holds all of them."""


@dataclass(frozen=True)
class Streams:
    """Streams of a graph's exchanges.

    Attributes:
        count: how many there are.
        of: stream of every exchange that is not on stream 0, and `EVERY` of ops with some inside.
        apart: per exchange, those of other streams that must not be in flight with it.
        wait: the op that waits for an exchange, of those that `apart` speaks of.
    """

    count: int = 1
    of: Mapping[int, int] = field(default_factory=dict)
    apart: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    wait: Mapping[int, int] = field(default_factory=dict)

    @property
    def is_one(self) -> bool:
        """Whether all exchanges follow each other."""
        return self.count == 1


ONE = Streams()


def streams_of(graph: Graph) -> Streams:
    """Return the streams that a graph's exchanges run on."""
    issued = {op.id: _exchanges_in(op) for op in graph.ops}
    issued = {op: exchanges for op, exchanges in issued.items() if exchanges}
    domains = list(dict.fromkeys(["", *(e.domain for e in chain(*issued.values()))]))
    if len(domains) == 1:
        return ONE
    of = {}
    for op in issued:
        exchange = graph.ops[op].collective
        stream = domains.index(exchange.domain) if exchange else EVERY
        if stream:
            of[op] = stream
    apart = _apart(issued, graph.devices)
    wait = {start: done for start, done in graph.done_of.items() if start in apart}
    return Streams(len(domains), of, apart, wait)


def _exchanges_in(op: Op) -> list[Collective]:
    if op.collective is None and not op.inner:
        return []
    return [issued.collective for issued in issued_in(op) if issued.collective is not None]


def _apart(issued: Mapping[int, Sequence[Collective]], devices: int) -> dict[int, tuple[int, ...]]:
    """Return per op the others with an exchange that must not be in flight with one of its own."""
    members = {
        op: [(exchange.domain, members_of(exchange, devices)) for exchange in exchanges]
        for op, exchanges in issued.items()
    }
    crossing = [
        (op, other)
        for op, other in permutations(members, 2)
        if any(_may_cross(*pair) for pair in product(members[op], members[other]))
    ]
    apart: dict[int, tuple[int, ...]] = {}
    for op, other in crossing:
        apart[op] = (*apart.get(op, ()), other)
    return apart


def _exchanges_in(op: Op) -> list[Collective]:
    if op.collective is None and not op.inner:
        return []
    return [issued.collective for issued in issued_in(op) if issued.collective is not None]


def _may_cross(one: _Members, other: _Members) -> bool:
    """Whether two exchanges are on two streams, with more than one device in a group of both."""
    return one[0] != other[0] and bool(shared(one[1], other[1], least=2))


def uncrossed(
    streams: Streams, preds: Sequence[Sequence[int]], order: Sequence[int]
) -> tuple[int, ...]:
    """Return an order in which what must not be in flight at once is not.

    Before an exchange that would cross another comes the op that waits for the other, and what that
    needs. Where the other cannot be done before, the order stays crossed, and verification says so.

    Args:
        streams: of the exchanges.
        preds: per op, those that come before it.
        order: every op once, legal.
    """
    if not streams.apart:
        return tuple(order)
    made: list[int] = []
    is_out = [False] * len(order)

    def put(op: int) -> None:
        stack = [op]
        while stack:
            top = stack[-1]
            missing = [p for p in preds[top] if not is_out[p]]
            if missing and not is_out[top]:
                stack += missing
                continue
            stack.pop()
            if not is_out[top]:
                is_out[top] = True
                made.append(top)

    for op in order:
        for other in streams.apart.get(op, ()):
            if is_out[other] and not is_out[op] and other in streams.wait:
                put(streams.wait[other])
        put(op)
    return tuple(made)
