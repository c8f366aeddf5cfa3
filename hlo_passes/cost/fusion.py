"""What the ops of an unfused graph cost once XLA has fused its pointwise chains.

Charged one by one, the ops of a StableHLO module move many times the bytes that run: XLA computes
pointwise chains, and what they feed into reductions and slices, in one kernel each. Here a value
stays out of memory if its op can be computed inside others, all its readers can do so, and that
moves no more bytes than writing it once and reading it back. What is left are kernels; each is
charged for the memory that it reads and writes and for all that it computes, and the ops inside it
for nothing.

XLA decides by a cost model of its own and also fuses siblings into one kernel with several results;
this is an estimate that errs to the side of more traffic.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush

from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.traits import (
    FREE,
    IN_READERS,
    LIES_IN_MEMORY,
    PRODUCTS,
    SLICES,
    TAKES_IN,
    UPDATES,
)
from hlo_passes.ir.work import Work

_LIMIT = 96
"""Ops of one kernel; XLA bounds its fusions likewise, and it keeps this file's work linear."""


def fused_bytes(graph: Graph) -> tuple[float, ...]:
    """Return the HBM bytes that every op moves once pointwise chains are fused.

    Args:
        graph: not fused yet; graphs inside its loops are left alone.
    """
    return tuple(work.bytes for work in fused_work(graph))


def fused_work(graph: Graph) -> tuple[Work, ...]:
    """Return the work of every op once pointwise chains are fused; none for ops inside others.

    Args:
        graph: not fused yet; graphs inside its loops are left alone.
    """
    return _Fuser(graph).work()


def kernels(graph: Graph) -> dict[int, tuple[int, ...]]:
    """Return the kernels of a graph once pointwise chains are fused.

    Args:
        graph: not fused yet; graphs inside its loops are left alone.

    Returns:
        From the op whose result a kernel writes to all ops in it, ascending, itself and reshapes
        of what it reads included. An op may be computed in several kernels.
    """
    return _Fuser(graph).kernels()


def is_fused(graph: Graph) -> bool:
    """Whether a graph is of XLA's own making, past fusion."""
    return any(g.scheduled or any(op.kind == "fusion" for op in g.ops) for g, _ in graph.walk())


@dataclass
class _Fuser:
    """Decides per op whether it is an alias of its operand, inside its readers, or a kernel.

    Attributes:
        alias: ops whose result is their operand's memory under another shape.
        takers: per value, how many kernels would compute it; -1 if it must be in memory.
        inside: ops that are computed in the kernels of their readers.
    """

    graph: Graph
    alias: list[bool] = field(default_factory=list)
    takers: list[int] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alias = [self._is_alias(op) for op in self.graph.ops]
        self.takers = [0] * len(self.graph.values)
        for op in reversed(self.graph.ops):
            for value in op.results:
                self.takers[value] = self._count_takers(value)
        self.inside = [False] * len(self.graph.ops)
        for op in self.graph.ops:
            self.inside[op.id] = self._is_inside(op)

    def work(self) -> tuple[Work, ...]:
        """Return the work of every op."""
        return tuple(self._work(op) for op in self.graph.ops)

    def _work(self, op: Op) -> Work:
        if self.alias[op.id] or self.inside[op.id]:
            return Work(0.0, 0.0, False, op.dtype)
        if op.kind not in TAKES_IN or op.is_free:
            return Work(op.flops, op.bytes, op.matmul, op.dtype)
        flops, read, _ = self._kernel(op)
        return Work(flops, read + self._written(op), False, op.dtype)

    def kernels(self) -> dict[int, tuple[int, ...]]:
        """Return the ops of every kernel, by the op that it writes."""
        return {
            op.id: self._kernel(op)[2] if op.kind in TAKES_IN else self._with_aliases(op)
            for op in self.graph.ops
            if not (self.alias[op.id] or self.inside[op.id] or op.is_free)
            and op.collective is None
            and not op.inner
            and op.results
        }

    def _with_aliases(self, op: Op) -> tuple[int, ...]:
        """Return an op and the ops that only rename the memory that it reads."""
        found, queue = {op.id}, [op]
        while queue:
            makers = {self.graph.values[v].op for v in queue.pop().operands}
            new = {m for m in makers - found if m >= 0 and self.alias[m]}
            found |= new
            queue += [self.graph.ops[m] for m in new]
        return tuple(sorted(found))

    def _is_alias(self, op: Op) -> bool:
        """Whether an op costs nothing: a reshape, or a transpose that a matrix product folds in."""
        if op.kind in ("reshape", "bitcast"):
            return True
        if op.kind != "transpose":
            return False
        source = op.operands[0]
        maker, users = self.graph.values[source].op, self.graph.users
        made = maker >= 0 and self.graph.ops[maker].kind in PRODUCTS and len(users[source]) == 1
        readers = users[op.results[0]]
        return made or (bool(readers) and all(self.graph.ops[u].kind in PRODUCTS for u in readers))

    def _count_takers(self, value: int) -> int:
        """Count the readers that can compute a value, through aliases; -1 if one cannot."""
        if value in self.graph.returns:
            return -1
        count = 0
        for user in self.graph.users[value]:
            op = self.graph.ops[user]
            if self.alias[user]:
                more = self.takers[op.results[0]]
            else:
                lies = op.kind in LIES_IN_MEMORY and op.operands[0] == value
                more = 1 if op.kind in TAKES_IN and not lies else -1
            if more < 0:
                return -1
            count += more
        return count

    def _is_inside(self, op: Op) -> bool:
        """Whether an op is computed by its readers: all can, and that moves no more bytes."""
        if op.kind not in IN_READERS or self.alias[op.id] or len(op.results) != 1:
            return False
        count = self.takers[op.results[0]]
        if count < 0:
            return False
        if count < 2 or op.kind in FREE:
            return True
        _, read, _ = self._kernel(op)
        return read * (count - 1) <= self.graph.values[op.results[0]].bytes * (count + 1)

    def _kernel(self, root: Op) -> tuple[float, float, tuple[int, ...]]:
        """Return (flops, bytes read, ops) of the kernel that computes `root` and all inside it.

        Ops are visited readers first, so the share of an op's result that the kernel needs (the
        part that a slice takes, say) is known when its turn comes.
        """
        flops = 0.0
        share = {root.id: 1.0}
        read: dict[int, float] = {}
        queue = [-root.id]
        while queue:
            op = self.graph.ops[-heappop(queue)]
            flops += 0.0 if self.alias[op.id] else share[op.id] * op.flops
            for place, value in enumerate(op.operands):
                wanted = share[op.id] * self._wanted(op, place)
                maker = self.graph.values[value].op
                if maker in share:
                    share[maker] = min(1.0, share[maker] + wanted)
                elif self._joins(maker) and len(share) < _LIMIT:
                    share[maker] = wanted
                    heappush(queue, -maker)
                else:
                    read[value] = min(1.0, read.get(value, 0.0) + wanted)
        bytes = sum(part * self.graph.values[value].bytes for value, part in read.items())
        return flops, bytes, tuple(sorted(share))

    def _joins(self, maker: int) -> bool:
        return maker >= 0 and (self.alias[maker] or self.inside[maker])

    def _wanted(self, op: Op, place: int) -> float:
        """Return the share of an operand that an op reads."""
        if place == 0 and op.kind in UPDATES:
            return 0.0
        if place == 0 and op.kind in SLICES:
            whole = self.graph.values[op.operands[0]].bytes
            return min(1.0, self.graph.values[op.results[0]].bytes / whole) if whole else 0.0
        return 1.0

    def _written(self, op: Op) -> float:
        """Return the bytes that a kernel writes, and reads to write there."""
        if op.kind in UPDATES:
            # A scatter reads the rows that it adds to.
            scatters = op.kind == "scatter"
            updates = op.operands[len(op.operands) // 2 + 1 :] if scatters else op.operands[1:2]
            return (2.0 if scatters else 1.0) * sum(self.graph.values[v].bytes for v in updates)
        return float(sum(self.graph.values[v].bytes for v in op.results))
