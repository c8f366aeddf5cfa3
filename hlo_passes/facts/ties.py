"""Kernels that XLA put together of what it can compute early and what it can compute late.

    a = done(exchange 1)
    b = done(exchange 2)      x, y = fusion(a, b)      x is of a, and waits for exchange 2

An uncut step has few exchanges and many such kernels, and that is well. In a step that was cut so
that its parts need not wait for each other, one of them undoes the cut.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_

from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.exchanges import integers
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.text import Computation, HloText, Instruction


def tied_in(module: ScheduledModule) -> dict[str, tuple[str, ...]]:
    """Return what XLA has tied together, by kind: names of `kernels`, of `products`."""
    found = {"kernels": find_ties(module), "products": find_merged_products(module)}
    return {kind: names for kind, names in found.items() if names}


def find_ties(module: ScheduledModule) -> tuple[str, ...]:
    """Return the names of kernels some of whose results wait for exchanges that others do not."""
    parsed = module.parsed
    return tuple(name for graph, _ in module.snapshot().walk() for name in _ties(graph, parsed))


def _ties(graph: Graph, parsed: HloText) -> Iterator[str]:
    instructions = parsed.computations[graph.name].instructions
    waits = [0] * len(graph.values)
    for op in graph.ops:
        needed = [waits[value] for value in op.operands]
        everything = _union(needed) | (0 if op.collective is None else 1 << op.id)
        for value in op.results:
            waits[value] = everything
        if op.kind == "fusion" and everything:
            made = _waits_of_results(parsed, instructions[op.id], needed)
            if len(set(made)) > 1:
                yield op.name


def _waits_of_results(parsed: HloText, fusion: Instruction, needed: list[int]) -> list[int]:
    """Return, per result of a fusion, the exchanges that it waits for by itself."""
    (inside,) = (parsed.computations[name] for name in fusion.called("calls"))
    return [_union(needed[p] for p in read) for read in _parameters_read(inside)]


def _parameters_read(computation: Computation) -> list[frozenset[int]]:
    """Return, per result of a computation, the parameters that it is made of."""
    read: dict[str, frozenset[int]] = {}
    root = computation.instructions[-1]
    for one in computation.instructions:
        if one.opcode == "parameter":
            read[one.name] = frozenset(integers(one.attributes)[:1])
        else:
            read[one.name] = frozenset().union(*(read[name] for name in one.operands))
        root = one if one.is_root else root
    made = root.operands if root.opcode == "tuple" else (root.name,)
    return [read[name] for name in made]


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)


def find_merged_products(module: ScheduledModule) -> tuple[str, ...]:
    """Return the names of products that wait for exchanges which parts of them do not need."""
    return ()
