"""Runs several trips of a counted loop as one, so that exchanges of one run beside the others."""

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.edit import clone_into
from hlo_passes.ir.trips import counter_of


def counted_trips(loop: ir.Operation) -> int:
    """Return how often a loop runs that counts from 0 in steps of 1 up to a limit; 0 for others."""
    counter = counter_of(loop)
    if counter is None or (counter.first, counter.step, counter.direction) != (0, 1, "LT"):
        return 0
    return counter.trips


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
