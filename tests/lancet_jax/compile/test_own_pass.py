"""A pass of the user's own works on XLA's schedule, within `lancet_jax.jit`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import numpy as np
import pytest

import lancet_jax
from hlo_passes.base import Pass, PassResult, Stage, Tier
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.plans import Plan, reorders
from hlo_passes.run import Pipeline
from hlo_passes.schedule_dw import ScheduleDw
from lancet_jax.errors import VerifyError
from tests.steps import CASES


@dataclass(frozen=True)
class CountOps(Pass):
    """Counts the ops of a schedule, and changes nothing."""

    tier: ClassVar[Tier] = Tier.EXACT
    stage: ClassVar[Stage] = Stage.BEHIND_SCHEDULER

    counts: Any = field(default_factory=list, compare=False, repr=False)

    @property
    def spec(self):
        return self.pass_name()

    def plan(self, graph, context):
        self.counts.append(Counter(op.kind for inside, _ in graph.walk() for op in inside.ops))
        return Plan(module=context.fingerprint, target=context.costs.name, passes=(self.spec,))

    def apply(self, module, plan):
        assert isinstance(module, ScheduledModule)
        return PassResult(module, False)


@dataclass(frozen=True)
class Backwards(CountOps):
    """Turns the schedule around: no op comes after what it reads."""

    def plan(self, graph, context):
        order = tuple(reversed(range(len(graph.ops))))
        return Plan(module=context.fingerprint, target=context.costs.name, passes=(self.spec,),
                    edits=reorders(self.spec, {graph.name: order}))  # fmt: skip


@pytest.fixture
def case():
    return CASES["scatter"](jax.devices())


def bits(case, step):
    results = step(*jax.tree.map(lambda x: x.copy(), case.args))
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(results)]


def wrapped(case, *passes, **options):
    return lancet_jax.jit(
        case.step, pipeline=Pipeline(passes), target="h100:1x8", **options, **case.jit_kwargs
    )


@pytest.mark.parametrize("others", [(), (ScheduleDw(memory_slack=10),)], ids=["alone", "behind dw"])
def test_it_sees_what_xla_has_scheduled(case, others):
    counting = CountOps()
    step = wrapped(case, *others, counting, on_unsupported="raise")
    assert bits(case, step) == bits(case, jax.jit(case.step, **case.jit_kwargs))
    (counts,) = counting.counts
    assert counts["fusion"] > 0, "XLA has fused what it sees"
    assert counts["all_to_all"] > 0
    (outcome,) = step.outcomes
    assert outcome.error is None
    assert (outcome.plan is not None) is bool(others)
    text = step.lower(*case.args).compile().as_text()
    assert "lancet_salt" in text
    module = ScheduledModule(text)
    seen = Counter(op.kind for inside, _ in module.snapshot().walk() for op in inside.ops)
    assert seen["all_to_all"] == counts["all_to_all"]


def test_an_illegal_order_leaves_the_step_as_it_was(case):
    with pytest.warns(lancet_jax.errors.LancetWarning, match="which it needs"):
        found = bits(case, step := wrapped(case, Backwards()))
    assert found == bits(case, jax.jit(case.step, **case.jit_kwargs))
    assert isinstance(step.outcomes[0].error, VerifyError)
    assert step.outcomes[0].plan is None


def test_an_illegal_order_is_an_error_where_that_is_wanted(case):
    with pytest.raises(VerifyError, match="which it needs"):
        wrapped(case, Backwards(), on_unsupported="raise").lower(*case.args).compile()
