"""Steps that dispatch by one-hot products, cut along their tokens, on 8 CPU devices.

The gradients themselves are compared: after an update they would hide behind the weights.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lancet_jax
from tests.auto_steps import IDIOMS
from tests.hlo_passes.split.test_index_rows import arguments, layer, step_of
from tests.lancet_jax.test_split import BOUND, check, distance, make, run
from tests.one_hot_steps import MASKS, one_hot_step
from tests.steps import CASES, Size

SMALL = Size(batch=32, seq=16, layers=1)


def outcome_of(case, k):
    """Return what a cut step gives, and what became of it."""
    step = lancet_jax.jit(case.step, pipeline=f"split-region{{k={k}}},schedule-dw",
                          on_unsupported="raise", **case.jit_kwargs)  # fmt: skip
    return step(*case.args), step.outcomes[-1]


def all_to_one(case):
    """Let every token choose one expert: the router's other columns see nothing."""
    params, x = case.args
    for weights in params:
        router = np.zeros(weights["router"].shape, np.float32)
        router[:, 3] = 1 + np.asarray(weights["router"])[:, 3]
        weights["router"] = jax.device_put(jnp.asarray(router), weights["router"].sharding)
    return dataclasses.replace(case, args=(params, jnp.abs(x)))


RAW = 2 * BOUND
"""Of gradients as they are. Unoptimized code adds terms up one after the other, so that sums over the
tokens of one expert are off by more than the optimizer's step shows."""


def check_mask(monkeypatch, mask, k, size=SMALL, *, skewed=False, **options):
    monkeypatch.setattr("tests.steps.sgd", lambda params, grads: grads)

    def case():
        made = one_hot_step(jax.devices()[:8], size, mask=MASKS[mask], **options)
        made = dataclasses.replace(made, jit_kwargs={})
        return all_to_one(made) if skewed else made

    got, outcome = outcome_of(case(), k)
    (split,) = outcome.cuts[0].splits
    assert len(split.indexed) == 4 * size.layers
    assert not any("one-hot products stay" in note for note in outcome.notes)
    assert distance(jax.jit(case().step)(*case().args), got) <= RAW


def test_gradients_of_a_layer_that_drops_tokens_are_the_same():
    mask = functools.partial(MASKS["token_major"], slots=6)
    step = step_of(functools.partial(layer, mask))
    wrapped = lancet_jax.jit(step, pipeline="split-region{k=2}", on_unsupported="raise")
    got = wrapped(*arguments())
    assert len(wrapped.outcomes[-1].cuts[0].splits[0].indexed) == 4
    assert distance(jax.jit(step)(*arguments()), got) <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mask", "k", "options"),
    [
        ("mesh_tf", 4, {"capacity": 0.5}),
        ("choice_major", 2, {"capacity": 1.0}),
        ("token_major", 4, {"capacity": 1.25, "skewed": True}),
        ("priorities", 2, {"groups": 2}),
    ],
)
def test_gradients_of_a_step_are_the_same(monkeypatch, mask, k, options):
    check_mask(monkeypatch, mask, k, **options)


@pytest.mark.slow
def test_our_layers_are_the_same_with_adam():
    train_step, arguments = make("top_k", "one_hot", factor=1.25, optimizer="adamw", skewed=True)
    expected, got, outcome = run(train_step, arguments, "split-region{k=2},schedule-dw")
    assert outcome.cuts[0].splits[0].indexed
    check(expected, got)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "indexed"), [("auto_sharded", 8), ("auto_scan_remat", 5)])
def test_steps_of_others_are_the_same(name, indexed):
    """Partitioned by XLA; one in loops, computed anew in the backward pass."""
    build = (CASES | IDIOMS)[name]
    size = dataclasses.replace(SMALL, layers=2)
    case = build(jax.devices()[:8], size)
    got, outcome = outcome_of(case, 2)
    assert sum(len(split.indexed) for split in outcome.cuts[0].splits) == indexed
    case = build(jax.devices()[:8], size)
    assert distance(jax.jit(case.step, **case.jit_kwargs)(*case.args), got) <= BOUND


@pytest.mark.slow
def test_forward_ranges_are_the_same():
    train_step, arguments = make("switch", "one_hot", batch=8)
    expected, got, outcome = run(train_step, arguments, "split-region{k=2,direction=forward}")
    assert outcome.cuts[0].splits[0].indexed
    check(expected, got)


def test_a_mask_whose_slots_nobody_counted_is_left_alone_and_told():
    """Every slot of an expert is the token's: no row is its own."""
    case = IDIOMS["explicit"](jax.devices()[:8])
    lowered = lancet_jax.jit(case.step, pipeline="split-region{k=2}", **case.jit_kwargs)
    plan = lowered.lower(*case.args).plan
    assert not plan.splits
