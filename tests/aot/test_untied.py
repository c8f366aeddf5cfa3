"""Parts of a cut step stay apart in XLA's kernels, or XLA is kept from putting kernels together."""

import pytest

import lancet_jax
from hlo_passes.facts.ties import find_ties
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from lancet_jax.compile import untied
from scripts.gpu_steps import model_step

FEW = 10
"""Kernels of several results that XLA makes without multi-output fusion, at most."""


def compiled(pipeline, target="h100:1x8", **options):
    gpus = lancet_jax.aot.target(target)
    step = model_step("gpt2_s_moe", gpus, 2, batch_per_device=2, vocab=1024, **options)
    return step.compile(pipeline, target)[0]


def kernels_with_several_results(text):
    entry = ScheduledModule(text).parsed.entry
    return [i.name for i in entry.instructions if i.opcode == "fusion" and len(i.leaves) > 1]


@pytest.mark.slow
def test_kernels_are_put_together_within_parts():
    """Biases, scales, iotas and counts are shared by parts, and tie none of them."""
    found = compiled("split-region{k=2},schedule-dw", dtype="bfloat16")
    assert len(kernels_with_several_results(found.as_text())) > FEW
    assert not find_ties(ScheduledModule(found.as_text(), devices=8))
    assert not any("ties parts together" in note for note in found.outcome.notes)
    assert not found.drift()


@pytest.mark.slow
@pytest.mark.parametrize("is_longer", [False, True])
def test_a_step_with_ties_is_compiled_without_them_as_well(monkeypatch, is_longer):
    monkeypatch.setattr(untied, "find_ties", lambda module: ("fusion.1",))
    results = untied.Contest.result_of

    def result_of(contest, module):
        found = results(contest, module)
        is_untied = len(kernels_with_several_results(module.text)) < FEW
        worse = 1.0 if is_untied == is_longer else 0.0
        return type(found)(found.fits, found.negative_us - worse * 1e6, found.peak_bytes)

    monkeypatch.setattr(untied.Contest, "result_of", result_of)
    found = compiled("split-region{k=2},schedule-dw")
    said = [note for note in found.outcome.notes if "ties parts together (fusion.1)" in note]
    assert len(said) == 1
    assert said[0].endswith("it is kept" if is_longer else "it is left out")
    assert (len(kernels_with_several_results(found.as_text())) < FEW) is not is_longer
    assert found.outcome.cuts
    assert found.outcome.plan.orders
    assert not found.drift()
    assert found.schedule().makespan_us == found.report().after.makespan_us
