"""Shardy's own rules for sharding an op say the same as ours, told by nobody of ours."""

import pytest
from jax.extend.mlir.dialects import sdy
from jaxlib.mlir import ir, passmanager

from hlo_passes.cut.states import Cut, OpSplit, Sum
from tests.hlo_passes.cut.cases import CASES
from tests.hlo_passes.cut.splitting import Variant, the, variants

PASS = "builtin.module(func.func(sdy-populate-op-sharding-rules))"


def _factors(op: ir.Operation):
    """Return (per operand, per result) the factors of every dim, major first; and the rule."""
    rule = sdy.OpShardingRuleAttr(op.attributes["sdy.sharding_rule"])
    sides = [
        [
            [list(sdy.DimMappingAttr(d).factor_indices) for d in sdy.TensorMappingAttr(m).dim_mappings]
            for m in side
        ]
        for side in (rule.operand_mappings, rule.result_mappings)
    ]  # fmt: skip
    return (*sides, rule)


def _disagreements(op: ir.Operation, variant: Variant) -> list[str]:
    operands, results, rule = _factors(op)
    split = variant.split
    here = (operands if variant.spot.side == "operand" else results)[variant.spot.index]
    factor = here[variant.cut.dim][0]
    found = []
    if factor in rule.need_replication_factors:
        found.append("needs all")
    if (factor in rule.permutation_factors) != split.carries:
        found.append("moves along the dim")
    places = [
        *zip(operands, split.operands, strict=True),
        *zip(results, split.results, strict=True),
    ]
    for dims, state in places:
        holding = [d for d, inside in enumerate(dims) if factor in inside]
        if isinstance(state, Cut):
            majors = [d for d in holding if dims[d][0] == factor]
            if state.outer == 1 and majors != [state.dim]:
                found.append(f"holds it in {majors}")
            if holding != [state.dim]:
                found.append(f"does not hold it in {state.dim}")
        elif holding:
            found.append(f"holds it in {holding}, whole here")
        if isinstance(state, Sum) and factor not in rule.reduction_factors:
            found.append("is no reduction")
    return found


# What Shardy says nothing about.
SILENT = {"top_k", "constant", "iota"}

# Shardy knows no way to put parts of an overwriting scatter together, and wants all updates in one
# place. Here part i overwrites what part i-1 made, in the order of the updates.
EXCEPTIONS = {
    ("scatter", name)
    for name in ("set", "batched last", "two dims of updates", "two dims of unique updates")
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kind} {c.name}")
def test_shardy_agrees(case):
    module = case.module()
    with module.ir.context:
        passmanager.PassManager.parse(PASS).run(module.ir.operation)
    op = the(module, case.kind)
    if "sdy.sharding_rule" not in op.attributes:
        assert case.kind in SILENT
        return
    reasons = {
        (v.spot.side, v.spot.index, v.cut.dim): _disagreements(op, v)
        for v in variants(op, ks=(2,), outers=(1,))
        if isinstance(v.split, OpSplit)
    }
    wrong = {spot: why for spot, why in reasons.items() if why}
    assert bool(wrong) == ((case.kind, case.name) in EXCEPTIONS), wrong
