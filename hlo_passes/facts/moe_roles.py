"""Which compute belongs to the experts, and which to the gate, from dataflow alone.

Experts work between a dispatch and what follows it: the last all-to-all that they depend on is a
dispatch, of either direction. A gate turns products into whole numbers, which say where tokens go:
from the nearest matrix product to the integers that a forward dispatch waits for.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from hlo_passes.facts.exchange_labels import Label
from hlo_passes.facts.reach import Reach
from hlo_passes.facts.roles import Role
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph, Op


class MoePart(StrEnum):
    """The part of a MoE layer that an op is in."""

    NONE = ""
    GATE = "gate"
    EXPERT = "expert"


def moe_parts_of(
    graph: Graph, roles: Sequence[Role], labels: Mapping[str, Label]
) -> tuple[MoePart, ...]:
    """Return the part of every op of one computation.

    Args:
        graph: the computation.
        roles: of its ops, from `roles_of`.
        labels: of its exchanges by key, from `labels_of`.
    """
    tokens = [
        e for e in graph.exchanges if (c := graph.ops[e].collective) is not None and c.is_all_to_all
    ]
    if not tokens:
        return (MoePart.NONE,) * len(graph.ops)
    reach = Reach.of(graph, tokens)
    named = [labels[graph.ops[e].key] for e in tokens]
    gate = _gate_ops(graph, reach, named)
    return tuple(
        MoePart.GATE if op in gate
        else MoePart.EXPERT if _is_expert(reach.before[op], roles[op], named)
        else MoePart.NONE
        for op in range(len(graph.ops))
    )  # fmt: skip


def _is_expert(before: int, role: Role, named: Sequence[Label]) -> bool:
    """Whether the last all-to-all before an op is a dispatch; updates are nobody's."""
    if not before or role in (Role.OPTIMIZER, Role.EXCHANGE, Role.GRADIENT, Role.OTHER):
        return False
    return named[before.bit_length() - 1].phase is Phase.DISPATCH


def _gate_ops(graph: Graph, reach: Reach, named: Sequence[Label]) -> set[int]:
    """Return the ops from a matrix product to the integers that a forward dispatch waits for."""
    fed = _fed_by_products(graph)
    found: set[int] = set()
    work = [
        op.id for op in graph.ops
        if fed[op.id] and not op.matmul and _makes_integers(graph, op.id)
        and _awaits_forward_dispatch(reach.after[op.id], named)
    ]  # fmt: skip
    while work:
        op = graph.ops[work.pop()]
        if op.id in found or not fed[op.id] or not _is_plain(op):
            continue
        found.add(op.id)
        if not op.matmul:
            work += graph.preds[op.id]
    return found


def _fed_by_products(graph: Graph) -> list[bool]:
    """Per op, whether it is a matrix product or descends from one."""
    fed = [False] * len(graph.ops)
    for op in graph.ops:
        fed[op.id] = op.matmul or any(fed[p] for p in graph.preds[op.id])
    return fed


def _is_plain(op: Op) -> bool:
    """Whether an op is compute, with nothing inside it."""
    return op.collective is None and not op.is_done and not op.inner


def _makes_integers(graph: Graph, op: int) -> bool:
    leaves = (leaf for v in graph.ops[op].results for leaf in graph.values[v].leaves)
    return any(
        leaf.dtype in ("i32", "ui32", "i64", "ui64") and leaf.elements > 1 for leaf in leaves
    )


def _awaits_forward_dispatch(after: int, named: Sequence[Label]) -> bool:
    """Whether the next all-to-all after an op is a dispatch of the forward pass."""
    if not after:
        return False
    label = named[(after & -after).bit_length() - 1]
    return label.phase is Phase.DISPATCH and not label.backward
