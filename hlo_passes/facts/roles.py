"""What every op is for, from dataflow alone.

A training step is a chain of matrix products through the loss and back, with one product hanging
off it per weight: the weight gradient, which no further product and no token exchange waits for.
Everything before the loss is an ancestor of every such leaf; that separates forward from backward
without a name. Scopes (`transpose(jvp(...))`) are evidence that a report may print, nothing more.
"""

from enum import StrEnum

from hlo_passes.facts.reach import Reach
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph, Op


class Role(StrEnum):
    """What an op is for."""

    FORWARD = "forward"
    BACKWARD = "dX"
    WEIGHT = "dW"
    GRADIENT = "gradient exchange"
    OPTIMIZER = "optimizer"
    EXCHANGE = "exchange"
    OTHER = "other"


def roles_of(graph: Graph) -> tuple[Role, ...]:
    """Return the role of every op.

    Without at least two weight gradients (inference, a loss alone) everything is forward.
    """
    reach = _gradients(graph)
    if reach is None:
        return tuple(_without_backward(graph))
    every = sum(reach.bit.values())
    return tuple(_role(graph, op, reach, every) for op in range(len(graph.ops)))


def before_loss(graph: Graph) -> frozenset[int]:
    """Return the ops of the forward pass, exchanges included: all weight gradients wait for them.

    Without at least two weight gradients it is every op, or none where loops may hide a backward
    pass. A loop is one op here; its body is a graph of its own.
    """
    reach = _gradients(graph)
    if reach is None:
        has_loops = any(op.inner for op in graph.ops)
        return frozenset() if has_loops else frozenset(range(len(graph.ops)))
    every = sum(reach.bit.values())
    return frozenset(op for op in range(len(graph.ops)) if reach.after[op] == every)


def phases_of(graph: Graph) -> dict[int, Phase]:
    """Return what each exchange is for.

    All-to-alls alternate along a path of dependence: tokens go out, and come home. An exchange
    that adds up and that no matrix product waits for is a gradient sum.
    """
    heavy = _feeds_product(graph)
    phases: dict[int, Phase] = {}
    depth = [0] * len(graph.ops)
    for op in graph.ops:
        depth[op.id] = max((depth[p] for p in graph.preds[op.id]), default=0)
        if op.collective is None:
            continue
        if op.collective.is_all_to_all:
            phases[op.id] = (Phase.DISPATCH, Phase.COMBINE)[depth[op.id] % 2]
            depth[op.id] += 1
        else:
            sums_up = op.collective.reduces and not heavy[op.id]
            phases[op.id] = Phase.GRADIENT if sums_up else Phase.OTHER
    return phases


def _gradients(graph: Graph) -> Reach | None:
    """Return which weight gradients come before and after every op; None if there are not two."""
    leaves = _leaf_products(graph)
    return Reach.of(graph, leaves) if len(leaves) >= 2 else None


def _leaf_products(graph: Graph) -> list[int]:
    """Matrix products that no product, loop or token exchange waits for."""
    heavy = _feeds_product(graph)
    return [op.id for op in graph.ops if (op.matmul or op.inner) and not heavy[op.id]]


def _feeds_product(graph: Graph) -> list[bool]:
    """Per op, whether a matrix product, a loop or a token exchange descends from it."""
    feeds = [False] * len(graph.ops)
    for op in reversed(graph.ops):
        for s in graph.succs[op.id]:
            other = graph.ops[s]
            tokens = other.collective is not None and other.collective.is_all_to_all
            if feeds[s] or other.matmul or other.inner or tokens:
                feeds[op.id] = True
                break
    return feeds


def _without_backward(graph: Graph) -> list[Role]:
    return [Role.EXCHANGE if op.collective or op.is_done else Role.FORWARD for op in graph.ops]


def _role(graph: Graph, op: int, reach: Reach, every: int) -> Role:
    """Classify one op by the weight gradients before and after it."""
    node, before, after = graph.ops[op], reach.before[op], reach.after[op]
    if node.collective is not None or node.is_done:
        sums_gradients = _sums_up(graph, node) and before and not after & ~before
        return Role.GRADIENT if sums_gradients else Role.EXCHANGE
    if after == every:
        return Role.FORWARD
    if op in reach.bit:
        return Role.WEIGHT
    if after:
        return Role.WEIGHT if not before and after.bit_count() == 1 else Role.BACKWARD
    return Role.OPTIMIZER if before else Role.OTHER


def _sums_up(graph: Graph, op: Op) -> bool:
    """Whether an op is half of an exchange, or all of it, that reduces."""
    exchange = op.collective or graph.ops[op.start].collective
    return exchange is not None and exchange.reduces
