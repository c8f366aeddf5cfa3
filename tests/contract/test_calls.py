"""What the first call of a compiled step relies on in JAX, pinned."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.interpreters import pxla

from lancet_jax.audit.step_facts import StepFacts
from lancet_jax.seams import calls, compiling


class Judged:
    """A rewriter that leaves a module alone, and lets a judge make the first call."""

    def __init__(self, judge):
        self.judge = judge

    def compile(self, request, xla):
        made = xla.compile()
        xla.watch(made, self.judge)
        return made


def keep(cut, uncut, step, args):
    return calls.FirstResult(cut(args), cut)


def replace(cut, uncut, step, args):
    with compiling.rewriting(None):
        other = uncut()
    return calls.FirstResult(other(args), other)


def test_what_jit_keeps_is_made_where_it_was():
    names = list(inspect.signature(pxla.UnloadedMeshExecutable.from_hlo).parameters)
    assert names[:2] == ["name", "hlo"]
    slots = pxla.MeshExecutable.__slots__
    assert {"xla_executable", "_unsafe_call", "_kept_var_idx", "_unloaded_executable"} <= set(slots)
    fields = pxla.UnloadedMeshExecutable.__dataclass_fields__
    assert {"host_callbacks", "ordered_effects", "unordered_effects", "mut"} <= set(fields)


@pytest.mark.parametrize("judge", [keep, replace])
@pytest.mark.parametrize("is_ahead", [False, True])
def test_cpp_takes_over_behind_a_judge(monkeypatch, judge, is_ahead):
    calls = []

    def judging(*args):
        calls.append(len(args))
        return judge(*args)

    step, x = jax.jit(lambda x, y: (x + y, {"a": x * y})), jnp.arange(3.0)
    run = step
    with compiling.rewriting(Judged(judging)):
        if is_ahead:
            run = step.lower(x, 2.0).compile()
        first = run(x, 2.0)
        with monkeypatch.context() as patch:
            patch.setattr(pxla.ExecuteReplicated, "__call__", None)
            again = run(x, 2.0)
    for total, tree in (first, again):
        np.testing.assert_array_equal(total, x + 2)
        np.testing.assert_array_equal(tree["a"], x * 2)
    assert len(calls) == 1


def test_a_copy_survives_donation():
    def judge(cut, uncut, step, args):
        facts = StepFacts.of(step)
        assert facts.donated == {0}
        assert facts.results == ("result",)
        assert cut.effect == ""
        copies = cut.spared(args, facts.donated)
        cut(copies)
        assert copies[1].is_deleted()
        assert not args[1].is_deleted()
        return calls.FirstResult(cut(args), cut)

    x, unused = jnp.arange(4.0), jnp.ones(2)
    step = jax.jit(lambda unused, x: x + 1, donate_argnums=1)
    with compiling.rewriting(Judged(judge)):
        # The first argument is not used, and does not reach the module.
        found = step(unused, x)
    np.testing.assert_array_equal(found, np.arange(4.0) + 1)
    assert x.is_deleted()


def test_effects_are_known():
    seen = []

    def judge(cut, uncut, step, args):
        seen.append(cut.effect)
        return calls.FirstResult(cut.run(*args), cut)

    def quiet(x):
        jax.debug.print("{}", x, ordered=False)
        return x

    with compiling.rewriting(Judged(judge)):
        jax.jit(quiet)(1.0)
        jax.jit(lambda x: x)(1.0)
    assert seen == ["it calls back to the host", ""]
