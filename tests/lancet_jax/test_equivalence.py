"""Re-ordering is bit-identical, whatever idiom a step is written in."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import lancet_jax
from lancet_jax import nn
from tests.steps import CASES, Size

SLOW_TARGET = "v100:1x8"
"""Its exchanges are long beside its compute, so that there is something to hide."""

FREELY = "schedule-dw{memory-slack=10}"
"""Small steps have little memory to spare; without a bound more of them is re-ordered."""


@pytest.mark.parametrize("name", CASES)
def test_idioms(name):
    case = CASES[name](jax.devices(), Size())
    step = lancet_jax.jit(case.step, pipeline=FREELY, target=SLOW_TARGET, on_unsupported="raise",
                          **case.jit_kwargs)  # fmt: skip
    found = lancet_jax.verify(step, *case.args)
    assert found, str(found)
    if case.has_exchange:
        assert step.outcomes[-1].plan is not None


def test_orders_do_change():
    """The comparison above means something: programs were re-ordered."""
    case = CASES["scatter"](jax.devices(), Size(layers=3))
    step = lancet_jax.jit(case.step, pipeline=FREELY, target=SLOW_TARGET, **case.jit_kwargs)
    found = lancet_jax.verify(step, *case.args)
    assert found
    assert found.moved > 100


def test_a_difference_is_seen():
    calls = []

    def step(x):
        calls.append(1)
        return x + len(calls)

    wrapped = lancet_jax.jit(step)
    found = lancet_jax.verify(wrapped, jnp.ones(3))
    assert not found
    assert "differs by" in str(found)
    assert found.largest_difference == pytest.approx(0.5)


def test_random_keys_are_compared():
    found = lancet_jax.verify(lambda key: jax.random.split(key), jax.random.key(0))
    assert found
    assert "identical" in str(found)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("optimizer", ["sgd_momentum", "adamw"])
def test_our_models(dtype, optimizer):
    check_model(dtype=dtype, optimizer=optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", ["scatter", "one_hot"])
@pytest.mark.parametrize("gate", sorted(nn.GATES))
def test_every_gate_and_dispatch(gate, dispatch):
    check_model(gate=gate, dispatch=dispatch)


def test_data_and_expert_axes():
    mesh = jax.make_mesh((2, 4), ("data", "expert"))
    check_model(mesh=mesh, data_axis="data")


def check_model(mesh=None, optimizer="sgd_momentum", **overrides):
    mesh = mesh or jax.make_mesh((8,), ("expert",))
    config = dataclasses.replace(nn.preset("tiny"), **overrides)
    chosen = getattr(nn, optimizer)()
    step = lancet_jax.jit(nn.make_train_step(config, mesh, chosen), pipeline=FREELY,
                          target=SLOW_TARGET, on_unsupported="raise", donate_argnums=0)  # fmt: skip
    state = nn.init_state(config, mesh, chosen)
    batch = next(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh)))
    found = lancet_jax.verify(step, state, batch)
    assert found, str(found)
