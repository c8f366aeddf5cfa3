"""What a candidate knows of itself."""

import pytest

from hlo_passes.base import Job
from hlo_passes.errors import PlanError
from hlo_passes.pipelines import parse_pipeline
from hlo_passes.plans import Plan
from lancet_jax.compile.candidate import Candidate


def test_what_was_judged_early_is_told_what_passes_said():
    """A decision without the plans of all passes could not be followed at the next start."""
    early = Candidate(None).apart({"one": 1}, "without two")
    planned = Candidate(None, plans=(Plan(module="", target="", passes=("choose-split",)),))
    found = early.told_by({planned.name: planned})
    assert found.plans == planned.plans
    assert (found.options, found.name) == (early.options, early.name)
    assert planned.told_by({early.name: early}) is planned
    assert early.told_by({}) is early


def test_plans_of_other_passes_are_not_followed():
    with pytest.raises(PlanError, match="0 plans are of other passes"):
        parse_pipeline("best").run(None, Job(costs=None), plans=())
