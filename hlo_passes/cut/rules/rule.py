"""What a rule is: how an op is cut, and how one part of it is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.cut.states import Count, Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.proofs.engine import NotProved


@dataclass(frozen=True, slots=True)
class OpLoop:
    """One loop that an op runs, and the dims that it runs over.

    Attributes:
        operands: per operand the dim that the loop indexes, None where the operand has none.
        results: per result likewise; a result that lacks it is a sum over the loop.
    """

    operands: tuple[int | None, ...]
    results: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Which part is being built.

    Attributes:
        index: 0 <= index < k.
        k: number of parts.
        split: the states of the op.
        carry: for an op that carries, what the parts before left; None for the first.
    """

    index: int
    k: Count
    split: OpSplit
    carry: ir.Value | None = None


type CutRule = Callable[[ir.Operation, Spot, Cut, int], OpSplit]
"""(op, where it is cut, the cut there, k) to all states.

Raises:
    NotProved: if the op cannot be cut there.
"""

type PartRule = Callable[[ir.Operation, Sequence[ir.Value], Part], list[ir.Value]]
"""(op, the operands' parts, which part) to the results' parts, inserted at the current point."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of op is cut.

    Attributes:
        cut: decides.
        part: builds.
    """

    cut: CutRule
    part: PartRule


type Rules = Mapping[str, Rule]


def clone_part(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
    """Build one part as the op itself, on other operands and with other result types.

    Args:
        op: the op.
        operands: its operands of that part.
        part: which one.
    """
    return list(_clone(op, operands, part, {}).results)


def clone_with(
    attributes: Callable[[ir.Operation, Part], Mapping[str, ir.Attribute]],
) -> PartRule:
    """Return a rule that builds a part as the op itself, a few attributes replaced."""

    def build(op: ir.Operation, operands: Sequence[ir.Value], part: Part) -> list[ir.Value]:
        return list(_clone(op, operands, part, attributes(op, part)).results)

    return build


def _clone(
    op: ir.Operation,
    operands: Sequence[ir.Value],
    part: Part,
    attributes: Mapping[str, ir.Attribute],
) -> ir.Operation:
    new = op.clone()
    for i, value in enumerate(operands):
        new.operands[i] = value
    for result, state in zip(new.results, part.split.results, strict=True):
        if isinstance(state, Cut):
            result.set_type(part_type(result.type, state, part.k))
    for name, attribute in attributes.items():
        new.attributes[name] = attribute
    return new


def part_type(kind: ir.Type, cut: Cut, k: Count) -> ir.Type:
    """Return the type of one part of a tensor.

    Args:
        kind: the type of the whole.
        cut: how it is cut.
        k: number of parts.
    """
    tensor = ir.RankedTensorType(kind)
    shape = cut.part_of(tuple(tensor.shape), k)
    return ir.RankedTensorType.get(shape, tensor.element_type)


def by_factors(factors: Sequence[OpLoop], spot: Spot, cut: Cut, merge: str = "add") -> OpSplit:
    """Cut an op along the loop that indexes one of its dims.

    Args:
        factors: the loops that may be cut.
        spot: the operand or result that is cut.
        cut: how.
        merge: what puts the parts of a result together that lacks the loop.

    Raises:
        NotProved: if no such loop indexes that dim.
    """
    for factor in factors:
        dims = factor.operands if spot.side == "operand" else factor.results
        if dims[spot.index] == cut.dim:
            return OpSplit(
                tuple(None if d is None else Cut(d, cut.outer) for d in factor.operands),
                tuple(Sum(merge) if d is None else Cut(d, cut.outer) for d in factor.results),
            )
    raise NotProved(f"dim {cut.dim} of {spot.side} {spot.index} is not one it can be cut along")


def pointwise_factors(op: ir.Operation, dims: Sequence[int]) -> list[OpLoop]:
    """Return one loop per dim for ops whose tensors all share those dims; scalars have none."""
    return [
        OpLoop(
            tuple(d if len(shape_of(v)) > d else None for v in op.operands),
            tuple(d if len(shape_of(v)) > d else None for v in op.results),
        )
        for d in dims
    ]
