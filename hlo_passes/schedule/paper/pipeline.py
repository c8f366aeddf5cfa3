"""How long a range of ops takes once it is cut into parts that run as a pipeline: the paper's P.

The range is unrolled into nodes on two lanes: one per part of every cut op, one per whole op, and
what cutting costs: rows are packed and unpacked, a message goes ahead, values that are needed whole
are joined, parts are taken out of whole ones. Two orders are simulated, and the shorter counts: the
paper's (section 5.3: stages, then parts), and whatever is ready first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from hlo_passes.cost.model import CostModel
from hlo_passes.cut.states import Cut, OpSplit, Sum
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.layers.capacity.row_paths import RowPath
from hlo_passes.layers.capacity.sites import Site

_MESSAGE = 1e-3
"""Share of a buffer that the message about its rows has: an int32 for a row of a thousand."""


@dataclass(frozen=True, slots=True)
class PartPrices:
    """What cutting costs besides the ops themselves.

    Attributes:
        launch_us: us of a kernel that does nothing.
        bytes_per_s: rate at which copies move memory.
    """

    launch_us: float
    bytes_per_s: float

    def copy_us(self, bytes: float) -> float:
        """Price a copy: every byte is read and written."""
        return self.launch_us + 2 * bytes / self.bytes_per_s * 1e6


@dataclass(slots=True)
class _Node:
    us: float
    talks: bool
    preds: list[int]
    stage: int = 0
    part: int = 0


@dataclass
class Unrolled:
    """A range of ops, unrolled.

    Attributes:
        graph: where the ops are.
        ops: their places.
        splits: per op that is cut, its states.
        puts, fetches: exchanges whose rows are sent part by part, puts by the place of their
            all-to-all and fetches by that of their gather.
        paths: what runs in batches of rows between them.
        k: number of parts.
        costs, prices: of ops and exchanges, and of what cutting costs.
    """

    graph: Graph
    ops: range
    splits: Mapping[int, OpSplit]
    puts: Mapping[int, Site]
    fetches: Mapping[int, Site]
    paths: Sequence[RowPath]
    k: int
    costs: CostModel
    prices: PartPrices
    nodes: list[_Node] = field(default_factory=list)
    _parts: dict[int, list[int]] = field(default_factory=dict)
    _whole: dict[int, int] = field(default_factory=dict)
    _stage: int = 0
    _talks: bool = False

    def us(self) -> float:
        """Return the length of the pipeline in us."""
        sites = (*self.puts.values(), *self.fetches.values())
        replaced = {i for site in sites for i in site.ops}
        batched = {i: path for path in self.paths for i in path.on_way}
        for place in self.ops:
            if place in self.puts or place in self.fetches or place not in replaced:
                self._unroll(place, batched)
        for value in list(self._parts):
            if any(user not in self.ops for user in self.graph.users[value]):
                self._join(value)
        return min(_staged(self.nodes), _greedy(self.nodes))

    def _unroll(self, place: int, batched: Mapping[int, RowPath]) -> None:
        """Add the nodes of one op; `batched` has what runs in batches of rows."""
        op = self.graph.ops[place]
        if place in self.puts:
            self._put(op, self.graph.ops[self.puts[place].access])
        elif place in self.fetches:
            self._fetch(op, self.graph.ops[self.fetches[place].exchange])
        elif place in batched:
            self._batch(op, batched[place])
            if place not in batched[place].dropped:
                self._keep(op)
        elif place in self.splits:
            self._split(op, self.splits[place])
        else:
            self._keep(op)

    def _node(self, us: float, preds: Sequence[int], part: int, *, talks: bool = False) -> int:
        """Add a node; a change of lane, or an op that is not cut, begins a stage."""
        if talks != self._talks or part < 0:
            self._stage += 1
            self._talks = talks
        self.nodes.append(_Node(us, talks, list(preds), self._stage, part))
        if part < 0:
            self._stage += 1
        return len(self.nodes) - 1

    def _price(self, op: Op) -> float:
        if op.is_free or op.inner:
            return 0.0
        return self.costs.compute(op).us

    def _part_us(self, op: Op, share: float) -> float:
        us = self._price(op)
        launch = min(self.prices.launch_us, us)
        return (us - launch) * share + launch

    def _bytes(self, value: int) -> float:
        return float(self.graph.values[value].bytes)

    def _join(self, value: int) -> list[int]:
        """Return the node that makes a value whole, if it is made in the range."""
        if value not in self._whole and value in self._parts:
            us = self.prices.copy_us(self._bytes(value))
            self._whole[value] = self._node(us, self._parts[value], -1)
        return [self._whole[value]] if value in self._whole else []

    def _wants(self, value: int, state: Cut | None, part: int) -> list[int]:
        """Return what one part of an op waits for because of one operand."""
        if state is not None and value in self._parts:
            return [self._parts[value][part]]
        return self._join(value)

    def _split(self, op: Op, split: OpSplit) -> None:
        made: list[int] = []
        is_sum = any(isinstance(state, Sum) for state in split.results)
        for part in range(self.k):
            preds = [
                node
                for value, state in zip(op.operands, split.operands, strict=False)
                for node in self._wants(value, state, part)
            ]
            if made and (is_sum or split.carries):
                preds.append(made[-1])
            made.append(self._node(self._part_us(op, 1 / self.k), preds, part))
        for value, state in zip(op.results, split.results, strict=True):
            if isinstance(state, Cut):
                self._parts[value] = made
            else:
                self._whole[value] = made[-1]

    def _batch(self, op: Op, path: RowPath) -> None:
        """Add one node a part: for one batch of every expert."""
        share = path.batch_rows(path.tokens // self.k) / path.rows
        decide = 2 * self.costs.decide_us if op.id == min(path.on_way) else 0.0
        made = []
        for part in range(self.k):
            states = path.by_place.splits[op.id].operands
            preds = [
                node
                for value, state in zip(op.operands, states, strict=False)
                for node in self._wants(value, state, part)
            ]
            made.append(self._node(decide + self._part_us(op, share), preds, part))
        for value in op.results:
            self._parts[value] = made

    def _keep(self, op: Op) -> None:
        preds = [node for value in op.operands for node in self._join(value)]
        talks = op.collective is not None
        us = self.costs.exchange(op.collective).us if op.collective else self._price(op)
        node = self._node(us, preds, -1, talks=talks)
        for value in op.results:
            self._whole[value] = node

    def _exchange(self, op: Op, packed: Sequence[int]) -> list[int]:
        """Add the message and the rows of every part."""
        assert op.collective is not None
        message = self.costs.exchange(op.collective, _MESSAGE).us
        us = self.costs.exchange(op.collective, 1 / self.k).us
        came = []
        for part, node in enumerate(packed):
            first = self._node(message, [node], part, talks=True)
            came.append(self._node(us, [first], part, talks=True))
        return came

    def _put(self, exchange: Op, scatter: Op) -> None:
        us = self.prices.copy_us(self._bytes(exchange.results[0]) / self.k)
        packed = [
            self._node(
                us,
                [n for value in scatter.operands[1:] for n in self._wants(value, Cut(0), part)],
                part,
            )
            for part in range(self.k)
        ]
        arrived: list[int] = []
        came = self._exchange(exchange, packed)
        for part, node in enumerate(came):
            arrived.append(self._node(us, [node, *arrived[-1:]], part))
        self._whole[exchange.results[0]] = arrived[-1]
        if any(path.put.exchange == exchange.id for path in self.paths):
            self._parts[exchange.results[0]] = came

    def _fetch(self, gather: Op, exchange: Op) -> None:
        answer = exchange.operands[0]
        on_way = any(path.fetch.exchange == exchange.id for path in self.paths)
        offered = [] if on_way else self._join(answer)
        us = self.prices.copy_us(self._bytes(gather.results[0]) / self.k)
        taken = [
            self._node(us, [*offered, *self._wants(gather.operands[1], Cut(0), part)], part)
            for part in range(self.k)
        ]
        if on_way:
            taken = self._parts[answer]
        self._parts[gather.results[0]] = [
            self._node(us, [came], part)
            for part, came in enumerate(self._exchange(exchange, taken))
        ]


def _staged(nodes: Sequence[_Node]) -> float:
    """Run stage by stage, parts in order: a node starts after its needs and the one before it."""
    end = [0.0] * len(nodes)
    free = [0.0, 0.0]
    for i in sorted(range(len(nodes)), key=lambda i: (nodes[i].stage, nodes[i].part, i)):
        node = nodes[i]
        start = max([free[node.talks], *(end[p] for p in node.preds)])
        end[i] = free[node.talks] = start + node.us
    return max(end, default=0.0)


def _greedy(nodes: Sequence[_Node]) -> float:
    """Run whatever is ready on a lane that is free, the first part first."""
    users: list[list[int]] = [[] for _ in nodes]
    waits = [len(node.preds) for node in nodes]
    for i, node in enumerate(nodes):
        for pred in node.preds:
            users[pred].append(i)
    lanes = _Lane(), _Lane()
    for i, count in enumerate(waits):
        if count == 0:
            lanes[nodes[i].talks].add(0.0, nodes[i].part, i)
    end = [0.0] * len(nodes)
    for _ in nodes:
        lane = min(lanes, key=_Lane.first)
        start, _, i = lane.take()
        end[i] = lane.free = start + nodes[i].us
        for user in users[i]:
            waits[user] -= 1
            if waits[user] == 0:
                node = nodes[user]
                lanes[node.talks].add(max(end[p] for p in node.preds), node.part, user)
    return max(end, default=0.0)


@dataclass
class _Lane:
    """A lane and what is ready for it.

    Attributes:
        free: when it is free, in us.
    """

    free: float = 0.0
    _waits: list[tuple[int, int]] = field(default_factory=list)
    _comes: list[tuple[float, int, int]] = field(default_factory=list)

    def add(self, since: float, part: int, node: int) -> None:
        """Enter a node that may start at a time."""
        heappush(self._comes, (since, part, node))

    def first(self) -> tuple[float, int, int]:
        """Return when the next node starts, its part and its number; never if there is none."""
        while self._comes and self._comes[0][0] <= self.free:
            heappush(self._waits, heappop(self._comes)[1:])
        if self._waits:
            return (self.free, *self._waits[0])
        return self._comes[0] if self._comes else (inf, 0, 0)

    def take(self) -> tuple[float, int, int]:
        """Return what `first` does, and take it away."""
        found = self.first()
        if self._waits:
            heappop(self._waits)
        else:
            heappop(self._comes)
        return found
