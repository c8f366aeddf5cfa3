"""What changed between two modules, op by op, whatever order their ops are in.

Keys count ops of one name in program order, so a schedule changes them; an op is better known by
what it computes. Ops are matched in three rounds: by everything that they depend on, by what they
do themselves, and by key. What the last round finds has changed; the rest came or went.
"""

import hashlib
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from hlo_passes.ir.graph import Graph, Op

type OpOfGraph = tuple[Graph, Op]


@dataclass(frozen=True)
class Changes:
    """Two modules, compared.

    Attributes:
        added: ops that only the second has.
        gone: ops that only the first has.
        changed: pairs of ops of one key that do different work.
        same: pairs of ops that do the same.
        moved: pairs among `same` that would have to move for the orders to agree.
    """

    added: tuple[Op, ...]
    gone: tuple[Op, ...]
    changed: tuple[tuple[Op, Op], ...]
    same: tuple[tuple[Op, Op], ...]
    moved: tuple[tuple[Op, Op], ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.gone or self.changed or self.moved)


def changes_between(first: Graph, second: Graph) -> Changes:
    """Compare two modules, loops included; ops that take no time are left out.

    O(ops + edges) but for the longest common order, which is O(n log n).
    """
    a, b = list(_ops(first)), list(_ops(second))
    meaning = {**_meanings(first), **_meanings(second)}
    same: list[tuple[OpOfGraph, OpOfGraph]] = []
    for signature in (lambda p: meaning[id(p[1])], lambda p: (p[1].scope, *_work(p))):
        found, a, b = _matched(a, b, signature)
        same += found
    changed, a, b = _matched(a, b, lambda p: p[1].key)
    return Changes(
        added=tuple(op for _, op in b),
        gone=tuple(op for _, op in a),
        changed=tuple((x[1], y[1]) for x, y in changed),
        same=tuple((x[1], y[1]) for x, y in same),
        moved=tuple(_moved(same)),
    )


def _ops(graph: Graph) -> Iterator[OpOfGraph]:
    for inside, _ in graph.walk():
        for op in inside.ops:
            if not op.is_free:
                yield inside, op


def _work(place: OpOfGraph) -> tuple[Hashable, ...]:
    """Return what an op does by itself."""
    graph, op = place
    types = tuple(leaf for v in op.results for leaf in graph.values[v].leaves)
    return (op.kind, types, op.flops, op.bytes, op.collective, op.blocking, op.trips)


def _meanings(graph: Graph) -> dict[int, bytes]:
    """Return a hash of every op (by identity) over its work and everything that it depends on."""
    found: dict[int, bytes] = {}
    for inside, _ in graph.walk():
        made: dict[int, bytes] = {}
        for op in inside.ops:
            text = repr((_work((inside, op)), op.index)).encode()
            parts = [made.get(v, b"argument%d" % v) for v in op.operands]
            digest = hashlib.blake2b(b"\0".join([text, *parts]), digest_size=12).digest()
            found[id(op)] = digest
            for place, value in enumerate(op.results):
                made[value] = digest + bytes([place % 256])
    return found


def _matched(
    a: list[OpOfGraph], b: list[OpOfGraph], signature: Callable[[OpOfGraph], Hashable]
) -> tuple[list[tuple[OpOfGraph, OpOfGraph]], list[OpOfGraph], list[OpOfGraph]]:
    """Pair ops of equal signature in order; return the pairs and who is left on either side."""
    waiting: dict[Hashable, deque[OpOfGraph]] = defaultdict(deque)
    for place in a:
        waiting[signature(place)].append(place)
    pairs, left = [], []
    for place in b:
        mates = waiting.get(signature(place))
        if mates:
            pairs.append((mates.popleft(), place))
        else:
            left.append(place)
    taken = {id(x[1]) for x, _ in pairs}
    return pairs, [place for place in a if id(place[1]) not in taken], left


def _moved(same: Sequence[tuple[OpOfGraph, OpOfGraph]]) -> Iterator[tuple[Op, Op]]:
    """Yield the pairs that are not part of a longest common order, computation by computation."""
    groups: dict[tuple[int, int], list[tuple[Op, Op]]] = defaultdict(list)
    for (ga, x), (gb, y) in same:
        groups[id(ga), id(gb)].append((x, y))
    for pairs in groups.values():
        pairs.sort(key=lambda pair: pair[1].id)
        stay = longest_increasing([x.id for x, _ in pairs])
        yield from (pair for i, pair in enumerate(pairs) if i not in stay)


def longest_increasing(numbers: Sequence[int]) -> set[int]:
    """Return the indices of one longest increasing subsequence, in O(n log n)."""
    tails: list[int] = []
    ends: list[int] = []
    before = [-1] * len(numbers)
    for i, number in enumerate(numbers):
        at = bisect_left(tails, number)
        before[i] = ends[at - 1] if at else -1
        if at == len(tails):
            tails.append(number)
            ends.append(i)
        else:
            tails[at], ends[at] = number, i
    chosen: set[int] = set()
    i = ends[-1] if ends else -1
    while i >= 0:
        chosen.add(i)
        i = before[i]
    return chosen
