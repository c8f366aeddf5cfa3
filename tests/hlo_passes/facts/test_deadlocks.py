"""Programs in which devices wait for each other for ever, one of each kind, and their cures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.errors import DeadlockError
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.facts.replicas import received
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from tests.auto_steps import IDIOMS, NUTS
from tests.hlo import scheduled
from tests.steps import CASES, mesh_of


def check(body, **axes):
    """Check a function of rows that are spread over all axes."""
    mesh = mesh_of(jax.devices("cpu")[:8], **(axes or {"data": 2, "ep": 4}))
    spec = P(mesh.axis_names)
    step = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    x = jax.ShapeDtypeStruct((64, 4), jnp.float32, sharding=jax.NamedSharding(mesh, spec))
    module = Module.copy_of(jax.jit(step).lower(x).compiler_ir("stablehlo"))
    verify_no_deadlock(module.snapshot(), is_local=module.is_local)


def talk(x, axis="ep"):
    return lax.all_to_all(x, axis, 0, 0, tiled=True)


def branch(x, decide):
    return lax.cond(decide(jnp.sum(x)) > 0, talk, lambda v: v, x)


# ------------------------------------------------------------------ decided apart


def test_a_branch_on_a_devices_own_data_is_an_error_that_names_its_line():
    with pytest.raises(DeadlockError, match=r"test_deadlocks.py:\d+: %\d+: is in a branch .*"
                       r"devices 0, 1, 2, 3, which exchange in it(.|\n)*psum or pmax"):  # fmt: skip
        check(lambda x: branch(x, lambda total: total))


@pytest.mark.parametrize("axes", ["ep", ("data", "ep")])
def test_a_branch_that_its_members_decide_alike_is_none(axes):
    check(lambda x: branch(x, lambda total: lax.psum(total, axes)))


def test_a_branch_decided_over_another_axis_is_an_error():
    with pytest.raises(DeadlockError, match="need not be the same on devices 0, 1, 2, 3"):
        check(lambda x: branch(x, lambda total: lax.psum(total, "data")))


def test_a_branch_on_the_rank_is_an_error():
    with pytest.raises(DeadlockError, match="is in a branch"):
        check(lambda x: branch(x, lambda _: lax.axis_index("ep")))


def test_what_is_permuted_or_dealt_out_is_not_the_same():
    def shifted(total):
        return lax.ppermute(total, "ep", [(i, (i + 1) % 4) for i in range(4)])

    with pytest.raises(DeadlockError):
        check(lambda x: branch(x, shifted))
    check(lambda x: branch(x, lambda total: shifted(lax.psum(total, "ep"))))


def loop(x, decide):
    return lax.while_loop(lambda v: decide(jnp.sum(v)) > 0, lambda v: talk(v) - 1, x)


def test_a_loop_that_devices_leave_apart_is_an_error():
    with pytest.raises(DeadlockError, match="runs a number of times"):
        check(lambda x: loop(x, lambda total: total))
    check(lambda x: loop(x, lambda total: lax.psum(total, "ep")))


def test_what_devices_left_a_loop_with_decides_apart():
    """The loop exchanges nothing, but the number of its trips decides a branch."""

    def body(x):
        trips, _ = lax.while_loop(lambda c: jnp.sum(c[1]) > 0, lambda c: (c[0] + 1, c[1] - 1),
                                  (0, x))  # fmt: skip
        return lax.cond(trips > 2, talk, lambda v: v, x)

    with pytest.raises(DeadlockError, match="is in a branch"):
        check(body)


def test_counted_loops_are_no_deadlock():
    check(lambda x: lax.fori_loop(0, 3, lambda i, v: talk(v) * i, x))
    check(lambda x: lax.scan(lambda v, w: (talk(v) + w, None), x, jnp.ones((3, 4)))[0])


def test_a_loop_that_counts_up_to_the_rank_is_an_error():
    with pytest.raises(DeadlockError, match="runs a number of times"):
        check(lambda x: lax.fori_loop(0, lax.axis_index("ep"), lambda i, v: talk(v), x))


def test_a_branch_without_exchanges_may_be_decided_apart():
    check(lambda x: lax.cond(jnp.sum(x) > 0, jnp.sin, jnp.cos, talk(x)))


def test_branches_in_another_order_are_named_with_both_exchanges():
    first = "channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add"
    second = "channel_id=2, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add"

    def branch_of(name, *lines):
        body = "\n".join(lines).replace("{name}", name)
        return (
            f"%{name} (p: f32[8]) -> f32[8] {{\n  %{name}.p = f32[8]{{0}} parameter(0)\n{body}\n}}"
        )

    one = branch_of("one", f"  %all = f32[8]{{0}} all-reduce(%{{name}}.p), {first}",
                    f"  ROOT %pair = f32[8]{{0}} all-reduce(%all), {second}")  # fmt: skip
    two = branch_of("two", f"  %pair.2 = f32[8]{{0}} all-reduce(%{{name}}.p), {second}",
                    f"  ROOT %all.2 = f32[8]{{0}} all-reduce(%pair.2), {first}")  # fmt: skip
    entry = """  %x = f32[8]{0} parameter(0)
  %me = u32[] partition-id()
  %flag = s32[] convert(%me)
  ROOT %r = f32[8]{0} conditional(%flag, %x, %x), branch_computations={%one, %two}"""
    text = scheduled(entry, one, two)
    with pytest.raises(DeadlockError, match=r"comes before (all|pair)\S* in one branch of r and "
                       r"after it in another(.|\n)*in one order"):  # fmt: skip
        verify_no_deadlock(ScheduledModule(text).snapshot())
    same = text.replace("branch_computations={%one, %two}", "branch_computations={%one, %one}")
    verify_no_deadlock(ScheduledModule(same).snapshot())


BRANCH = """%yes (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %talk = f32[8]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1}}
}
%no (q: f32[8]) -> f32[8] {
  ROOT %q = f32[8]{0} parameter(0)
}
%fused (z: s32[]) -> s32[] {
  %z = s32[] parameter(0)
  %mine = u32[] partition-id()
  %me = s32[] convert(%mine)
  ROOT %which = s32[] add(%me, %z)
}"""


@pytest.mark.parametrize(("flag", "ok"), [
    ("s32[] fusion(%zero), kind=kLoop, calls=%fused", False),
    ("s32[] copy(%zero)", True),
])  # fmt: skip
def test_a_rank_inside_a_fusion_is_seen(flag, ok):
    entry = f"""  %x = f32[8]{{0}} parameter(0)
  %zero = s32[] constant(0)
  %flag = {flag}
  ROOT %r = f32[8]{{0}} conditional(%flag, %x, %x), branch_computations={{%yes, %no}}"""
    graph = ScheduledModule(scheduled(entry, BRANCH)).snapshot()
    if ok:
        verify_no_deadlock(graph)
    else:
        with pytest.raises(DeadlockError, match="talk: is in a branch that is decided by r"):
            verify_no_deadlock(graph)


# ------------------------------------------------------------------ two streams


def in_flight(groups, domain="SCALE_UP_FABRIC"):
    """Two exchanges in flight at once, the first on the stream of `domain`."""
    inside = f'backend_config={{"communication_domain":"COLLECTIVE_COMMUNICATION_DOMAIN_{domain}"}}'
    return ScheduledModule(scheduled(f"""  %x = f32[8]{{0}} parameter(0)
  %a = (f32[8]{{0}}, f32[8]{{0}}) all-to-all-start(%x), replica_groups=[2,4]<=[8], {inside}
  %b = (f32[8]{{0}}, f32[8]{{0}}) all-reduce-start(%x), replica_groups={groups}, to_apply=%add
  %a.d = f32[8]{{0}} all-to-all-done(%a)
  %b.d = f32[8]{{0}} all-reduce-done(%b)
  ROOT %r = (f32[8], f32[8]) tuple(%a.d, %b.d)""")).snapshot()  # fmt: skip


def test_two_streams_that_share_two_devices_are_an_error_unless_one_is_done_before():
    graph = in_flight("[1,8]<=[8]")
    with pytest.raises(DeadlockError, match=r"b: starts while a is in flight on another stream, "
                       r"and devices 0, 1, 2, 3 are in both(.|\n)*let a be done before"):  # fmt: skip
        verify_no_deadlock(graph)
    verify_no_deadlock(graph, {graph.name: [0, 1, 3, 2, 4, 5]})


def test_one_stream_or_one_device_in_common_is_no_deadlock():
    verify_no_deadlock(in_flight("[1,8]<=[8]", "UNSPECIFIED"))
    verify_no_deadlock(in_flight("[4,2]<=[2,4]T(1,0)"))


# ------------------------------------------------------------------ who holds the same


@st.composite
def exchanges(draw):
    kind = draw(st.sampled_from(["all_reduce", "all_gather", "all_to_all", "reduce_scatter",
                                 "collective_broadcast", "collective_permute"]))  # fmt: skip
    ids = draw(st.permutations(range(8)))
    if kind == "collective_permute":
        targets = draw(st.permutations(range(8)))
        return Collective(kind, tuple(zip(ids, targets, strict=True))[: draw(st.integers(1, 8))], 8)
    size = draw(st.sampled_from([1, 2, 4, 8]))
    return Collective(kind, tuple(tuple(ids[i : i + size]) for i in range(0, 8, size)), 8)


def run(exchange, values):
    """Do an exchange of one row per device, for real."""
    out = dict.fromkeys(range(8), (0,))
    for row in exchange.groups:
        if exchange.kind == "collective_permute":
            out[row[1]] = (values[row[0]],)
            continue
        sent = [values[d] for d in row]
        for place, d in enumerate(row):
            out[d] = {
                "all_reduce": (sum(sent),),
                "all_gather": tuple(sent),
                "collective_broadcast": (sent[0],),
            }.get(exchange.kind, (place, *sent))
    return out


@given(exchanges(), st.lists(st.integers(0, 2), min_size=8, max_size=8), st.data())
def test_devices_that_are_said_to_hold_the_same_do(exchange, labels, data):
    values = data.draw(st.lists(st.integers(0, 99), min_size=3, max_size=3))
    out = run(exchange, [values[label] for label in labels])
    after = received(exchange, tuple(labels), 8) or (0,) * 8
    for one in range(8):
        for other in range(8):
            if after[one] == after[other]:
                assert out[one] == out[other]


# ------------------------------------------------------------------ no false alarm


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({**CASES, **IDIOMS, **NUTS}))
def test_no_step_is_said_to_deadlock(name):
    case = {**CASES, **IDIOMS, **NUTS}[name](jax.devices("cpu")[:8])
    kwargs = {k: v for k, v in case.jit_kwargs.items() if k != "donate_argnums"}
    lowered = jax.jit(case.step, **kwargs).lower(*case.args)
    module = Module.copy_of(lowered.compiler_ir("stablehlo"))
    verify_no_deadlock(module.snapshot(), is_local=module.is_local)
    if name in ("scan_layers", "auto_scan_remat", "loop_and_branch"):  # `lancet_jax.jit` checks all
        verify_no_deadlock(ScheduledModule(lowered.compile().as_text()).snapshot())


def test_a_step_that_can_wait_for_ever_runs_as_it_is_and_says_so():
    mesh = mesh_of(jax.devices("cpu")[:8])
    step = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P("ep"), out_specs=P("ep"), check_vma=False
    )(lambda x: branch(x, lambda total: total))
    x = jax.device_put(np.ones((64, 4), np.float32), jax.NamedSharding(mesh, P("ep")))
    for pipeline in ("dw", "exchange"):
        wrapped = lancet_jax.jit(step, pipeline=pipeline, on_unsupported="raise")
        with pytest.raises(DeadlockError, match="is in a branch"):
            wrapped.lower(x).compile()
