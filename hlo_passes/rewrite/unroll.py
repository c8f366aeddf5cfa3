"""Runs several trips of a counted loop as one, so that exchanges of one run beside the others."""

from jaxlib.mlir import ir

from hlo_passes.analysis.split_rules.pointwise import splat_of
from hlo_passes.ir.edit import clone_into


def counted_trips(loop: ir.Operation) -> int:
    """Return how often a loop runs that counts from 0 in steps of 1 to a constant; 0 for others."""
    condition, body = (region.blocks[0] for region in loop.regions)
    returned = _maker(condition.operations[len(condition.operations) - 1].operands[0])
    if returned is None or returned.name != "stablehlo.compare":
        return 0
    if "LT" not in str(returned.attributes["comparison_direction"]):
        return 0
    counter, limit = returned.operands
    if not isinstance(counter, ir.BlockArgument) or (trips := _number(limit)) is None:
        return 0
    at = counter.arg_number
    step = _maker(body.operations[len(body.operations) - 1].operands[at])
    if step is None or step.name != "stablehlo.add" or _number(loop.operands[at]) != 0:
        return 0
    steps = [_number(value) for value in step.operands if value != body.arguments[at]]
    return trips if steps == [1] else 0


def unroll(loop: ir.Operation, times: int) -> None:
    """Let every trip do what `times` trips did; the loop's trips must be a multiple of that."""
    block = loop.regions[1].blocks[0]
    *ops, end = [view.operation for view in block.operations]
    returned = list(end.operands)
    for _ in range(times - 1):
        now = dict(zip(block.arguments, end.operands, strict=True))
        with ir.InsertionPoint(end):
            for op in ops:
                clone_into(op, now)
        for i, value in enumerate(returned):
            end.operands[i] = now.get(value, value)


def _maker(value: ir.Value) -> ir.Operation | None:
    return None if isinstance(value, ir.BlockArgument) else value.owner.operation


def _number(value: ir.Value) -> int | None:
    """Return an integer constant."""
    maker = _maker(value)
    if maker is None or maker.name != "stablehlo.constant":
        return None
    number = splat_of(maker)
    return number.value if isinstance(number, ir.IntegerAttr) else None
