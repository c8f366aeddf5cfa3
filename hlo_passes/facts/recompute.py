"""Which ops of the backward pass do again what the forward pass did, to save memory.

The proof is dataflow: an op that repeats an op of the forward pass, kind, attributes and all that
it reads being equal, back to the step's arguments. Barriers, with which JAX's `checkpoint` keeps
XLA from merging the two, are seen through; what XLA would merge is no recomputation. Scopes
(`rematted_computation`) are no proof, but all that there is where the forward pass is another
loop, so ops that they alone name are counted apart.

A fusion that holds a repeated op and others besides is not recognised: what is found of a
scheduled module is the least that is recomputed.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from hlo_passes.facts.roles import Role, roles_of
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.blocks import walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.proofs.hlo_value_numbers import HloNumbering
from hlo_passes.proofs.value_numbers import number_values

_SCOPE = re.compile(r"\brematted_computation\b")

type ValueKey = tuple[Hashable, ...]
"""Per op, what it computes: equal numbers, equal results. None for an op of constants only."""


@dataclass(frozen=True)
class Recomputed:
    """What a step computes twice.

    Attributes:
        repeats: from the key of an op to the key of the op of the forward pass that it repeats.
        scoped: keys of the ops that only their scope says are recomputed.
        agreed: keys of those in `repeats` whose scope says so as well.
    """

    repeats: dict[str, str]
    scoped: frozenset[str]
    agreed: frozenset[str]


def recomputed_in(module: Module | ScheduledModule) -> Recomputed:
    """Return what the backward pass of a step computes again."""
    graph = module.snapshot()
    graphs = {inside.name: inside for inside, _ in graph.walk()}
    if isinstance(module, Module):
        repeats = dict(_repeats_of_blocks(module, graphs))
    else:
        repeats = dict(_repeats_of_hlo(module, graphs))
    named = {op.key for inside in graphs.values() for op in inside.ops if _is_named(op)}
    return Recomputed(repeats, frozenset(named - set(repeats)), frozenset(named & set(repeats)))


def _repeats_of_blocks(module: Module, graphs: Mapping[str, Graph]) -> Iterator[tuple[str, str]]:
    for name, block in walk_blocks(module.body):
        inside = graphs.get(name)
        # Without a barrier XLA merges whatever is equal, and numbering takes its time.
        if inside is not None and any(op.kind == "optimization_barrier" for op in inside.ops):
            yield from _repeats(inside, *_numbers_of_block(Body(block)))


def _repeats_of_hlo(
    module: ScheduledModule, graphs: Mapping[str, Graph]
) -> Iterator[tuple[str, str]]:
    numbering = HloNumbering(module)
    for name, inside in graphs.items():
        yield from _repeats(inside, numbering.of(name))


def _is_named(op: Op) -> bool:
    """Whether an op's scope says that it is computed a second time."""
    if op.is_free or op.inner or op.is_done:
        return False
    return _SCOPE.search(op.scope) is not None


def _repeats(graph: Graph, numbers: ValueKey, merged: ValueKey = ()) -> Iterator[tuple[str, str]]:
    """Yield (key of an op, key of the forward op that it repeats).

    Args:
        graph: one computation.
        numbers: of its ops.
        merged: numbers that are equal only if XLA would merge the ops; none where it has done so.
    """
    roles = roles_of(graph)
    first: dict[Hashable, int] = {}
    for op in graph.ops:
        number = numbers[op.id]
        if number is None or op.is_free or op.is_done or op.inner:
            continue
        made = first.setdefault(number, op.id)
        if roles[made] is not Role.FORWARD and graph.ops[made].collective is None:
            continue
        is_backward = roles[op.id] is not Role.FORWARD
        if made != op.id and is_backward and not (merged and merged[made] == merged[op.id]):
            yield op.key, graph.ops[made].key


def _numbers_of_block(body: Body) -> tuple[ValueKey, ValueKey]:
    """Number the ops of a block as if there were no barriers, and as XLA sees them."""
    seen = number_values(body, exchanges=True)
    merged = number_values(body, exchanges=True, through_barriers=False)
    varies: set[int] = {seen[v] for v in body.block.arguments if v in seen}
    numbers: list[Hashable] = []
    for op, reads in zip(body.ops, body.reads, strict=True):
        is_variable = any(v not in body.maker or seen[v] in varies for v in reads)
        results = tuple(seen[result] for result in op.results)
        if is_variable:
            varies.update(results)
        numbers.append(results if is_variable and results else None)
    return tuple(numbers), tuple(tuple(merged[r] for r in op.results) for op in body.ops)
