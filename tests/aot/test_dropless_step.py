"""A dropless train step compiled for GPUs that are not there."""

import jax.numpy as jnp
import pytest

import lancet_jax
from lancet_jax.nn import abstract_batch, abstract_state, make_train_step, preset, sgd_momentum

WIDTH, HIDDEN, TOKENS = 256, 1024, 2 * 512


def lower(pipeline):
    config = preset(
        "tiny", capacity_factor=None, dispatch="ragged", layers=1, model=WIDTH, hidden=HIDDEN,
        seq_len=512, dtype=jnp.bfloat16,
    )  # fmt: skip
    mesh = lancet_jax.aot.target("h100:1x8").mesh(expert=8)
    optimizer = sgd_momentum()
    step = make_train_step(config, mesh, optimizer)
    jitted = lancet_jax.jit(step, pipeline=pipeline, on_unsupported="raise")
    return jitted.lower(abstract_state(config, mesh, optimizer), abstract_batch(config, mesh))


@pytest.fixture(scope="module")
def lowered():
    return lower("dw")


@pytest.fixture(scope="module")
def compiled(lowered):
    return lowered.compile()


def test_grouped_products_are_priced_as_xla_runs_them(lowered):
    products = [op for op in lowered.module.snapshot().ops if op.kind == "ragged_dot"]
    whole = 2.0 * (8 * TOKENS) * WIDTH * HIDDEN * 2
    assert [op.flops for op in products] == [whole] * 6


@pytest.mark.slow
def test_its_exchanges_are_windows_and_our_order_holds(compiled):
    assert compiled.drift().moved == 0
    windows = [w for w in compiled.schedule().windows if w.kind == "ragged_all_to_all"]
    assert len(windows) == 4
    assert any(w.fillers for w in windows)
    report = str(compiled.report())
    assert "fwd dispatch" in report
    assert "bwd combine" in report


@pytest.mark.slow
def test_both_directions_are_expected_to_send_the_same(compiled):
    graph = compiled.scheduled.snapshot()
    sent = [op.collective for op in graph.ops if op.kind == "ragged_all_to_all_start"]
    assert {c.bytes for c in sent} == {TOKENS * WIDTH * 2, 8 * TOKENS * WIDTH * 2}
    assert {c.busiest_bytes for c in sent} == {TOKENS * WIDTH * 2}


@pytest.mark.slow
def test_xlas_products_are_those_that_were_priced(compiled):
    whole = 2.0 * (8 * TOKENS) * WIDTH * HIDDEN * 2
    assert sum(op.flops == whole for op in compiled.scheduled.snapshot().ops if op.matmul) == 6


@pytest.mark.slow
def test_a_cut_step_has_exchanges_of_parts_beside_each_other(compiled):
    parts = lower("split-region{k=2},schedule-dw").compile()
    assert parts.drift().moved == 0
    windows = [w for w in parts.schedule().windows if w.kind == "ragged_all_to_all"]
    assert len(windows) == 8
    assert sum(bool(w.fillers) for w in windows) >= 6
    graph = parts.scheduled.snapshot()
    sent = [op.collective for op in graph.ops if op.kind == "ragged_all_to_all_start"]
    assert {c.busiest_bytes for c in sent} == {TOKENS // 2 * WIDTH * 2}
    # Products of parts have a part's rows each: experts do no more work than before.
    whole = 2.0 * (8 * TOKENS) * WIDTH * HIDDEN * 2
    assert sum(op.flops == whole / 2 for op in graph.ops if op.matmul) == 12
    assert parts.schedule().exposed_us < compiled.schedule().exposed_us


@pytest.mark.slow
def test_its_forward_pass_alone_is_left_whole_and_told_why():
    result = lower("split-region{direction=forward},schedule-dw").compile()
    assert result.drift().moved == 0
    told = str(result.report())
    assert told.count("cut both directions") == 1  # a reason is said once, with a count
