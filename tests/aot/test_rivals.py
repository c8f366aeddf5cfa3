"""A cut step competes with the uncut one on XLA's own schedules, and loses where it is longer."""

from dataclasses import dataclass

import pytest

import lancet_jax
from hlo_passes.base import Pipeline
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.split_exchange import SplitExchange
from lancet_jax.compile.rivals import uncut
from scripts.gpu_steps import model_step


@dataclass(frozen=True)
class Eager(SplitExchange):
    """Cuts whatever the cost, as a pass whose predictions are wrong would."""

    k: int | None = 2

    @property
    def is_settled(self):
        return False


def compiled(target):
    gpus = lancet_jax.aot.target(target)
    step = model_step("gpt2_s_moe", gpus, 2, batch_per_device=2, vocab=1024)
    wrapped = lancet_jax.jit(
        step.function, pipeline=Pipeline((Eager(), ScheduleDw())), on_unsupported="raise",
        **step.jit_options,
    )  # fmt: skip
    return wrapped.lower(*step.arguments).compile()


@pytest.mark.slow
def test_a_cut_that_does_not_pay_is_dropped():
    whole = compiled("v100:8x8")
    assert not whole.outcome.cuts
    assert whole.outcome.notes[-1].endswith("left whole")
    assert whole.outcome.plan.passes == (ScheduleDw().spec,)
    assert not whole.drift()


@pytest.mark.slow
def test_a_cut_that_pays_is_kept_and_held_against_the_uncut_step():
    kept = compiled("h100:1x8")
    report = kept.report()
    assert kept.outcome.cuts
    assert kept.outcome.notes[-1].endswith("the cut step is kept")
    assert report.before.makespan_us > report.after.makespan_us
    assert report.before.makespan_us == kept.outcome.rival.before.makespan_us
    needed = [note for note in kept.outcome.notes if "; uncut its schedule holds" in note]
    assert len(needed) == 1


def test_what_the_user_settled_has_no_rival():
    assert uncut((SplitExchange(), ScheduleDw())).passes == (ScheduleDw(),)
    assert uncut((SplitExchange(k=2), ScheduleDw())) is None
    assert uncut((SplitExchange(),)) is None
    assert uncut((ScheduleDw(),)) is None
