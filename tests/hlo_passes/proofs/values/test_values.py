"""What domains claim of values holds of what comes out, whatever goes in; and a wrong rule shows."""

import time

import numpy as np
import pytest

from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.dropless import tables
from hlo_passes.layers.dropless.tables import Tables
from hlo_passes.proofs import counting, one_hot, value_numbers
from hlo_passes.proofs.arithmetic import dtype_of, element_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.distinct import DistinctRows
from hlo_passes.proofs.elements import Elements, View
from hlo_passes.proofs.fills import Fills, number_like
from hlo_passes.proofs.one_hot import OneHot, Term
from hlo_passes.proofs.only_where import _Shares
from hlo_passes.proofs.ranges import Range, Ranges
from tests.hlo_passes.proofs.values.families import FAMILIES, wrong_claims


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_claimed_holds_of_other_programs_every_day(family):
    today = int(time.time() // 86400)
    for seed in range(100 * today, 100 * today + 8):
        print(f"{family}: seed {seed}")
        found = wrong_claims(family, seed)
        assert not found, f"seed {seed}\n{found[0]}"


def _without_overflow(domain, op, value):
    a, b = (domain.of(v) for v in op.operands)
    return domain.unknown(value) if a.is_any or b.is_any else Range(a.low + b.low, a.high + b.high)


def _as_it_was(domain, op, value):
    return domain.of(op.operands[0])


def _as_numpy_converts(domain, op, value):
    found, made = domain.of(op.operands[0]), dtype_of(element_of(value))
    with np.errstate(all="ignore"):
        return None if found is None or made is None else found.astype(made)


def _in_the_same_order(domain, op, value):
    found = domain.of(op.operands[0])
    is_as_large = found.at.size == np.prod(shape_of(value), dtype=int)
    return (
        View(found.value, found.at.reshape(shape_of(value)))
        if is_as_large
        else domain.unknown(value)
    )


def _zero_of_zero(domain, op, value):
    return number_like(value, 0) if domain.is_zero(op.operands[0]) else None


def _zero_where_the_first_is(domain, op, value):
    return domain.terms(op.operands[0])


def _however_large(self, indices, dims, index_dim):
    return (self.numbers[indices], index_dim) in self.promised


def _exact_as_ever(term, gone, several):
    kept = frozenset(hot for hot in term.hots if hot.counted not in gone)
    return Term(kept, term.exact and len(kept) == len(term.hots))


WRONG = [
    ("any ops", Ranges, "add", _without_overflow),
    ("any ops", Ranges, "convert", _as_it_was),
    ("any ops", Ranges, "pad", _as_it_was),
    ("any ops", Constants, "convert", _as_numpy_converts),
    ("any ops", Constants, "reverse", _as_it_was),
    ("any ops", Elements, "convert", _as_it_was),
    ("any ops", Elements, "broadcast_in_dim", _in_the_same_order),
    ("any ops", Elements, "transpose", _in_the_same_order),
    ("counts", Counting, "reverse", counting._moved),
    ("rows", Fills, "divide", _zero_of_zero),
    ("rows", Fills, "exponential", _zero_of_zero),
    ("masks", OneHot, "subtract", _zero_where_the_first_is),
    ("masks", OneHot, "divide", _zero_where_the_first_is),
    ("masks", one_hot._Places, "convert", _as_it_was),
    ("needed", _Shares, "transpose", _as_it_was),
    ("tables", Tables, "convert", _as_it_was),
    ("tables", Tables, "transpose", _as_it_was),
    ("tables", Tables, "divide", tables._of_fixed(lambda x, y: x // np.maximum(y, 1))),
    ("tables", tables, "is_prefix_scan", lambda op: True),
    ("any ops", value_numbers, "_attributes", lambda op: ()),
    ("counts", View, "is_like", lambda self, other: True),
    ("counts", counting, "_is_prefix", lambda op, dim: True),
    ("counts", counting, "_groups", lambda dims, counted: None),
    ("counts", DistinctRows, "are_distinct", _however_large),
    ("masks", one_hot, "_without", _exact_as_ever),
]
"""Family, what is changed, its rule or part, and what that is changed to."""

SEEDS = {"any ops": 7, "counts": 4, "masks": 3, "rows": 4, "needed": 3, "tables": 7}
"""Chosen so that the programs, which are few, try all rules that are broken below."""

CASES = [
    (family, *case)
    for family in FAMILIES
    for case in [(None, "", None), *(w[1:] for w in WRONG if w[0] == family)]
]
"""Family by family: a worker that has run its programs need not run others'."""


@pytest.mark.parametrize(
    ("family", "owner", "name", "wrong"), CASES, ids=lambda x: getattr(x, "__name__", x)
)
def test_what_is_claimed_holds_and_a_wrong_rule_shows(monkeypatch, family, owner, name, wrong):
    if hasattr(owner, name):
        monkeypatch.setattr(owner, name, wrong)
    elif owner is not None:
        monkeypatch.setitem(owner.rules, name, wrong)
    found = wrong_claims(family, SEEDS[family])
    assert bool(found) == (owner is not None), found[:1]
