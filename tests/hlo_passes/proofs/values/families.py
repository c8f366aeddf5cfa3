"""Which programs try which domains."""

from collections.abc import Callable
from functools import cache

import numpy as np

from tests.hlo_passes.proofs.values import claims, count_claims, mask_claims
from tests.hlo_passes.proofs.values.counted import write_counts
from tests.hlo_passes.proofs.values.filled import fills, write_rows
from tests.hlo_passes.proofs.values.masked import write_masks
from tests.hlo_passes.proofs.values.program import Executed
from tests.hlo_passes.proofs.values.soup import write_soup
from tests.hlo_passes.proofs.values.tabled import tables, write_tables
from tests.hlo_passes.proofs.values.wanted import wanted, write_wanted

_OF_ALL = (claims.constants, claims.ranges, claims.elements, claims.equality)


@cache
def _soup(seed: int):
    return write_soup(np.random.default_rng(seed), 25).executed(), _OF_ALL


@cache
def _counts(seed: int):
    program, asked = write_counts(np.random.default_rng(seed), 8)
    return program, (*_OF_ALL, count_claims.counts, lambda p: count_claims.distinct(p, asked))


@cache
def _masks(seed: int):
    program = write_masks(np.random.default_rng(seed), 9).executed()
    return program, (*_OF_ALL, mask_claims.masks, mask_claims.places)


@cache
def _rows(seed: int):
    program, rows = write_rows(np.random.default_rng(seed), 14)
    return program, (*_OF_ALL, lambda p: fills(p, rows))


@cache
def _wanted(seed: int):
    program, claimed = write_wanted(np.random.default_rng(seed), 12)
    return program, (lambda p: wanted(p, claimed),)


@cache
def _tables(seed: int):
    program, given = write_tables(np.random.default_rng(seed), 24)
    return program, (lambda p: tables(p, given),)


FAMILIES: dict[str, Callable[[int], tuple[Executed, tuple]]] = {
    "any ops": _soup, "counts": _counts, "masks": _masks, "rows": _rows, "needed": _wanted,
    "tables": _tables,
}  # fmt: skip


def wrong_claims(family: str, seed: int) -> list[str]:
    """Return what domains claim wrongly of the programs of a family."""
    program, checks = FAMILIES[family](seed)
    return [text for check in checks for text in claims.wrong(program, check)]
