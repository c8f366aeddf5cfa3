"""Some ops of a block as a program of their own, to be compiled and run alone."""

from collections.abc import Sequence

from jaxlib.mlir import ir

from hlo_passes.errors import InputError
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.edit import clone_into
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.proofs.prefix import is_prefix_scan


def program_of(
    body: Body, ops: Sequence[int], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]
) -> str:
    """Return the text of a module of one function, `main`; the block's context is active.

    Args:
        body: the block.
        ops: places of the ops, in order.
        inputs: values that the function takes.
        outputs: values that it returns.

    Raises:
        InputError: if an op is a scan that is no prefix sum.
    """
    module = ir.Module.create()
    module.operation.attributes["sym_name"] = ir.StringAttr.get("segment")
    kinds = ir.FunctionType.get([v.type for v in inputs], [v.type for v in outputs])
    attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kinds)}
    with ir.InsertionPoint(module.body):
        function = ir.Operation.create("func.func", attributes=attributes, regions=1)
    types = [value.type for value in inputs]
    places = [ir.Location.unknown()] * len(types)
    block = function.regions[0].blocks.append(*types, arg_locs=places)
    now = dict(zip(inputs, block.arguments, strict=True))
    with ir.InsertionPoint(block):
        for place in ops:
            if body.kind(place) == "scan":
                _sum_up(body.ops[place], now)
            else:
                clone_into(body.ops[place], now)
        ir.Operation.create("func.return", operands=[now[value] for value in outputs])
    return module.operation.get_asm(enable_debug_info=False)


def _sum_up(scan: ir.Operation, now: dict[ir.Value, ir.Value]) -> None:
    """Build a prefix sum as XLA:CPU knows it; a `chlo.scan` in a fusion ends its process."""
    if not is_prefix_scan(scan):
        raise InputError("chlo.scan", "is no prefix sum", "replay a step without it")
    value, dim = now[scan.operands[0]], integer(scan, "dimension")
    now[scan.results[0]] = total = build.prefix_sum(value, dim)
    end = build.slice_of(total, dim, shape_of(total)[dim] - 1, shape_of(total)[dim])
    now[scan.results[1]] = build.reshape(end, shape_of(scan.results[1]))
