"""Names for kernels, by which a table of measured times knows them again in another module."""

from collections.abc import Iterator
from hashlib import sha256

from hlo_passes.cost.fusion import kernels
from hlo_passes.ir.graph import Graph


def kernel_names(graph: Graph) -> dict[int, str]:
    """Return the name of every kernel of a graph that is not fused yet, by the op that it writes.

    A name is 16 hex digits over the kernel's ops, their types and how they are joined. Two kernels
    that differ only in an attribute that changes neither (a transpose of equal dims) share it.
    """
    return {
        root: sha256("\n".join(_describe(graph, root, ops)).encode()).hexdigest()[:16]
        for root, ops in kernels(graph).items()
    }


def _describe(graph: Graph, root: int, ops: tuple[int, ...]) -> Iterator[str]:
    """Yield a line for every op of a kernel."""
    known: dict[int, str] = {}
    for i, id in enumerate(ops):
        op = graph.ops[id]
        reads = [known.setdefault(v, f"in{len(known)}:{_types(graph, v)}") for v in op.operands]
        made = [_types(graph, v) for v in op.results]
        known.update({v: f"op{i}.{k}" for k, v in enumerate(op.results)})
        mark = "root " if id == root else ""
        yield f"{mark}{op.kind} {op.flops:.0f} ({', '.join(reads)}) -> {', '.join(made)}"


def _types(graph: Graph, value: int) -> str:
    return " ".join(map(str, graph.values[value].leaves))
