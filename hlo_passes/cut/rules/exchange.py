"""Exchanges between devices."""

from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import Rule, Rules, clone_part
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.proofs.engine import NotProved


def _cut_all_to_all(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """Follow a cut through the blocks that an all-to-all splits and concatenates.

    The split dim is `[devices, rest]` before and the concat dim `[devices, rest]` behind it.
    """
    if len(op.operands) != 1:
        raise NotProved("an all-to-all of several tensors")
    peers = integer(op, "split_count")
    split, concat = integer(op, "split_dimension"), integer(op, "concat_dimension")
    before, after = (split, concat) if spot.side == "operand" else (concat, split)
    outer = cut.outer
    if cut.dim == before:
        if outer % peers:
            raise NotProved("the cut dim is the one that is dealt out to the devices")
        outer //= peers
    if cut.dim == after:
        outer *= peers
    other = Cut(cut.dim, outer)
    return OpSplit((cut,), (other,)) if spot.side == "operand" else OpSplit((other,), (cut,))


def _cut_sum(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    """A sum over devices goes element by element."""
    if len({shape_of(v) for v in (*op.operands, *op.results)}) != 1:
        raise NotProved("an exchange of several tensors")
    count = len(op.operands)
    return OpSplit((cut,) * count, (cut,) * count)


def _cut_along(name: str):
    def rule(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
        if len(op.operands) != 1 or cut.dim == integer(op, name):
            raise NotProved("the cut dim is the one that the devices share")
        return OpSplit((cut,), (cut,))

    return rule


RULES: Rules = {
    "all_to_all": Rule(_cut_all_to_all, clone_part),
    "all_reduce": Rule(_cut_sum, clone_part),
    "collective_permute": Rule(_cut_sum, clone_part),
    "all_gather": Rule(_cut_along("all_gather_dim"), clone_part),
    "reduce_scatter": Rule(_cut_along("scatter_dimension"), clone_part),
}
