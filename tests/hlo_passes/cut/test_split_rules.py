import pytest

from hlo_passes.cut.rules.layout import cut_after_reshape
from hlo_passes.cut.states import Cut
from hlo_passes.proofs.engine import NotProved
from tests.hlo_passes.cut.cases import CASES
from tests.hlo_passes.cut.splitting import accepted, check_every_cut, refusals, the, variants


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kind} {c.name}")
def test_every_cut_that_a_rule_allows_makes_the_same(case):
    found = check_every_cut(case.module(), case.kind, case.args, exact=case.exact)
    assert accepted(found) == case.dims
    assert all(len(reason) > 10 for reason in refusals(found))


REASONS = {
    ("reshape", "thirds"): "scatters the 2 parts of dim 1",
    ("reduce", "argmax"): "more than one op",
    ("reduce", "another start"): "count again",
    ("reduce", "start that is handed in"): "constant that changes nothing",
    ("reduce", "returns what it was given"): "cannot be put together",
    ("reduce", "adds a number to itself"): "cannot be put together",
    ("reduce_window", "suffix"): "no prefix sum",
    ("reduce_window", "running maximum"): "no prefix sum",
    ("reduce_window", "prefix"): "block by block",
    ("reduce_window", "prefix in 16 bits"): "count in int32",
    ("reduce_window", "prefix with another start"): "no prefix sum",
    ("reduce_window", "prefix of two dims"): "no prefix sum",
    ("reduce_window", "moves a dim"): "moves the cut dim 0",
    ("reduce_window", "pool"): "no prefix sum",
    ("reduce_window", "smaller"): "changes the shape",
    ("bitcast_convert", "other width"): "changes the shape",
    ("constant", "table"): "sliced instead",
    ("constant", "complex"): "sliced instead",
    ("slice", "slice"): "takes a piece of the cut dim 1",
    ("slice", "strided"): "takes a piece of the cut dim 0",
    ("dynamic_slice", "at an argument"): "takes a piece of the cut dim 0",
    ("dynamic_update_slice", "at an argument"): "updates a piece of the cut dim 0",
    ("pad", "edge"): "pads the cut dim 0",
    ("pad", "holes"): "pads the cut dim 1",
    ("concatenate", "three"): "concatenates along the cut dim 1",
    ("reverse", "one dim"): "reverses the cut dim 1",
    ("gather", "lookup"): "takes pieces of dim 0 of operand 0",
    ("gather", "windows"): "coordinates of one index",
    ("gather", "coordinates first"): "coordinates of one index",
    ("scatter", "add"): "moves along dim 0 of operand 0",
    ("scatter", "mul"): "neither adds nor overwrites",
    ("scatter", "set"): "change their order",
    ("scatter", "index along a spanned dim"): "moves along dim 1 of operand 0",
    ("scatter", "two dims of updates"): "promise unique indices",
    ("scatter", "into two"): "several tensors",
    ("sort", "two keys"): "sorts along the cut dim 1: every part needs all of it",
    ("top_k", "rows"): "takes the largest along the cut dim 2",
}


@pytest.mark.parametrize("key", REASONS, ids=" ".join)
def test_a_refusal_says_why(key):
    (case,) = [c for c in CASES if (c.kind, c.name) == key]
    module = case.module()
    reasons = refusals(variants(the(module, case.kind)))
    assert any(REASONS[key] in reason for reason in reasons), reasons


def test_a_tensor_without_elements_is_not_cut():
    with pytest.raises(NotProved, match="without elements"):
        cut_after_reshape((0, 8), (8, 0), Cut(1), 2)
