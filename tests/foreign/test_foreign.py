"""Models that others wrote: reordered without a bit of difference, and read back as compiled."""

import jax
import pytest

import lancet_jax
from lancet_jax.seams import cuda
from tests.foreign_steps import FOREIGN

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NAMES = sorted(FOREIGN)


def found(name):
    foreign = FOREIGN[name]
    pytest.importorskip(
        foreign.module, reason=f"pip install 'lancet-jax[foreign]' for {foreign.package}",
        exc_type=ImportError,
    )  # fmt: skip
    return foreign


@pytest.mark.parametrize("pipeline", ["dw", "exchange"])
@pytest.mark.parametrize("name", [name for name in NAMES if FOREIGN[name].runs_on_cpu])
def test_the_step_gives_the_same_bits(name, pipeline):
    case = found(name).build(jax.devices()[:8], False)
    with case.mesh():
        step = lancet_jax.jit(
            case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs
        )
        result = lancet_jax.verify(step, *case.args)
    assert result, str(result)
    assert result.moved


@pytest.mark.skipif(cuda.cuda_plugin() is None, reason="the CUDA plugin is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_the_step_compiles_for_gpus_and_is_no_longer_for_it(name):
    foreign = found(name)
    devices = lancet_jax.aot.target("h100:1x8").devices
    steps = {}
    for pipeline in ("off", "dw"):
        case = foreign.build(devices, True)
        with case.mesh():
            step = lancet_jax.jit(
                case.step, pipeline=pipeline, on_unsupported="raise", **case.jit_kwargs
            )
            steps[pipeline] = step.lower(*case.args).compile()
    plain, ours = (steps[p].schedule() for p in ("off", "dw"))
    assert ("all-to-all" in steps["off"].as_text()) == foreign.exchanges
    assert ours.makespan_us <= plain.makespan_us
