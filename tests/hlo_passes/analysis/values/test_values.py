"""What domains claim of values holds of what comes out, whatever goes in."""

import time
from functools import cache

import numpy as np
import pytest

from tests.hlo_passes.analysis.values import claims, count_claims
from tests.hlo_passes.analysis.values.counted import write_counts
from tests.hlo_passes.analysis.values.soup import write_soup

OF_ALL = (claims.constants, claims.ranges, claims.elements, claims.equality)


@cache
def soup(seed: int):
    return write_soup(np.random.default_rng(seed), 25).executed()


@cache
def counted(seed: int):
    return write_counts(np.random.default_rng(seed), 8)


def wrong_in_soup(seed: int) -> list[str]:
    return [text for check in OF_ALL for text in claims.wrong(soup(seed), check)]


def wrong_counts(seed: int) -> list[str]:
    program, asked = counted(seed)
    checks = (*OF_ALL, count_claims.counts, lambda p: count_claims.distinct(p, asked))
    return [text for check in checks for text in claims.wrong(program, check)]


FAMILIES = (wrong_in_soup, wrong_counts)


@pytest.mark.parametrize("wrong", FAMILIES, ids=lambda f: f.__name__)
def test_what_is_claimed_holds(wrong):
    found = wrong(1)
    assert not found, found[0]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", FAMILIES, ids=lambda f: f.__name__)
def test_what_is_claimed_holds_of_other_programs_every_day(wrong):
    today = int(time.time() // 86400)
    for seed in range(100 * today, 100 * today + 8):
        print(f"seed {seed}")
        found = wrong(seed)
        assert not found, f"seed {seed}\n{found[0]}"
