"""Value numbers: two values with the same number are equal, whatever the input.

JAX emits the same index computation for the dispatch and for the combine of a layer, and once more
under rematerialisation; value numbers see through that.
"""

from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.ir.collectives import KINDS
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.traits import BRANCHES, EFFECTS

_UNIQUE = KINDS | EFFECTS | BRANCHES | {"custom_call", "rng_bit_generator", "while"}
_BARRIER = "optimization_barrier"
_IGNORED = ("mhlo.frontend_attributes", "channel_handle", "channel_id")
_SMALL = 4
"""Ops of a region that is compared; a larger one is taken to be like no other."""


def number_values(
    body: Body, *, exchanges: bool = False, through_barriers: bool = True
) -> dict[ir.Value, int]:
    """Number the values of a block.

    Args:
        body: the block.
        exchanges: whether exchanges of equal values count as equal, channels aside. A rewrite
            must not take one for the other; a report may.
        through_barriers: whether barriers are transparent.
    """
    numbers: dict[ir.Value, int] = {}
    known: dict[object, int] = {}

    def number(value: ir.Value) -> int:
        if value not in numbers:
            numbers[value] = len(known)
            known[("argument", len(known))] = numbers[value]
        return numbers[value]

    for i, op in enumerate(body.ops):
        kind = body.kind(i)
        operands = tuple(number(v) for v in op.operands)
        if kind == _BARRIER and through_barriers:
            numbers.update(zip(op.results, operands, strict=True))
            continue
        unique = _UNIQUE - KINDS if exchanges else _UNIQUE
        key = None if kind in unique or kind == _BARRIER else _key(op, kind, operands)
        for k, result in enumerate(op.results):
            number_of = (key if key is not None else ("op", i), k)
            numbers[result] = known.setdefault(number_of, len(known))
    return numbers


def _key(op: ir.Operation, kind: str, operands: tuple[int, ...]) -> object | None:
    regions = _regions(op)
    if regions is None:
        return None
    types = tuple(str(v.type) for v in op.results)
    return kind, operands, types, _attributes(op), regions


def _attributes(op: ir.Operation) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, str(op.attributes[name])) for name in sorted(op.attributes) if name not in _IGNORED
    )


def _regions(op: ir.Operation) -> tuple[str, ...] | None:
    """Spell small regions that read nothing from outside; None for others."""
    if not len(op.regions):
        return ()
    if any(len(region.blocks) != 1 for region in op.regions):
        return None
    blocks = [region.blocks[0] for region in op.regions]
    if sum(len(block.operations) for block in blocks) > _SMALL or _reads_outside(blocks):
        return None
    return tuple(map(_spelled, blocks))


def _reads_outside(blocks: Sequence[ir.Block]) -> bool:
    """Whether an op of some blocks reads a value that none of them makes or is given."""
    ops = [view.operation for block in blocks for view in block.operations]
    inside = {v for block in blocks for v in block.arguments}
    inside.update(v for op in ops for v in op.results)
    return any(v not in inside for op in ops for v in op.operands)


def _spelled(block: ir.Block) -> str:
    """Write a block down with its values counted from its first argument."""
    names = {value: f"v{i}" for i, value in enumerate(block.arguments)}
    lines = []
    for view in block.operations:
        op = view.operation
        lines.append(f"{op.name}({','.join(names[v] for v in op.operands)}){_attributes(op)}")
        names.update({value: f"v{len(names) + k}" for k, value in enumerate(op.results)})
    return ";".join(lines)
