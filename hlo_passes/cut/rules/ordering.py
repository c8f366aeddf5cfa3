"""Ops that order elements along one dim."""

from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import Rule, Rules, clone_part
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.proofs.engine import NotProved


def _beside(op: ir.Operation, cut: Cut, ordered: int, does: str) -> OpSplit:
    if cut.dim == ordered:
        raise NotProved(
            f"{does} along the cut dim {cut.dim}: every part needs all of it; cut another dim, or "
            "join the parts first"
        )
    return OpSplit((cut,) * len(op.operands), (cut,) * len(op.results))


def _cut_sort(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    dim = integer(op, "dimension") if "dimension" in op.attributes else -1
    return _beside(op, cut, dim % len(shape_of(op.operands[0])), "sorts")


def _cut_top_k(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    return _beside(op, cut, len(shape_of(op.operands[0])) - 1, "takes the largest")


RULES: Rules = {
    "sort": Rule(_cut_sort, clone_part),
    "top_k": Rule(_cut_top_k, clone_part),
}
