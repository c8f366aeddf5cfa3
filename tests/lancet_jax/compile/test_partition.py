"""Steps that XLA partitions: converted, cut, and the same as under plain jit."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lancet_jax
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import parse_pipeline
from lancet_jax.compile.partition import StepToCut, source_of
from lancet_jax.seams import compiling
from lancet_jax.seams.step_module import mark
from tests.auto_steps import IDIOMS, NUTS
from tests.lancet_jax.test_split import distance
from tests.steps import CASES

TARGET = "h100:1x8"
CUT = "split-exchange{k=2},schedule-dw"
# As in `test_split.py`; adamw divides by roots of squares of gradients, and enlarges what is small.
BOUND = 4e-6
REFUSED = {
    "triangular": "a call into foreign code",
    "host_callback": "it calls back to the host",
}


@dataclass(frozen=True)
class Converted:
    """Compiles what a step is after it was partitioned and converted, and changes nothing."""

    sources: list[StepToCut] = field(default_factory=list, compare=False)

    def compile(self, request, xla):
        devices = request.devices
        if len(devices) == 1:
            return xla.compile()
        passes = parse_pipeline(CUT).passes
        source = source_of(Module.copy_of(request.module), passes, len(devices), xla.partitioned)
        self.sources.append(source)
        mark(source.module.ir, "converted")
        return xla.compile(source.module.ir)


def same_outside(expected, got):
    """Check all that a user sees of the results except their values."""
    assert jax.tree.structure(expected) == jax.tree.structure(got)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
        assert x.sharding == y.sharding
        assert x.committed == y.committed


def deleted(case):
    return [leaf.is_deleted() for leaf in jax.tree.leaves(case.args) if hasattr(leaf, "is_deleted")]


QUICK = ("auto_sharded", "nnx_layers", "transposed", "unspecified")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in IDIOMS],
)
def test_a_step_that_xla_partitions_is_cut_and_the_same(name):
    plain, ours = (IDIOMS[name](jax.devices()[:8]) for _ in range(2))
    expected = jax.jit(plain.step, **plain.jit_kwargs)(*plain.args)
    step = lancet_jax.jit(ours.step, pipeline=CUT, target=TARGET, on_unsupported="raise",
                          **ours.jit_kwargs)  # fmt: skip
    got = step(*ours.args)
    outcome = step.outcomes[-1]
    assert outcome.notes[0].startswith("partitioned first"), outcome.notes
    assert outcome.cuts
    same_outside(expected, got)
    assert distance(expected, got) <= BOUND
    assert deleted(plain) == deleted(ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", "nnx_layers", "linen_scan_remat", "grad_outside"])
def test_a_step_with_a_shard_map_per_layer_is_cut_along_its_tokens(name):
    plain, ours = (IDIOMS[name](jax.devices()[:8]) for _ in range(2))
    expected = jax.jit(plain.step, **plain.jit_kwargs)(*plain.args)
    step = lancet_jax.jit(ours.step, pipeline="split-region{k=2},schedule-dw", target=TARGET,
                          on_unsupported="raise", **ours.jit_kwargs)  # fmt: skip
    got = step(*ours.args)
    assert step.outcomes[-1].cuts
    same_outside(expected, got)
    assert distance(expected, got) <= BOUND


@pytest.mark.parametrize("name", NUTS)
def test_what_is_hard_to_convert_is_right_or_refused(name):
    case = NUTS[name](jax.devices()[:8])
    expected = jax.jit(case.step)(*case.args)
    converted = Converted()

    def step(*args):
        return case.step(*args)

    with compiling.rewriting(converted):
        got = jax.jit(step)(*case.args)
    source = converted.sources[-1]
    assert source.is_partitioned == (name not in REFUSED), source.notes
    assert REFUSED.get(name, "partitioned first") in source.notes[0]
    same_outside(expected, got)
    assert distance(expected, got) <= BOUND


@pytest.mark.parametrize("name", ["scatter", "two_axes", "scan_layers"])
def test_a_step_in_one_shard_map_is_not_partitioned(name):
    case = CASES[name](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline=CUT, target=TARGET, **case.jit_kwargs)
    assert not any("partitioned" in note for note in step.lower(*case.args).report().notes)


def test_a_step_with_nothing_to_cut_is_not_converted():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    x = jax.device_put(jnp.ones((64, 8)), spread)
    step = lancet_jax.jit(lambda x: x.T @ x, pipeline=CUT, target=TARGET)
    step(x)
    assert step.outcomes[-1].notes[0] == "not partitioned first: it has no all-to-all to cut"
    assert not step.outcomes[-1].cuts


def test_a_pipeline_that_cuts_nothing_does_not_partition(monkeypatch):
    from lancet_jax.compile import partition

    monkeypatch.setattr(partition, "partitioned", lambda *_: pytest.fail("partitioned"))
    case = IDIOMS["auto_sharded"](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline="dw", target=TARGET, on_unsupported="raise")
    step(*case.args)
    assert not any("partitioned" in note for note in step.outcomes[-1].notes)


def test_a_refusal_leaves_the_step_as_it_was(monkeypatch):
    from hlo_passes.partition import put_back

    monkeypatch.setattr(put_back, "digest_of", lambda module: object())
    case = IDIOMS["auto_sharded"](jax.devices()[:8])

    def planted(*args):
        return case.step(*args)

    step = lancet_jax.jit(planted, pipeline=CUT, target=TARGET, on_unsupported="raise")
    got = step(*case.args)
    assert "another program" in step.outcomes[-1].notes[0]
    assert distance(jax.jit(case.step)(*case.args), got) == 0.0


def test_a_step_that_no_cut_makes_shorter_is_compiled_as_it_was_lowered():
    case = IDIOMS["auto_sharded"](jax.devices()[:8])

    def small(*args):
        return case.step(*args)

    step = lancet_jax.jit(small, pipeline="split-exchange", target=TARGET, on_unsupported="raise")
    got = step(*case.args)
    notes = step.outcomes[-1].notes
    assert notes[0].startswith("partitioned first")
    assert "main no cut makes the step shorter" in notes
    assert distance(jax.jit(case.step)(*case.args), got) == 0.0


def test_a_report_says_that_the_step_was_partitioned_first():
    case = IDIOMS["auto_sharded"](jax.devices()[:8])
    step = lancet_jax.jit(case.step, pipeline=CUT, target=TARGET)
    lowered = step.lower(*case.args)
    assert lowered.plan.splits
    assert any("partitioned first" in note for note in lowered.report().notes)
    assert "sdy.manual_computation" not in lowered.as_text()
    report = lowered.compile().report()
    assert any("partitioned first" in note for note in report.notes)
