"""A prediction before XLA says which programs of a step may be short, well enough to leave others.

`scripts/bench_race.py` has the figures of more and larger steps.
"""

import jax.numpy as jnp
import pytest

import lancet_jax
from lancet_jax.compile.candidate import WHOLE
from lancet_jax.compile.tournament import ERROR
from tests.steps import CASES, Size

SIZE = Size(512, 1024, 1024, 4096, 64, dtype=jnp.bfloat16)


@pytest.fixture(scope="module")
def devices():
    return lancet_jax.aot.target("h100:8x8").devices


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scatter", "gshard_einsum", "accumulation"])
def test_predictions_are_off_by_no_more_than_the_race_allows_for(name, devices):
    case = CASES[name](devices, SIZE, abstract=True)
    step = lancet_jax.jit(case.step, pipeline="best", on_unsupported="raise", **case.jit_kwargs)
    compiled = step.lower(*case.args).compile()
    race = {entry.name: entry for entry in compiled.outcome.race}
    whole = race[WHOLE]
    cuts = [
        one for one in race.values() if one.step_us and one is not whole and "(" not in one.name
    ]
    assert cuts
    for cut in cuts:
        predicted = cut.predicted_us / whole.predicted_us
        assert predicted / (cut.step_us / whole.step_us) == pytest.approx(1.0, abs=ERROR), cut
    first = compiled.outcome.race[0]
    assert compiled.schedule().makespan_us == pytest.approx(first.step_us, rel=0.01)
