"""Programs of a step race on what XLA makes of them, on 8 and 64 GPUs that are not there."""

import contextlib
import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.facts.footprint import footprint_of, parse_limit
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from lancet_jax.compile.candidate import WHOLE
from lancet_jax.seams.compiling import Xla
from tests.steps import (
    CASES,
    Case,
    Maker,
    Size,
    attention,
    mean_dense,
    mesh_of,
    scatter_moe,
    sgd,
    spec_of,
)

NODE, CLUSTER = "h100:1x8", "h100:8x8"
MERGER = "dot-merger"


def size_for(devices):
    return Size(batch=8 * len(devices), seq=256, model=512, hidden=2048, layers=1,
                experts=2 * len(devices), dtype=jnp.bfloat16)  # fmt: skip


def unrolled(devices, size):
    """Two microbatches one after the other, as somebody writes who knows loops to be barriers."""
    mesh = mesh_of(devices)
    make = Maker(mesh, size, abstract=True)
    params = make.layers()
    specs = spec_of(params)

    def body(params, batches):
        def loss_of(params, x):
            for p in params:
                x = scatter_moe(p, attention(p, x))
            return jnp.mean(jnp.square(x.astype(jnp.float32)))

        total, losses = jax.tree.map(jnp.zeros_like, params), []
        for x in batches:
            loss, grads = jax.value_and_grad(loss_of)(params, x)
            total = jax.tree.map(jnp.add, total, grads)
            losses.append(loss)
        return sgd(params, mean_dense(total, specs, "ep")), lax.pmean(sum(losses) / 2, "ep")

    def step(params, batches):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(specs, P(None, "ep")), out_specs=(specs, P()),
            check_vma=False,
        )(params, batches)  # fmt: skip

    batches = make.array((2, size.batch, size.seq, size.model), P(None, "ep"), 1.0)
    return Case(step, (params, batches), {"donate_argnums": 0})


def case_of(name, target):
    devices = lancet_jax.aot.target(target).devices
    if name == "unrolled":
        return unrolled(devices, size_for(devices))
    return CASES[name](devices, size_for(devices), abstract=True)


class Counter:
    """What XLA was asked for: how often it stopped once scheduled, and what it finished."""

    def __init__(self):
        self.scheduled, self.finished = [], []

    @contextlib.contextmanager
    def counting(self):
        with pytest.MonkeyPatch.context() as patch:
            compile_it, schedule_it = Xla.compile, Xla.scheduled

            def compiled(xla, module=None, *args, **kwargs):
                made = compile_it(xla, module, *args, **kwargs)
                self.finished.append("" if module is None else str(module.operation))
                return made

            def scheduled(xla, module, salt, options=None):
                self.scheduled.append(salt)
                return schedule_it(xla, module, salt, options)

            patch.setattr(Xla, "compile", compiled)
            patch.setattr(Xla, "scheduled", scheduled)
            yield self


def compiled(case, pipeline, **options):
    """Compile a step; return it, and what XLA was asked for."""
    step = lancet_jax.jit(case.step, pipeline=pipeline, on_unsupported="raise", **options,
                          **case.jit_kwargs)  # fmt: skip
    with Counter().counting() as asked:
        return step.lower(*case.args).compile(), asked


def check_winner(made, asked):
    """The winner, and nothing else, is compiled in full, once, and runs as it was simulated."""
    outcome = made.outcome
    assert outcome.error is None
    (finished,) = asked.finished
    assert outcome.salt in finished
    assert f'lancet_salt="{outcome.salt}"' in made.as_text()
    assert len(set(asked.scheduled)) == len(asked.scheduled)
    assert made.drift().moved == 0
    first = outcome.race[0]
    assert made.schedule().makespan_us == pytest.approx(first.step_us, rel=1e-6)
    assert first.fits
    assert all(one.why for one in outcome.race[1:])


@pytest.fixture(scope="module")
def microbatches():
    """`dw` on a step whose author unrolled the loop."""
    case = case_of("unrolled", NODE)
    return case, *compiled(case, "dw")


@pytest.fixture(scope="module")
def loop():
    """`best` on a step that sums gradients over microbatches in a loop."""
    case = case_of("accumulation", CLUSTER)
    return case, *compiled(case, "best")


# --------------------------------------------------------------------------------- microbatches


@pytest.mark.slow
def test_microbatches_that_were_unrolled_are_kept_apart(microbatches):
    _, made, asked = microbatches
    race = made.outcome.race
    assert MERGER in race[0].name
    assert race[0].name.startswith(WHOLE)
    assert race[0].step_us < min(one.step_us for one in race if MERGER not in one.name)
    assert {WHOLE, f"{WHOLE} (without {MERGER})"} <= {one.name for one in race}
    assert not made.outcome.made or not any(plan.changes for plan in made.outcome.made)
    assert any("on XLA's own modules" in note for note in made.outcome.notes)
    check_winner(made, asked)
    assert len(asked.scheduled) == len(race) - 1, "the step as it is was stopped in its compile"


@pytest.mark.slow
def test_unrolled_microbatches_are_shorter_than_xla_alone_makes_them(microbatches):
    case, made, _ = microbatches
    alone, asked = compiled(case, "off")
    ours, theirs = made.schedule(), alone.schedule()
    assert ours.makespan_us < 0.95 * theirs.makespan_us
    assert ours.exposed_us < theirs.exposed_us
    assert made.report().before.makespan_us == pytest.approx(theirs.makespan_us, rel=0.01)
    assert asked.scheduled == []


@pytest.mark.slow
def test_a_loop_of_the_same_microbatches_has_nothing_to_keep_apart():
    """There the exchanges of one trip wait for those before, so the merger may do as it likes."""
    made, asked = compiled(case_of("accumulation", NODE), "dw")
    assert not any(MERGER in one.name for one in made.outcome.race)
    assert made.outcome.error is None
    assert len(asked.finished) == 1
    assert made.drift().moved == 0


# ---------------------------------------------------------------------------------------- loops


@pytest.mark.slow
def test_a_loop_whose_trips_hide_each_others_exchanges_is_unrolled(loop):
    _, made, asked = loop
    race = made.outcome.race
    assert race[0].name.startswith("loops k=2")
    assert made.outcome.cuts
    by_name = {one.name: one for one in race}
    assert race[0].step_us < 0.9 * by_name[WHOLE].step_us
    assert race[0].predicted_us < by_name[WHOLE].predicted_us
    check_winner(made, asked)
    assert len(asked.scheduled) == sum(one.step_us > 0 for one in race)
    assert made.outcome.left == ""
    report = made.report()
    assert report.before.makespan_us == pytest.approx(by_name[WHOLE].stock_us, rel=1e-6)
    assert report.after.makespan_us < report.before.makespan_us


@pytest.mark.slow
def test_a_quick_search_looks_at_the_likeliest_beside_the_step_as_it_is(loop):
    case, thorough, _ = loop
    made, asked = compiled(case, "best", search="quick")
    plain = [one.name for one in made.outcome.race if "(" not in one.name]
    assert sorted(plain) == [WHOLE, "loops k=2"]
    assert made.outcome.race[0].step_us <= 1.001 * thorough.outcome.race[0].step_us
    check_winner(made, asked)


@pytest.mark.slow
def test_a_search_of_no_time_leaves_the_step_whole(loop):
    case, _, _ = loop
    made, asked = compiled(case, "best", search=0.0)
    assert made.outcome.race[0].name.startswith(WHOLE)
    over = [one for one in made.outcome.race if one.name == "loops k=2"]
    assert [one.step_us for one in over] == [0.0]
    assert "the time to search was over" in over[0].why
    check_winner(made, asked)


@pytest.mark.slow
def test_what_did_not_fit_is_the_first_thing_that_a_report_says(loop):
    """And the option that it names does allow it."""
    case, free, _ = loop
    resident = footprint_of(free.outcome.graph).resident
    race = free.outcome.race
    whole = max(one.peak_bytes for one in race if one.name.startswith(WHOLE))
    looped = min(one.peak_bytes for one in race if one.name.startswith("loops"))
    limit = resident + (whole + looped) // 2
    made, asked = compiled(case, "best", memory_limit=limit)
    check_winner(made, asked)
    assert made.outcome.race[0].name.startswith(WHOLE)
    assert made.outcome.left.startswith("loops k=2")
    first = str(made.report()).splitlines()[0]
    assert made.outcome.left in first
    allows = parse_limit(re.search(r"memory_limit=(\S+) allows it", first)[1])
    again, _ = compiled(case, "best", memory_limit=allows)
    assert again.outcome.race[0].name.startswith("loops k=2")


# --------------------------------------------------------------------------------- second starts


@pytest.fixture
def cache(tmp_path):
    """JAX's cache folder, without its executables: those for no device cannot be read back."""
    given = {"jax_compilation_cache_dir": str(tmp_path), "jax_enable_compilation_cache": False}
    before = {name: getattr(jax.config, name) for name in given}
    for name, value in given.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target", "pipeline"), [("unrolled", NODE, "dw"), ("accumulation", CLUSTER, "best")]
)
def test_a_second_start_races_nothing(cache, name, target, pipeline):
    case = case_of(name, target)
    first, asked = compiled(case, pipeline)
    assert asked.scheduled
    assert len(list(cache.glob("lancet-decided-*.json"))) == 1
    again, asked = compiled(case_of(name, target), pipeline)
    assert asked.scheduled == []
    assert len(asked.finished) == 1
    assert again.outcome.salt == first.outcome.salt
    one, other = (ScheduledModule(made.as_text()) for made in (first, again))
    assert other.fingerprint == one.fingerprint
    assert again.outcome.race == first.outcome.race
    assert again.outcome.plan == first.outcome.plan
    assert [plan.hash for plan in again.outcome.made] == [plan.hash for plan in first.outcome.made]


@pytest.mark.slow
def test_another_option_races_again(cache):
    case = case_of("unrolled", NODE)
    compiled(case, "dw")
    _, asked = compiled(case, "dw", entrants=3)
    assert asked.scheduled
    assert len(list(cache.glob("lancet-decided-*.json"))) == 2
