"""Every rule, by the kind of op.

What is not here is not cut: calls into foreign code, random bits, loops and branches.
"""

from types import MappingProxyType

from jaxlib.mlir import ir

from hlo_passes.cut.rules import (
    dot,
    exchange,
    indexing,
    layout,
    ordering,
    pointwise,
    reduce,
    slicing,
)
from hlo_passes.cut.rules.rule import Rule, Rules

_FAMILIES = (pointwise, dot, layout, reduce, exchange, slicing, indexing, ordering)
_DIALECTS = ("stablehlo", "chlo")

RULES: Rules = MappingProxyType(
    {k: rule for family in _FAMILIES for k, rule in family.RULES.items()}
)


def rule_of(op: ir.Operation) -> Rule | None:
    """Return how an op is cut; None if nobody knows."""
    dialect, _, kind = op.name.rpartition(".")
    return RULES.get(kind) if dialect in _DIALECTS else None
