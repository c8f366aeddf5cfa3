"""The judge on small schedules that are written out, legal ones and illegal ones."""

import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import InputError
from lancet_jax.judge import Load, judge
from tests.hlo import scheduled

COSTS = TargetCosts(parse_target("h100:1x8"))
SIZE = 1 << 24


def gemm(name, reads, us):
    return (
        f"  %{name} = f32[{SIZE}]{{0}} custom-call({', '.join('%' + r for r in reads)}), "
        f'custom_call_target="x", backend_config={{"reification_cost":[{{"exec_time_us":{us},'
        f'"compute_time_us":0,"name":"sol"}}]}}'
    )


PARAMETER = f"  %p = f32[{SIZE}]{{0}} parameter(0)"
START = (
    f"  %s = ((f32[{SIZE}]{{0}}), f32[{SIZE}]{{0}}) all-to-all-start(%p), "
    "replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}"
)
DONE = f"  %d = f32[{SIZE}]{{0}} all-to-all-done(%s)"
ROOT = "  ROOT %r = (f32[]) tuple(%d)"
SENT = COSTS.target.topology.time_us("all_to_all", 4 * SIZE, [range(8)])


def verdict(*lines, others=(), **options):
    costs = TargetCosts(parse_target("h100:1x8"), xla_exchanges=False)
    return judge(scheduled("\n".join(lines), *others), costs, **options)


def test_what_stands_between_start_and_done_runs_beside_the_exchange():
    found = verdict(PARAMETER, START, gemm("w", ["p"], 20), DONE, gemm("x", ["d"], 5), ROOT)
    assert found.exchange_us == pytest.approx(SENT)
    assert found.overlapped_us == pytest.approx(20)
    assert found.compute_only_us == pytest.approx(5)
    assert found.exposed_us == found.exposed_all_to_all_us == pytest.approx(SENT - 20)
    assert found.step_us == pytest.approx(SENT + 5)
    assert found.bound_us == pytest.approx(max(25, SENT))
    parts = found.compute_only_us + found.overlapped_us + found.exposed_us + found.idle_us
    assert parts == pytest.approx(found.step_us)


def test_a_window_that_is_shut_too_early_is_seen():
    good = verdict(PARAMETER, START, gemm("w", ["p"], 20), DONE, gemm("x", ["d"], 5), ROOT)
    bad = verdict(PARAMETER, START, DONE, gemm("w", ["p"], 20), gemm("x", ["d"], 5), ROOT)
    assert bad.overlapped_us == 0
    assert bad.exposed_us == pytest.approx(good.exposed_us + 20)


def test_an_exchange_that_xla_made_synchronous_hides_nothing():
    start = START + ', backend_config={"collective_backend_config":{"is_sync":true}}'
    found = verdict(PARAMETER, start, gemm("w", ["p"], 20), DONE, ROOT)
    assert found.exposed_us == pytest.approx(SENT)


def test_without_overlap_every_exchange_is_waited_for():
    lines = PARAMETER, START, gemm("w", ["p"], 20), DONE, gemm("x", ["d"], 5), ROOT
    assert verdict(*lines, overlaps=False).step_us == pytest.approx(SENT + 25)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((PARAMETER, START, gemm("x", ["s"], 5), DONE, ROOT), "x reads s, an exchange that is sti"),
        ((PARAMETER, START, gemm("x", ["d"], 5), DONE, ROOT), "x reads d, which no line before"),
        ((PARAMETER, DONE, START, ROOT), "d reads s, which no line before it makes"),
        ((PARAMETER, START, "  ROOT %r = (f32[]) tuple(%p)"), "s is an exchange that nothing wai"),
    ],
)
def test_an_illegal_schedule_is_refused_and_the_line_named(lines, message):
    with pytest.raises(InputError, match=message) as error:
        verdict(*lines)
    assert error.value.where.startswith("<module>:")


LOOP = f"""%body (t: (f32[{SIZE}])) -> (f32[{SIZE}]) {{
  %t = (f32[{SIZE}]{{0}}) parameter(0)
  %g = f32[{SIZE}]{{0}} get-tuple-element(%t), index=0
{gemm("y", ["g"], 3)}
  ROOT %o = (f32[{SIZE}]{{0}}) tuple(%y)
}}

%cond (t: (f32[{SIZE}])) -> pred[] {{
  %t.1 = (f32[{SIZE}]{{0}}) parameter(0)
  ROOT %c = pred[] constant(true)
}}"""


def while_(trips):
    known = f', backend_config={{"known_trip_count":{{"n":"{trips}"}}}}' if trips else ""
    return [
        f"  %init = (f32[{SIZE}]{{0}}) tuple(%p)",
        f"  %w = (f32[{SIZE}]{{0}}) while(%init), condition=%cond, body=%body{known}",
    ]


@pytest.mark.parametrize("trips", [1, 4, 64, 100])
def test_a_loop_takes_all_its_trips_beside_an_exchange(trips):
    found = verdict(PARAMETER, START, *while_(trips), DONE, ROOT, others=[LOOP])
    assert found.compute_us == pytest.approx(3 * trips)
    assert found.overlapped_us == pytest.approx(min(3 * trips, SENT))


def test_a_loop_that_the_data_ends_makes_the_host_ask_before_every_trip_and_after_the_last():
    found = verdict(PARAMETER, *while_(0), "  ROOT %r = (f32[]) tuple(%w)", others=[LOOP])
    assert found.idle_us == pytest.approx(2 * COSTS.decide_us)
    more = verdict(PARAMETER, *while_(0), "  ROOT %r = (f32[]) tuple(%w)", others=[LOOP],
                   load=Load(trips=3))  # fmt: skip
    assert more.idle_us == pytest.approx(4 * COSTS.decide_us)
    assert more.compute_us == pytest.approx(9)


def test_a_branch_counts_at_its_longest():
    branches = [
        f"%{name} (q: f32[{SIZE}]) -> f32[{SIZE}] {{\n  %q = f32[{SIZE}]{{0}} parameter(0)\n"
        + gemm("z", ["q"], us).replace("  %z", "  ROOT %z") + "\n}"
        for name, us in (("short", 2), ("long", 7))
    ]  # fmt: skip
    found = verdict(
        PARAMETER, "  %i = s32[] constant(0)",
        f"  %c = f32[{SIZE}]{{0}} conditional(%i, %p, %p), branch_computations={{%short, %long}}",
        "  ROOT %r = (f32[]) tuple(%c)", others=branches,
    )  # fmt: skip
    assert found.compute_us == pytest.approx(7)
    assert found.idle_us == pytest.approx(COSTS.decide_us)


def test_the_busiest_device_decides_how_long_a_ragged_exchange_takes():
    table = "%p, %p, %p, %p, %p, %p"
    start = (
        f"  %s = ((f32[{SIZE}]{{0}}), f32[{SIZE}]{{0}}) ragged-all-to-all-start({table}), "
        'replica_groups={{0,1,2,3,4,5,6,7}}, frontend_attributes={lancet_fill="0.25"}'
    )
    done = f"  %d = f32[{SIZE}]{{0}} ragged-all-to-all-done(%s)"
    time = COSTS.target.topology.time_us
    quarter = verdict(PARAMETER, start, done, ROOT)
    assert quarter.exchange_us == pytest.approx(time("ragged_all_to_all", SIZE, [range(8)]))
    skewed = verdict(PARAMETER, start, done, ROOT, load=Load(fill=2.0))
    assert skewed.exchange_us == pytest.approx(time("ragged_all_to_all", 2 * SIZE, [range(8)]))
    said = start.replace('lancet_fill="0.25"', 'lancet_fill="0.25",lancet_skew="2"')
    assert verdict(PARAMETER, said, done, ROOT).exchange_us == skewed.exchange_us


def test_what_is_no_schedule_is_refused():
    with pytest.raises(InputError, match="no HloModule"):
        judge("nonsense", COSTS)
    with pytest.raises(InputError, match="not scheduled"):
        judge("HloModule x\n\nENTRY %e () -> f32[] {\n}\n", COSTS)
    with pytest.raises(InputError, match="too early"):
        judge("HloModule x, is_scheduled=true\n\nENTRY %e () -> f32[] {\n", COSTS)
