"""The fallback for backends without a post-scheduler stage: an order pinned in StableHLO."""

import jax
import pytest

import lancet_jax
from lancet_jax.seams import backends
from tests.steps import CASES

FREELY = "schedule-dw{memory-slack=10}"


@pytest.fixture(autouse=True)
def without_post_scheduler(monkeypatch):
    monkeypatch.setattr(backends, "has_post_scheduler", lambda platform: False)


@pytest.mark.parametrize(
    "name",
    ["scatter", "gshard_einsum", "expert_choice", "remat", "scan_layers", "accumulation",
     "grad_outside", "linen", "auto_sharded", "two_axes", "callback", "dense", "forward_only"],
)  # fmt: skip
def test_results_agree(name):
    """Bit for bit, unless XLA:CPU fuses differently where a barrier stands."""
    case = CASES[name](jax.devices())
    step = lancet_jax.jit(case.step, pipeline=FREELY, target="v100:1x8", on_unsupported="raise",
                          **case.jit_kwargs)  # fmt: skip
    found = lancet_jax.verify(step, *case.args)
    assert found.largest_difference < 1e-6, str(found)
    assert sum(leaf.is_identical for leaf in found.leaves) >= len(found.leaves) - 1, str(found)
    assert "barriers" in step.outcomes[-1].notes[-1]


def test_barriers_are_really_there():
    case = CASES["scatter"](jax.devices())
    step = lancet_jax.jit(case.step, pipeline=FREELY, target="v100:1x8", **case.jit_kwargs)
    compiled = step.lower(*case.args).compile()
    assert compiled.plan.changes
    assert compiled.outcome.pins > 0
