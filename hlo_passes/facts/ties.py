"""What XLA put together of parts that it can compute early and parts that it can compute late.

    a = done(exchange 1)
    b = done(exchange 2)      x, y = fusion(a, b)      x is of a, and waits for exchange 2
                              p = dot(concatenate(a, b), w)      so does the half of p that is of a

In a step with few exchanges on one path that saves traffic, and is well. In one whose parts need
not wait for each other - because it was cut, or because its author unrolled microbatches - one of
them undoes that.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_

from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.hlo.exchanges import integers
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.text import Computation, HloText, Instruction


def tied_in(module: ScheduledModule) -> dict[str, tuple[str, ...]]:
    """Return what XLA has tied together, by kind: names of `kernels`, `products`, `exchanges`."""
    found = {
        "kernels": find_ties(module),
        "products": find_merged_products(module),
        "exchanges": find_combined_exchanges(module),
    }
    return {kind: names for kind, names in found.items() if names}


def find_ties(module: ScheduledModule) -> tuple[str, ...]:
    """Return the names of kernels some of whose results wait for exchanges that others do not."""
    return tuple(
        op.name for graph, _ in module.snapshot().walk()
        for op, pieces, kind in _in_graph(graph, module.parsed)
        if kind == "tuple" and len(set(pieces)) > 1
    )  # fmt: skip


def find_merged_products(module: ScheduledModule) -> tuple[str, ...]:
    """Return the names of products that wait for exchanges which some of their rows do not need.

    XLA's dot-merger puts products that share an operand into one of the others, put together.
    """
    found: list[str] = []
    for graph, _ in module.snapshot().walk():
        tied = _put_together(graph, module.parsed)
        found += [op.name for op in graph.ops if op.matmul and not tied.isdisjoint(op.operands)]
    return tuple(found)


def find_combined_exchanges(module: ScheduledModule) -> tuple[str, ...]:
    """Return the names of exchanges of several values that have to wait for different exchanges.

    XLA's combiners make one of many gradient sums or gathers of weights.
    """
    found: list[str] = []
    for graph, _ in module.snapshot().walk():
        tied = _put_together(graph, module.parsed)
        found += [
            op.name for op, pieces, kind in _in_graph(graph, module.parsed)
            if kind == "exchange" and (len(set(pieces)) > 1 or not tied.isdisjoint(op.operands))
        ]  # fmt: skip
    return tuple(found)


def _put_together(graph: Graph, parsed: HloText) -> set[int]:
    """Return the values that are put together of pieces that wait for different exchanges."""
    return {
        value for op, pieces, kind in _in_graph(graph, parsed)
        if kind == "concatenate" and len(set(pieces)) > 1 for value in op.results
    }  # fmt: skip


def _in_graph(graph: Graph, parsed: HloText) -> Iterator[tuple[Op, list[int], str]]:
    """Yield every op that is made of pieces, with the exchanges that each piece waits for by
    itself, as bits, and what it is: a kernel with several results (`tuple`), what is put together
    (`concatenate`), or an `exchange` of several values.
    """
    instructions = parsed.computations[graph.name].instructions
    waits = [0] * len(graph.values)
    for op in graph.ops:
        needed = [waits[value] for value in op.operands]
        everything = _union(needed) | (0 if op.collective is None else 1 << op.id)
        for value in op.results:
            waits[value] = everything
        if not everything:
            continue
        if op.collective is not None and needed:
            yield op, needed, "exchange"
        if op.kind == "concatenate":
            yield op, needed, "concatenate"
        elif op.kind == "fusion":
            read, kind = _pieces_of(parsed, instructions[op.id])
            yield op, [_union(needed[p] for p in piece) for piece in read], kind


def _pieces_of(parsed: HloText, fusion: Instruction) -> tuple[list[frozenset[int]], str]:
    """Return, per piece of what a fusion makes, the parameters that it is made of."""
    (inside,) = (parsed.computations[name] for name in fusion.called("calls"))
    return _parameters_read(inside)


def _parameters_read(computation: Computation) -> tuple[list[frozenset[int]], str]:
    """Return, per piece of a computation's result, the parameters that it is made of."""
    read: dict[str, frozenset[int]] = {}
    by_name: dict[str, Instruction] = {}
    root = computation.instructions[-1]
    for one in computation.instructions:
        by_name[one.name] = one
        if one.opcode == "parameter":
            read[one.name] = frozenset(integers(one.attributes)[:1])
        else:
            read[one.name] = frozenset().union(*(read[name] for name in one.operands))
        root = one if one.is_root else root
    while root.opcode in ("bitcast", "copy") and root.operands[0] in by_name:
        root = by_name[root.operands[0]]
    is_made_of_pieces = root.opcode in ("tuple", "concatenate")
    made = root.operands if is_made_of_pieces else (root.name,)
    return [read[name] for name in made], root.opcode if is_made_of_pieces else ""


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)
