"""One frozen picture of a computation: ops in program order, the values between them, their edges.

Every decision is made on a `Graph`, whether it was read from StableHLO or from scheduled HLO, and
never on the module itself: the bindings are slow to walk and unsafe to keep handles into.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.traits import FREE
from hlo_passes.ir.types import TensorType


@lru_cache(maxsize=8)
def successors(preds: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Turn "must come before it" around: for every op, the ops that come after it, ascending."""
    after: list[list[int]] = [[] for _ in preds]
    for op, befores in enumerate(preds):
        for before in befores:
            after[before].append(op)
    return tuple(map(tuple, after))


@dataclass(frozen=True, slots=True)
class Value:
    """What one op result holds; an HLO tuple is one value with several leaves.

    Attributes:
        id: index into `Graph.values`.
        op: id of the op that makes it; -1 for an argument of the computation.
        leaves: type of every tensor in it.
    """

    id: int
    op: int
    leaves: tuple[TensorType, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all leaves."""
        return sum(leaf.bytes for leaf in self.leaves)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation.

    Attributes:
        id: index into `Graph.ops`; program order.
        kind: StableHLO's name without its dialect (`dot_general`); HLO opcodes use underscores.
        name: HLO's instruction name; in StableHLO the text of its first result's name.
        key: scope, kind and ordinal: the name of the op across edits, processes and hosts.
        operands: value ids that it reads, captured ones of its regions included.
        results: value ids that it makes.
        scope: the full path of named scopes, a hint and never a proof.
        source: `file:line` of the user's code, or "".
        flops: floating point operations of one execution.
        bytes: HBM bytes that one execution reads and writes.
        matmul: whether a matrix product is in it; `dtype` is then that of its operands.
        dtype: element type that decides its peak rate.
        xla_us: XLA's own estimate in us, None where the module has none.
        collective: the exchange that it does or starts; several as one (`Collective.members`).
        start: for the done half of a split exchange, the id of its start; else -1.
        blocking: an exchange that no compute runs beside (XLA marked it synchronous).
        why_blocking: why, in words, if it is blocking for another reason than that mark.
        by_rank: whether its result depends on which device runs it, whatever it reads.
        condition: what decides whether a `while` goes on.
        target: what a custom call calls, also inside an `async-start`; "" for other ops.
        side_effect: whether it must keep its place among other ops with side effects.
        overwrites: operands (value ids) whose buffer its result takes over.
        trips: executions of `inner`, for a loop; 0 where not known.
        inner: bodies of a loop or a call, that hold ops of their own.
        index: which leaf a `get_tuple_element` takes.
    """

    id: int
    kind: str
    name: str
    key: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    scope: str = ""
    source: str = ""
    flops: float = 0.0
    bytes: float = 0.0
    matmul: bool = False
    dtype: str = "f32"
    xla_us: float | None = None
    collective: Collective | None = None
    start: int = -1
    blocking: bool = False
    side_effect: bool = False
    overwrites: tuple[int, ...] = ()
    trips: int = 1
    inner: tuple["Graph", ...] = ()
    index: int = 0
    target: str = ""
    why_blocking: str = ""
    by_rank: bool = False
    condition: "Graph | None" = None

    @property
    def is_free(self) -> bool:
        """Whether it takes no time at all."""
        return self.kind in FREE

    @property
    def is_done(self) -> bool:
        """Whether it only waits for an exchange that another op started."""
        return self.start >= 0


@dataclass(frozen=True)
class Graph:
    """A computation.

    Attributes:
        name: the computation's name (`main`, `while.3/body`).
        ops: in program order, which is a legal order.
        values: every value, arguments first.
        returns: value ids that the computation hands out.
        ordered: pairs (before, after) of op ids that data does not order but legality does:
            control dependencies, side effects, readers of a buffer before who overwrites it.
        devices: devices that run the program; 1 where the module does not say.
        scheduled: whether program order is the order of execution.
        donated: bytes of arguments whose memory results take over.
        spread: per argument, a number for every device, equal where devices are given the same
            data; () for the same everywhere, which is taken where the module does not say.
        captured: pairs of value ids, here and in the graph around this one, that are the same.
    """

    name: str
    ops: tuple[Op, ...]
    values: tuple[Value, ...]
    returns: tuple[int, ...] = ()
    ordered: tuple[tuple[int, int], ...] = ()
    devices: int = 1
    scheduled: bool = False
    donated: int = 0
    spread: tuple[tuple[int, ...], ...] = ()
    captured: tuple[tuple[int, int], ...] = ()

    @cached_property
    def preds(self) -> tuple[tuple[int, ...], ...]:
        """For every op, the ops that must come before it, ascending."""
        before: list[set[int]] = [
            {self.values[v].op for v in op.operands if self.values[v].op >= 0} for op in self.ops
        ]
        for first, then in self.ordered:
            before[then].add(first)
        return tuple(tuple(sorted(ids)) for ids in before)

    @cached_property
    def succs(self) -> tuple[tuple[int, ...], ...]:
        """For every op, the ops that must come after it, ascending."""
        return successors(self.preds)

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """For every value, the ops that read it, ascending."""
        readers: list[list[int]] = [[] for _ in self.values]
        for op in self.ops:
            for value in dict.fromkeys(op.operands):
                readers[value].append(op.id)
        return tuple(map(tuple, readers))

    @cached_property
    def exchanges(self) -> tuple[int, ...]:
        """Ids of the ops that do or start an exchange, in program order."""
        return tuple(op.id for op in self.ops if op.collective is not None)

    @cached_property
    def done_of(self) -> dict[int, int]:
        """From the start of a split exchange to its done."""
        return {op.start: op.id for op in self.ops if op.is_done}

    def walk(self, trips: int = 1) -> Iterator[tuple["Graph", int]]:
        """Yield this graph and every graph inside it, with how often each runs per step."""
        yield self, trips
        for op in self.ops:
            for inner in op.inner:
                yield from inner.walk(trips * max(op.trips, 1))

    @property
    def named_devices(self) -> int:
        """Devices that run the program, or that its exchanges speak of; a dump may say no more."""
        ops = (op for graph, _ in self.walk() for op in graph.ops)
        groups = (e.groups for op in ops if op.collective is not None for e in op.collective.parts)
        return max(self.devices, 1, *(1 + max(map(max, found)) for found in groups if found))

    @property
    def size(self) -> int:
        """Number of ops, those inside loops included."""
        return sum(len(graph.ops) for graph, _ in self.walk())
