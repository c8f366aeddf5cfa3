"""One path of dependence between two ops, as evidence for "these two cannot overlap"."""

from collections import deque

from hlo_passes.ir.graph import Graph


def path_between(graph: Graph, first: int, then: int) -> tuple[int, ...]:
    """Return the shortest path from one op to another, both included; empty if there is none.

    O(ops + edges), by breadth.

    Args:
        graph: one computation.
        first, then: ids of two ops.
    """
    back = {first: -1}
    work = deque([first])
    while work:
        op = work.popleft()
        if op == then:
            path = []
            while op >= 0:
                path.append(op)
                op = back[op]
            return tuple(reversed(path))
        for s in graph.succs[op]:
            if s not in back and s <= then:
                back[s] = op
                work.append(s)
    return ()
