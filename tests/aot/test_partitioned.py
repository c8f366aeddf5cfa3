"""Steps that XLA partitions, compiled for GPUs that are not there, cut and read back."""

import jax.numpy as jnp
import pytest

import lancet_jax
from tests.auto_steps import IDIOMS
from tests.steps import Size

SIZE = Size(batch=64, seq=1024, model=1024, hidden=4096, dtype=jnp.bfloat16)


@pytest.fixture(scope="module")
def devices():
    return lancet_jax.aot.target("h100:1x8").devices


def compiled(name, devices, pipeline):
    case = IDIOMS[name](devices, SIZE, abstract=True)
    step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs)
    return step.lower(*case.args).compile()


@pytest.mark.parametrize("name", ["auto_sharded", "nnx_layers"])
def test_exchanges_of_a_step_that_xla_partitions_are_cut_and_hidden(name, devices):
    plain = compiled(name, devices, "off")
    ours = compiled(name, devices, "split-exchange{k=2},schedule-dw")
    assert ours.outcome.notes[0].startswith("partitioned first")
    assert ours.outcome.cuts
    assert ours.outcome.partition_seconds[0] > 0
    assert ours.as_text().count("all-to-all-start(") > plain.as_text().count("all-to-all-start(")
    assert ours.schedule().exposed_all_to_all_us < plain.schedule().exposed_all_to_all_us
    assert ours.input_shardings == plain.input_shardings
    assert ours.output_shardings == plain.output_shardings
    assert ours.memory_analysis().alias_size_in_bytes == plain.memory_analysis().alias_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(IDIOMS) - {"auto_sharded", "nnx_layers", "explicit"}))
def test_every_idiom_is_converted_for_gpus(name, devices):
    result = compiled(name, devices, "split-exchange{k=2},schedule-dw")
    assert result.outcome.notes[0].startswith("partitioned first"), result.outcome.notes
