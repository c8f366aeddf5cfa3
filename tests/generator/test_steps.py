"""Drawn steps, cut and held against plain `jax.jit`; `scripts/fuzz_steps.py` runs as many as asked.

The seed is the day, or `LANCET_STEP_SEED`; the end of the run prints it and how many were cut.
"""

import pytest

from tests.generator.compare import check
from tests.generator.faults import FAULTS
from tests.generator.of_the_day import COUNT, how_to_repeat, recipe_of, seed_of_the_run
from tests.generator.recipe import parse
from tests.generator.tally import KEY


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COUNT))
def test_a_drawn_step_is_the_same_cut(number, record_property):
    seed = seed_of_the_run()
    recipe = recipe_of(number, seed)
    print(f"{how_to_repeat(number, seed)}\n{recipe}")
    verdict = check(recipe)
    record_property(KEY, {
        "seed": seed, "cut": verdict.is_cut, "windows": verdict.first.has_windows,
        "in_64_bits": verdict.again is not None,
        "doubtful": verdict.is_doubtful,
    })  # fmt: skip
    assert verdict.is_right, verdict


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_wrong_once_is_right(fault):
    verdict = check(parse(FAULTS[fault].recipe))
    assert verdict.is_right, verdict
