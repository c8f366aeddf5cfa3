"""`lancet_jax.jit` is a drop-in for `jax.jit`."""

import functools
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.cost.table import CostTable, ExchangeTimes
from hlo_passes.run import Pipeline
from hlo_passes.schedule_dw import ScheduleDw
from lancet_jax.errors import InputError, LancetWarning, OptionError
from tests.steps import CASES

TARGET = "h100:1x8"


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()), ("ep",))


@pytest.fixture(scope="module")
def body(mesh):
    """Something with exchanges, cheap to compile, and with a choice of order."""

    def inside(x, w):
        def loss(w):
            y = lax.all_to_all(x @ w, "ep", 0, 0, tiled=True)
            y = jnp.tanh(y @ w)
            return jnp.sum(lax.all_to_all(y, "ep", 0, 0, tiled=True) ** 2)

        return w - 0.1 * lax.pmean(jax.grad(loss)(w), "ep")

    return jax.shard_map(inside, mesh=mesh, in_specs=(P("ep"), P()), out_specs=P(), check_vma=False)


@pytest.fixture(scope="module")
def args():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((64, 16), (16, 16)))


def same(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_same_bits_as_jit(body, args):
    step = lancet_jax.jit(lambda x, w: body(x, w), target=TARGET)
    assert same(step(*args), jax.jit(body)(*args))
    assert step.outcomes[-1].plan is not None


def test_around_a_jitted_function(body, args):
    plain = jax.jit(body, donate_argnums=1)
    ours = lancet_jax.jit(plain, target=TARGET)
    assert same(ours(args[0], args[1].copy()), plain(args[0], args[1].copy()))
    with pytest.raises(OptionError, match="donate_argnums"):
        lancet_jax.jit(plain, donate_argnums=1)


def test_as_a_decorator_and_on_a_method(body, args):
    @lancet_jax.jit
    def first(x, w):
        """Doc."""
        return body(x, w)

    @lancet_jax.jit(pipeline="off", static_argnames="flag")
    def second(x, w, *, flag):
        return body(x, w) if flag else w

    class Trainer:
        @functools.partial(lancet_jax.jit, static_argnums=0)
        def step(self, x, w):
            return body(x, w)

    assert first.__name__ == "first"
    assert first.__doc__ == "Doc."
    expected = jax.jit(body)(*args)
    assert same(first(*args), expected)
    assert same(second(*args, flag=True), expected)
    assert same(Trainer().step(*args), expected)


def test_trees_statics_donation_and_new_shapes(body, args):
    def step(state, scale, *, x):
        return {"w": body(x, state["w"]) * scale, "none": None}, (x.shape[0], [x.sum()])

    ours = lancet_jax.jit(step, target=TARGET, static_argnums=1, donate_argnums=0)
    plain = jax.jit(step, static_argnums=1)
    for rows in (64, 128):
        x = jnp.resize(args[0], (rows, 16))
        state = {"w": args[1].copy(), "none": None}
        expected = plain(state, 2.0, x=x)
        got = ours(state, 2.0, x=x)
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        assert same(got, expected)
        assert state["w"].is_deleted()
    assert len([o for o in ours.outcomes if o.plan]) == 2


def test_closed_over_arrays_and_shardings(body, args, mesh):
    table = jnp.linspace(0, 1, 16)
    sharding = NamedSharding(mesh, P())

    def step(x, w):
        return body(x * table, w)

    ours = lancet_jax.jit(step, target=TARGET, in_shardings=(NamedSharding(mesh, P("ep")), sharding),
                          out_shardings=sharding)  # fmt: skip
    got = ours(*args)
    assert same(got, jax.jit(step)(*args))
    assert got.sharding == sharding


def test_composes_with_grad_vmap_and_outer_jit(body, args):
    def loss(x, w):
        return jnp.sum(body(x, w) ** 2)

    ours = lancet_jax.jit(loss, target=TARGET)
    assert same(jax.grad(ours, 1)(*args), jax.grad(jax.jit(loss), 1)(*args))
    assert same(jax.jit(lambda x, w: ours(x, w) + 1)(*args), jax.jit(loss)(*args) + 1)
    one = lancet_jax.jit(lambda x: jnp.sin(x) * 2)
    assert same(jax.vmap(one)(args[0]), jax.jit(jax.vmap(lambda x: jnp.sin(x) * 2))(args[0]))


def test_plain_jit_is_untouched_before_and_after(body, args):
    def step(x, w):
        return body(x, w)

    plain = jax.jit(step)
    before = plain.lower(*args).as_text()
    ours = lancet_jax.jit(step, target=TARGET)
    ours(*args)
    ours.lower(*args).compile()
    assert plain.lower(*args).as_text() == before
    assert "lancet_salt" not in plain.lower(*args).compile().as_text()
    assert "lancet_salt" in ours.lower(*args).compile().as_text()


def test_stages_have_jax_silhouette(body, args):
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
    lowered = lancet_jax.jit(body, target=TARGET).lower(*shapes)
    assert "all_to_all" in lowered.as_text()
    assert "HloModule" in lowered.as_text("hlo")
    assert lowered.plan.target == TARGET
    assert lowered.in_tree == jax.jit(body).lower(*shapes).in_tree
    assert "exposed" in str(lowered.report())
    compiled = lowered.compile(compiler_options={"xla_cpu_enable_fast_math": False})
    assert same(compiled(*args), jax.jit(body)(*args))
    assert compiled.as_text().startswith("HloModule")
    assert compiled.schedule().source == "compiled"
    assert compiled.schedule().makespan_us > 0
    assert not compiled.drift()
    assert compiled.memory_analysis().temp_size_in_bytes >= 0
    assert "drift" in str(compiled.report()) or not compiled.plan.changes
    assert compiled.report().to_dict()["target"] == TARGET


def test_nnx_jit(body, args):
    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(args[1])

    @nnx.jit
    def step(model, x):
        model.w[...] = body(x, model.w[...])
        return x.sum()

    ours = lancet_jax.jit(step, target=TARGET)
    a, b = Model(), Model()
    assert same(ours(a, args[0]), step(b, args[0]))
    assert same(nnx.state(a), nnx.state(b))


def test_disabled_by_environment(body, args, monkeypatch):
    monkeypatch.setenv("LANCET_JAX_DISABLE", "1")
    step = lancet_jax.jit(lambda x, w: body(x, w), target=TARGET)
    assert same(step(*args), jax.jit(body)(*args))
    assert step.outcomes == ()
    assert "lancet_salt" not in step.lower(*args).compile().as_text()


@pytest.mark.parametrize("name", ["dense", "one_device", "forward_only"])
def test_steps_with_little_to_do_run_and_say_why(name):
    case = CASES[name](jax.devices())
    step = lancet_jax.jit(case.step, target=TARGET, **case.jit_kwargs)
    assert lancet_jax.verify(step, *case.args)
    report = step.lower(*case.args).compile().report()
    assert report.notes or report.plan.refusals or report.plan.changes


def test_errors_of_the_step_are_the_users_own(args):
    def step(x, w):
        return x @ w.T @ x

    with pytest.raises(TypeError) as plain:
        jax.jit(step)(*args)
    with pytest.raises(TypeError) as ours:
        lancet_jax.jit(step)(*args)
    assert str(ours.value).replace("lancet", "") == str(plain.value)


def test_mistakes_are_found_when_wrapping():
    with pytest.raises(OptionError, match="neither a preset nor a pass"):
        lancet_jax.jit(jnp.sin, pipeline="fast")
    with pytest.raises(OptionError, match="k80"):
        lancet_jax.jit(jnp.sin, target="k80:1x8")
    with pytest.raises(OptionError, match="'some' is no choice"):
        lancet_jax.jit(jnp.sin, plan_on="some")
    with pytest.raises(OptionError, match="'shout' is no policy"):
        lancet_jax.jit(jnp.sin, on_unsupported="shout")


@dataclass(frozen=True)
class Backwards(ScheduleDw):
    """A pass of somebody else: of the ops that could come next, the last in program order does."""

    def choose(self, problem, contention):
        left, order = set(range(problem.size)), []
        while left:
            able = [op for op in left if not left & set(problem.preds[op])]
            order.append(max(able))
            left.remove(order[-1])
        return "backwards", tuple(order)


def test_a_pass_of_ones_own_decides_the_order(body, args):
    step = lancet_jax.jit(body, pipeline=Pipeline((Backwards(),)), on_unsupported="raise")
    compiled = step.lower(*args).compile()
    assert compiled.plan.strategy == "backwards"
    assert compiled.plan.passes == ("backwards",)
    assert compiled.drift().moved == 0
    assert lancet_jax.verify(step, *args)


def test_a_step_is_priced_by_a_table_of_measured_times(body, args, tmp_path):
    path = tmp_path / "costs.json"
    curve = ExchangeTimes(kind="all_to_all", group_size=8, points=((1024, 12345.0),))
    table = CostTable(source="measured", target="cpu:1x8", date="2026-11-24", exchanges=(curve,))
    table.save(path)

    def priced(x, w):
        return body(x, w)

    step = lancet_jax.jit(priced, costs=path, on_unsupported="raise")
    assert same(step(*args), jax.jit(body)(*args))
    windows = step.outcomes[-1].after.windows
    assert 12345.0 in {window.us for window in windows if window.kind == "all_to_all"}
    with pytest.raises(OptionError, match="of cpu devices"):
        lancet_jax.jit(priced, costs=path, target=TARGET, on_unsupported="raise")(*args)
    with pytest.raises(InputError, match="No such file"):
        lancet_jax.jit(priced, costs=tmp_path / "none.json")


@pytest.mark.parametrize("policy", ["warn", "ignore", "raise"])
def test_a_failing_pass_never_breaks_a_step_unless_asked(body, args, policy, monkeypatch):
    from hlo_passes.reorder_scheduled import ReorderScheduled

    def broken(*args, **kwargs):
        raise RuntimeError("planted")

    monkeypatch.setattr(ReorderScheduled, "plan", broken)

    def planted(x, w):
        return body(x, w)

    step = lancet_jax.jit(planted, target=TARGET, on_unsupported=policy)
    if policy == "raise":
        with pytest.raises(lancet_jax.UnsupportedError, match="planted"):
            step(*args)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = step(*args)
    assert same(got, jax.jit(body)(*args))
    assert [w.category for w in caught] == [LancetWarning] * (policy == "warn")
    assert "planted" in step.outcomes[-1].notes[-1]
