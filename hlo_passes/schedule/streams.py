"""On which stream an exchange runs, and which two must not be in flight at once.

XLA:GPU issues exchanges to one stream, where one follows the other. Those that it was told stay on
the fast links inside a node (`Collective.domain`) have a stream of their own, and so run beside
those that cross nodes. Two of different streams with more than one device in a group of both could
wait for each other for ever; XLA orders them one after the other, and so must any other order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hlo_passes.facts.deadlocks import issued_in, members_of, shared
from hlo_passes.ir.graph import Graph

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
    issued = {op.id: list(issued_in(op)) for op in graph.ops if op.collective or op.inner}
    domains: dict[str, int] = {"": 0}
    for exchanges in issued.values():
        for exchange in exchanges:
            assert exchange.collective is not None
            domains.setdefault(exchange.collective.domain, len(domains))
    if len(domains) == 1:
        return ONE
    of = {
        op.id: domains[op.collective.domain] if op.collective else EVERY
        for op in graph.ops if issued.get(op.id)
    }  # fmt: skip
    rows = {
        op: [(e.collective.domain, members_of(e.collective, graph.devices))
             for e in exchanges if e.collective]
        for op, exchanges in issued.items() if exchanges
    }  # fmt: skip
    apart = {
        op: tuple(
            other for other in of
            if other != op and any(
                mine != theirs and shared(ours, others, least=2)
                for mine, ours in rows[op] for theirs, others in rows[other]
            )
        )
        for op in of
    }  # fmt: skip
    apart = {op: others for op, others in apart.items() if others}
    wait = {start: done for start, done in graph.done_of.items() if start in apart}
    return Streams(len(domains), {op: s for op, s in of.items() if s}, apart, wait)


def uncrossed(
    streams: Streams, preds: Sequence[Sequence[int]], order: Sequence[int]
) -> tuple[int, ...]:
    """Return an order in which what must not be in flight at once is not.

    Before an exchange that would cross another comes the op that waits for the other, and what that
    needs. Where the other cannot be done before, the order stays crossed, and verification says so.
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
