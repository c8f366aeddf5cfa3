"""Cut steps against uncut ones, on 8 CPU devices: same routing, same drops, same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lancet_jax
from hlo_passes import split_pass
from hlo_passes.plans import Split
from hlo_passes.split_region import SplitRegion
from lancet_jax import nn
from tests.steps import CASES, Size

# A sum of n terms of size m may be off by 2 n u m when its order changes, u = 2^-24 in float32.
# Sums here have at most 2048 terms, and the largest gradient is at least their root mean square:
# 2e-6 of the largest element is well inside.
BOUND = 2e-6
# Of adamw's updates: it divides by the gradient's size, and that of a bias comes to 2.2e-6.
ADAMW_BOUND = 3e-6
# In 16 bits the uncut step itself is off by percents, and XLA rounds elsewhere in another program:
# the cut step has to be as near to the float32 step as the uncut one, parameter by parameter.
SLACK = 1.1
OPTIMIZERS = {"sgd": nn.sgd_momentum(), "adamw": optax.adamw(1e-3, eps=1e-3)}


def distance(a, b) -> float:
    """Return the largest difference of two trees' leaves, as a share of the leaf's largest."""
    worst = 0.0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = (np.asarray(leaf, dtype=np.float64) for leaf in (x, y))
        assert x.shape == y.shape
        if x.size:
            worst = max(worst, float(np.abs(x - y).max()) / max(float(np.abs(x).max()), 1e-30))
    return worst


def make(gate="switch", dispatch="scatter", dtype="float32", factor=1.0, batch=4, optimizer="sgd",
         skewed=False):  # fmt: skip
    config = dataclasses.replace(
        nn.preset("tiny"), gate=gate, dispatch=dispatch, dtype=jnp.dtype(dtype),
        capacity_factor=factor, batch_per_device=batch,
    )  # fmt: skip
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("expert",))
    update = OPTIMIZERS[optimizer]
    state = nn.init_state(config, mesh, update, 0)
    shape = nn.batch_shape(config, mesh)
    tokens = next(iter(nn.batches(nn.sample_text(), *shape, 0)))
    if skewed:
        tokens = jax.tree.map(np.zeros_like, tokens)
    return nn.make_train_step(config, mesh, update), (state, tokens)


def run(train_step, arguments, pipeline):
    """Return what plain jit and the cut step give, and what became of the latter."""
    step = lancet_jax.jit(train_step, pipeline=pipeline, on_unsupported="raise")
    expected = jax.jit(train_step)(*arguments)
    return expected, step(*arguments), step.outcomes[-1]


def check(expected, got, bound=BOUND):
    assert np.array_equal(np.asarray(expected[1].dropped), np.asarray(got[1].dropped))
    assert distance(expected, got) <= bound


def errors(before, after, truth) -> list[float]:
    """Return how far every parameter's update is from the true one, as a share of its norm."""
    found = []
    trees = (jax.tree.leaves(tree) for tree in (before, after[0].params, truth[0].params))
    for leaves in zip(*trees, strict=True):
        old, new, right = (np.asarray(leaf, dtype=np.float64) for leaf in leaves)
        found.append(float(np.linalg.norm(new - right) / max(np.linalg.norm(right - old), 1e-30)))
    return found


@pytest.mark.parametrize(
    ("gate", "k", "factor", "skewed"),
    [
        ("switch", 2, 1.0, False),
        ("top_k", 4, 1.25, False),
        ("batch_prioritised", 2, 0.5, False),
        ("hash", 4, 0.5, True),
        ("hash", 4, 4.0, True),  # one expert has eight windows of every part, the others none
    ],
)
def test_a_step_cut_along_its_tokens_is_the_same(gate, k, factor, skewed):
    train_step, arguments = make(gate, factor=factor, skewed=skewed)
    expected, got, outcome = run(train_step, arguments, f"split-region{{k={k}}},schedule-dw")
    assert outcome.cuts
    assert outcome.cuts[0].splits[0].k == k
    check(expected, got)


@pytest.mark.parametrize("name", ["scatter", "remat", "scan_layers", "two_axes", "accumulation"])
def test_steps_of_others_cut_along_their_tokens_are_the_same(name):
    case = CASES[name](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline="split-region{k=2},schedule-dw",
                          on_unsupported="raise", **case.jit_kwargs)  # fmt: skip
    got = step(*case.args)
    assert step.outcomes[-1].cuts
    case = CASES[name](jax.devices()[:8])
    assert distance(jax.jit(case.step, **case.jit_kwargs)(*case.args), got) <= BOUND


@pytest.mark.parametrize("name", ["scatter", "remat", "two_axes"])
def test_experts_of_others_that_run_in_windows_give_the_same(name):
    """Larger steps: their experts have more than one row from every device."""
    size = Size(batch=32, seq=16)
    case = CASES[name](jax.devices()[:8], size)
    step = lancet_jax.jit(case.step, pipeline="split-region{k=2},schedule-dw",
                          on_unsupported="raise", **case.jit_kwargs)  # fmt: skip
    got = step(*case.args)
    assert not any("wait for the rows" in note for note in step.outcomes[-1].notes)
    case = CASES[name](jax.devices()[:8], size)
    assert distance(jax.jit(case.step, **case.jit_kwargs)(*case.args), got) <= BOUND


@pytest.mark.parametrize("name", ["scatter", "gshard_einsum", "expert_choice", "scan_layers"])
def test_steps_of_others_with_cut_exchanges_are_the_same(name):
    case = CASES[name](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline="split-exchange{k=2},schedule-dw",
                          on_unsupported="raise", **case.jit_kwargs)  # fmt: skip
    got = step(*case.args)
    assert step.outcomes[-1].cuts
    case = CASES[name](jax.devices()[:8])
    assert distance(jax.jit(case.step, **case.jit_kwargs)(*case.args), got) <= BOUND


@pytest.mark.parametrize("name", ["expert_choice", "dense"])
def test_a_step_that_cannot_be_cut_along_its_tokens_is_left_alone(name):
    case = CASES[name](jax.devices()[:8])
    lowered = lancet_jax.jit(
        case.step, pipeline="split-region{k=2}", **case.jit_kwargs
    ).lower(*case.args)  # fmt: skip
    assert not lowered.plan.splits
    if name == "expert_choice":
        assert any("nothing is cut" in refusal.reason for refusal in lowered.plan.refusals)


def test_tokens_that_have_no_equal_parts_stay_whole_and_say_why():
    train_step, arguments = make(batch=3)
    lowered = lancet_jax.jit(train_step, pipeline="split-region{k=5}").lower(*arguments)
    assert not lowered.plan.splits
    assert any("no 5 equal parts" in refusal.reason for refusal in lowered.plan.refusals)


def test_attention_of_one_sequence_stays_whole_and_says_why():
    train_step, arguments = make(batch=1)
    lowered = lancet_jax.jit(train_step, pipeline="split-region{k=2}").lower(*arguments)
    reasons = [refusal.reason for refusal in lowered.plan.refusals]
    assert any("every part needs all of it" in reason for reason in reasons)
    expected, got, _ = run(train_step, arguments, "split-region{k=2}")
    check(expected, got)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gate", "dispatch", "optimizer"),
    [
        *((gate, dispatch, "sgd") for gate in sorted(nn.GATES) for dispatch in nn.DISPATCHERS),
        *((gate, "scatter", "adamw") for gate in sorted(nn.GATES)),
    ],
)
def test_every_gate_dispatch_and_optimizer_is_the_same(gate, dispatch, optimizer):
    train_step, arguments = make(gate, dispatch, optimizer=optimizer)
    for pipeline in ("split-region{k=4}", "split-exchange{k=2}"):
        expected, got, _ = run(train_step, arguments, pipeline)
        check(expected, got, ADAMW_BOUND if optimizer == "adamw" else BOUND)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25])
@pytest.mark.parametrize("k", [2, 4, 8])
def test_every_capacity_and_number_of_parts_is_the_same(factor, k):
    train_step, arguments = make("top_k", factor=factor, batch=8)
    expected, got, outcome = run(train_step, arguments, f"split-region{{k={k}}}")
    assert outcome.cuts
    check(expected, got)


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "factor", "k"), [("top_k", 0.5, 2), ("switch", 1.25, 8)])
def test_16_bit_steps_are_as_near_to_the_truth_cut_as_uncut(gate, factor, k):
    exact_step, exact_arguments = make(gate, factor=factor, batch=8)
    truth = jax.jit(exact_step)(*exact_arguments)
    train_step, arguments = make(gate, dtype="bfloat16", factor=factor, batch=8)
    expected, got, outcome = run(train_step, arguments, f"split-region{{k={k}}}")
    assert outcome.cuts
    assert np.array_equal(np.asarray(expected[1].dropped), np.asarray(got[1].dropped))
    before = arguments[0].params
    uncut, cut = errors(before, expected, truth), errors(before, got, truth)
    assert all(b <= SLACK * a + 1e-4 for a, b in zip(uncut, cut, strict=True))


@pytest.mark.slow
def test_16_bit_routing_is_the_same_where_xla_rounds_as_written():
    """Step by step from the uncut step's state; by default XLA rounds where a fusion ends."""
    options = {"xla_allow_excess_precision": False}
    train_step, (state, tokens) = make("top_k", dtype="bfloat16", factor=0.5, batch=8)
    plain = jax.jit(train_step, compiler_options=options)
    step = lancet_jax.jit(train_step, pipeline="split-region{k=2}", compiler_options=options)
    for _ in range(4):
        got, (state, metrics) = step(state, tokens), plain(state, tokens)
        assert np.array_equal(np.asarray(metrics.dropped), np.asarray(got[1].dropped))
    assert step.outcomes[-1].cuts


def test_ranges_with_parts_of_their_own_are_the_same(monkeypatch):
    """Two stretches of one block, cut into 2 and into 4 parts, as a dynamic program may choose."""

    def two_ranges(self, stretches, context, rho):
        (stretch,) = stretches
        first, second = stretch.layers.sites.fetches[0], stretch.layers.sites.puts[1]
        return (
            Split(by="split-region", block="main", first=0, last=first.access + 9, k=2),
            Split(
                by="split-region",
                block="main",
                first=second.access - 9,
                last=len(stretch.graph.ops) - 1,
                k=4,
            ),
        )

    monkeypatch.setattr(SplitRegion, "_ranges", two_ranges)
    monkeypatch.setattr(split_pass, "_WORTH", -1e9)
    train_step, arguments = make(batch=4)
    expected, got, outcome = run(train_step, arguments, "split-region{direction=forward}")
    assert {split.k for split in outcome.cuts[0].splits} == {2, 4}
    check(expected, got)
