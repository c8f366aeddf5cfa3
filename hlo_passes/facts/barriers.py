"""Looks through optimisation barriers, as XLA's final schedule does: by then they are gone."""

from dataclasses import replace

from hlo_passes.ir.graph import Graph

_BARRIER = "optimization_barrier"


def without_barriers(graph: Graph) -> Graph:
    """Return a graph whose ops read what barriers hand on, and wait for nothing else behind them.

    The barriers stay, with nobody to wait for them, so that ids keep their meaning.
    """
    same = list(range(len(graph.values)))
    ops = []
    for op in graph.ops:
        operands = tuple(same[value] for value in op.operands)
        inner = tuple(without_barriers(inside) for inside in op.inner)
        if op.kind == _BARRIER:
            for result, operand in zip(op.results, operands, strict=True):
                same[result] = operand
        ops.append(replace(op, operands=operands, inner=inner))
    returns = tuple(same[value] for value in graph.returns)
    return replace(graph, ops=tuple(ops), returns=returns)
