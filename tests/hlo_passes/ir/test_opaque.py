"""Custom calls that are exchanges, as their user names them."""

from dataclasses import replace

import pytest

from hlo_passes.base import Context
from hlo_passes.cost.model import CostSource
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import OptionError, PlanError
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.opaque import (
    SYNCHRONOUS,
    UNKEPT,
    UNPAIRED,
    OpaqueExchange,
    opaque_notes,
    parse_opaque,
)
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule.simulate import simulate
from tests.hlo import scheduled

COSTS = TargetCosts(parse_target("h100:1x8"))
DOT = "dot({}), lhs_contracting_dims={{0}}, rhs_contracting_dims={{0}}"


def step(exchange):
    """A step that gets `%got` out of `%x`, and has a weight gradient that may run beside it."""
    return scheduled(f"""  %x = f32[4096,4096] parameter(0)
  %g = f32[4096,4096] parameter(1)
{exchange}
  %dx = f32[4096,4096] {DOT.format("%got, %g")}
  %dw = f32[4096,4096] {DOT.format("%x, %g")}
  ROOT %out = (f32[4096,4096], f32[4096,4096]) tuple(%dx, %dw)""")


PLAIN = step('  %got = f32[4096,4096] custom-call(%x), custom_call_target="send"')
PAIR = step("""  %s = (f32[4096,4096], u32[]) custom-call(%x), custom_call_target="go"
  %s0 = f32[4096,4096] get-tuple-element(%s), index=0
  %got = f32[4096,4096] custom-call(%s0, %x), custom_call_target="wait\"""")
LOOSE = PAIR.replace("custom-call(%s0, %x)", "custom-call(%s0)")
SUGAR = step("""  %s = ((f32[4096,4096]), f32[4096,4096]) custom-call-start(%x), custom_call_target="send"
  %got = f32[4096,4096] custom-call-done(%s)""")
WRAPPED = step("""  %s = ((f32[4096,4096]), f32[4096,4096]) async-start(%x), calls=%wrapped
  %got = f32[4096,4096] async-done(%s)""").replace("\n\nENTRY", """
%wrapped (p: f32[4096,4096]) -> f32[4096,4096] {
  %p = f32[4096,4096] parameter(0)
  ROOT %c = f32[4096,4096] custom-call(%p), custom_call_target="send"
}

ENTRY""", 1)  # fmt: skip

SEND = OpaqueExchange("send", us=200.0)
GO = OpaqueExchange("go", "wait", us=200.0)


def read(text, *opaque):
    return ScheduledModule(text, opaque=opaque)


def planned(module):
    context = Context(costs=COSTS, fingerprint=module.fingerprint)
    return ReorderScheduled().plan(module.snapshot(), context)


@pytest.mark.parametrize(
    ("text", "opaque"), [(PAIR, GO), (SUGAR, SEND), (WRAPPED, SEND)], ids=["pair", "sugar", "async"]
)
def test_work_runs_beside_what_is_split(text, opaque):
    """A weight gradient hides an opaque exchange that has a start and a done."""
    module = read(text, opaque)
    graph = module.snapshot()
    (exchange,) = graph.exchanges
    assert not graph.ops[exchange].blocking
    assert graph.ops[graph.done_of[exchange]].start == exchange
    plan = planned(module)
    assert plan.before.exposed_us == pytest.approx(200, abs=1)
    assert plan.after.exposed_us < 20
    moved = ReorderScheduled().apply(module, plan).module
    lines = [line for line in moved.text.splitlines() if " = " in line]
    places = [next(i for i, x in enumerate(lines) if f"%{n} =" in x) for n in ("s", "dw", "got")]
    assert places == sorted(places)
    assert moved.opaque == (opaque,)


@pytest.mark.parametrize(
    ("text", "opaque", "why"),
    [
        (PLAIN, SEND, SYNCHRONOUS),
        (LOOSE, GO, UNKEPT),
        (PAIR, OpaqueExchange("go", "other", us=200.0), UNPAIRED),
        (PAIR, OpaqueExchange("go", us=200.0), SYNCHRONOUS),
    ],
)
def test_nothing_runs_beside_what_blocks(text, opaque, why):
    """Other custom calls hold the compute stream, and every report says why."""
    module = read(text, opaque)
    graph = module.snapshot()
    op = graph.ops[graph.exchanges[0]]
    assert op.blocking
    assert op.why_blocking == why
    plan = planned(module)
    assert not plan.orders
    assert plan.after.exposed_us == pytest.approx(200)
    assert why in [r.reason for r in plan.refusals]
    assert any(why in line for line in opaque_notes(graph, module.opaque))


def test_not_named_is_compute():
    """Without a name a custom call is what it was."""
    graph = read(PLAIN).snapshot()
    assert not graph.exchanges
    assert graph.ops[2].target == "send"
    assert read(PLAIN, OpaqueExchange("x")).snapshot().exchanges == ()
    assert opaque_notes(graph, (OpaqueExchange("x"),)) == ("no custom call has the target x",)


def test_prices_name_their_source():
    """A time is the user's own; else the bytes are priced as of the kind."""
    given = simulate(read(PLAIN, SEND).snapshot(), COSTS).windows[0]
    assert (given.us, given.source) == (200.0, CostSource.GIVEN)
    priced = simulate(read(PLAIN, replace(SEND, us=None)).snapshot(), COSTS).windows[0]
    assert priced.bytes == 4 * 4096**2
    assert priced.us > 50
    assert priced.source in (CostSource.XLA, CostSource.LINK)
    pairs = replace(SEND, us=None, group_size=2)
    collective = read(PLAIN, pairs).snapshot().ops[2].collective
    assert collective.groups == ((0, 1), (2, 3), (4, 5), (6, 7))


def test_another_list_is_another_plan():
    """Plans are of a module and of what is known of it."""
    modules = [read(PAIR), read(PAIR, GO), read(PAIR, replace(GO, us=10.0))]
    assert len({m.fingerprint for m in modules}) == 3
    with pytest.raises(PlanError):
        ReorderScheduled().apply(modules[0], planned(modules[1]))


STABLE = """module @jit_step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<4096x4096xf32>, %g: tensor<4096x4096xf32>)
      -> (tensor<4096x4096xf32>, tensor<4096x4096xf32>) {
    %s:2 = stablehlo.custom_call @go(%x) : (tensor<4096x4096xf32>) ->
      (tensor<4096x4096xf32>, tensor<ui32>)
    %got = stablehlo.custom_call @wait(%s#0, %x) :
      (tensor<4096x4096xf32>, tensor<4096x4096xf32>) -> tensor<4096x4096xf32>
    %dx = stablehlo.dot %got, %g :
      (tensor<4096x4096xf32>, tensor<4096x4096xf32>) -> tensor<4096x4096xf32>
    %dw = stablehlo.dot %x, %g :
      (tensor<4096x4096xf32>, tensor<4096x4096xf32>) -> tensor<4096x4096xf32>
    return %dx, %dw : tensor<4096x4096xf32>, tensor<4096x4096xf32>
  }
}
"""


def test_stablehlo():
    """The same on StableHLO, copies included."""
    module = replace(Module.parse(STABLE), opaque=(GO,)).copy()
    graph = module.snapshot()
    assert graph.exchanges == (0,)
    assert graph.done_of == {0: 1}
    assert not graph.ops[0].blocking
    lone = replace(Module.parse(STABLE), opaque=(OpaqueExchange("go"),))
    assert lone.snapshot().ops[0].why_blocking == SYNCHRONOUS
    assert len({Module.parse(STABLE).fingerprint, module.fingerprint, lone.fingerprint}) == 3


def test_in_a_loop():
    """Bodies of loops are looked into."""
    text = scheduled(
        """  %t = (f32[8], f32[8]) parameter(0)
  ROOT %w = (f32[8], f32[8]) while(%t), condition=%cond, body=%body, """
        'backend_config={"known_trip_count":{"n":"3"}}',
        """%body (p: (f32[8], f32[8])) -> (f32[8], f32[8]) {
  %p = (f32[8], f32[8]) parameter(0)
  %a = f32[8] get-tuple-element(%p), index=0
  %b = f32[8] custom-call(%a), custom_call_target="send"
  ROOT %r = (f32[8], f32[8]) tuple(%b, %b)
}""",
    )
    timeline = simulate(read(text, SEND).snapshot(), COSTS)
    assert timeline.exposed_us == pytest.approx(600)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", OpaqueExchange("a")),
        ("a=12.5", OpaqueExchange("a", us=12.5)),
        ("a+b=3", OpaqueExchange("a", "b", us=3.0)),
        ("a+b", OpaqueExchange("a", "b")),
    ],
)
def test_spelling(text, expected):
    """On the command line."""
    assert parse_opaque(text) == expected
    assert expected.spec == text


@pytest.mark.parametrize("text", ["", "=3", "a=", "a=-1", "a=nan", "a=inf", "a+=3", "a+a=3"])
def test_bad_spelling(text):
    """Says how it should be."""
    with pytest.raises(OptionError):
        parse_opaque(text)


def test_bad_facts():
    """A kind that is none, a group of one."""
    with pytest.raises(OptionError, match="kind"):
        OpaqueExchange("a", kind="gossip")
    with pytest.raises(OptionError, match="group"):
        OpaqueExchange("a", group_size=1)
