"""Loops that exchange, and exchanges in flight when they begin: planner and judge agree."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.schedule.bound import exposed_bound, makespan_bound
from hlo_passes.schedule.simulate import Simulator
from lancet_jax.judge import judge
from lancet_jax.report.step import LaidOutStep
from tests.hlo import scheduled

COSTS = TargetCosts(parse_target("h100:1x8"))
FIGURES = ("step_us", "compute_us", "exchange_us", "exposed_us")


class Lines:
    """Writes a block: values by name, exchanges in flight, all of them done at the end."""

    def __init__(self, name, size=1 << 20):
        self.name, self.shape = name, f"f32[{size}]{{0}}"
        self.rows, self.there, self.flights, self.count = [], [], [], 0

    def make(self, text):
        self.count += 1
        name = f"{self.name}.{self.count}"
        self.rows.append(f"  %{name} = {text}")
        return name

    def compute(self, source, us):
        cost = f'{{"reification_cost":[{{"exec_time_us":{us},"name":"sol"}}]}}'
        call = f'custom-call(%{source}), custom_call_target="x", backend_config={cost}'
        self.there.append(self.make(f"{self.shape} {call}"))

    def start(self, source, kind):
        shape = f"(({self.shape}), {self.shape})"
        self.flights.append(
            (self.make(f"{shape} {kind}-start(%{source}), replica_groups=[1,8]<=[8]"), kind)
        )

    def done(self, which=0):
        name, kind = self.flights.pop(which)
        self.there.append(self.make(f"{self.shape} {kind}-done(%{name})"))

    def loop(self, body, trips):
        """A loop takes over the memory of its operand, so it has one that nobody else reads."""
        source = self.make(f"{self.shape} iota(), iota_dimension=0")
        known = f'backend_config={{"known_trip_count":{{"n":"{trips}"}}}}'
        first = self.make(f"({self.shape}) tuple(%{source})")
        made = self.make(f"({self.shape}) while(%{first}), condition=%go, body=%{body}, {known}")
        self.there.append(self.make(f"{self.shape} get-tuple-element(%{made}), index=0"))


GO = """%go (c: (f32[1048576])) -> pred[] {
  %c = (f32[1048576]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}"""
KINDS = st.sampled_from(["all-to-all", "all-reduce"])


def fill(draw, lines, bodies, most):
    """Write random lines; loops only where there are bodies for them."""
    actions = ["compute", "compute", "start", "done", *(["loop"] if bodies else [])]
    for _ in range(draw(st.integers(1, most))):
        action = draw(st.sampled_from(actions))
        source = draw(st.sampled_from(lines.there))
        if action == "compute":
            lines.compute(source, draw(st.floats(0.1, 80)))
        elif action == "start":
            lines.start(source, draw(KINDS))
        elif action == "done" and lines.flights:
            lines.done(draw(st.integers(0, len(lines.flights) - 1)))
        elif action == "loop":
            lines.loop(draw(st.sampled_from(bodies)), draw(st.integers(1, 5)))
    while lines.flights:
        lines.done()


def body(name, lines):
    head = f"  %{name}.t = ({lines.shape}) parameter(0)\n  %{name}.g = {lines.shape} get-tuple-element(%{name}.t), index=0"
    end = f"  ROOT %{name}.r = ({lines.shape}) tuple(%{lines.there[-1]})"
    return (
        f"%{name} (t: (f32[1048576])) -> (f32[1048576]) {{\n{head}\n"
        + "\n".join([*lines.rows, end])
        + "\n}"
    )


@st.composite
def steps(draw):
    """Draw a step with loops that exchange, one of them around the other."""
    texts, names = [], []
    for name in ("inner", "outer"):
        lines = Lines(name)
        lines.there.append(f"{name}.g")
        fill(draw, lines, names, 8)
        texts.append(body(name, lines))
        names.append(name)
    lines = Lines("v")
    lines.there.append(lines.make(f"{lines.shape} parameter(0)"))
    fill(draw, lines, names, 14)
    outputs = ", ".join("%" + name for name in lines.there)
    end = f"  ROOT %out = (f32[1]) tuple({outputs})"
    return scheduled("\n".join([*lines.rows, end]), GO, *texts)


def both(text):
    graph = ScheduledModule(text).snapshot()
    simulator = Simulator(graph, COSTS)
    timeline = simulator.timeline(source="compiled")
    figures = {name: getattr(timeline, name) for name in FIGURES[1:]}
    return simulator, {"step_us": timeline.makespan_us} | figures, judge(text, COSTS)


@given(steps())
@settings(deadline=None, max_examples=60)
def test_they_agree_on_steps_with_loops(text):
    simulator, ours, found = both(text)
    for name in FIGURES:
        assert getattr(found, name) == pytest.approx(ours[name], rel=1e-9, abs=1e-6), name
    assert makespan_bound(simulator.problem) <= ours["step_us"] * (1 + 1e-9) + 1e-6
    assert exposed_bound(simulator.problem) <= ours["exposed_us"] * (1 + 1e-9) + 1e-6


def test_a_loop_begins_while_an_exchange_is_in_flight():
    """Its own exchange is due after 30 us of work: so much of the one before costs nothing."""
    inside = Lines("inner")
    inside.there.append("inner.g")
    inside.compute("inner.g", 30)
    inside.start("inner.1", "all-to-all")
    inside.done()
    lines = Lines("v")
    lines.there.append(lines.make(f"{lines.shape} parameter(0)"))
    lines.start("v.1", "all-reduce")
    lines.loop("inner", 3)
    lines.done()
    end = f"  ROOT %out = (f32[1]) tuple(%{lines.there[-1]}, %{lines.there[-2]})"
    text = scheduled("\n".join([*lines.rows, end]), GO, body("inner", inside))
    simulator, ours, found = both(text)
    before, sent = (w.us for w in sorted(simulator.timeline().windows, key=lambda w: w.times))
    assert before > 30
    assert ours["step_us"] == pytest.approx(before + sent + 2 * (30 + sent))
    assert found.step_us == pytest.approx(ours["step_us"])
    assert ours["exposed_us"] == pytest.approx(ours["step_us"] - 90)
    drawn = LaidOutStep.of(simulator)
    assert all(a.end_us <= b.start_us + 1e-9 for a, b in pairwise(drawn.exchange))
    assert sum(end - start for start, end in drawn.bare) == pytest.approx(ours["exposed_us"])


def test_a_branch_waits_for_the_host_in_both():
    blocks = []
    for name, us in (("short", 2), ("long", 40)):
        lines = Lines(name)
        lines.there.append(f"{name}.g")
        lines.compute(f"{name}.g", us)
        blocks.append(body(name, lines))
    lines = Lines("v")
    lines.there.append(lines.make(f"{lines.shape} parameter(0)"))
    lines.start("v.1", "all-to-all")
    which = lines.make("s32[] parameter(1)")
    held = lines.make(f"({lines.shape}) tuple(%v.1)")
    lines.make(f"({lines.shape}) conditional(%{which}, %{held}, %{held}), "
               "branch_computations={%short, %long}")  # fmt: skip
    lines.done()
    end = f"  ROOT %out = (f32[1]) tuple(%{lines.there[-1]})"
    _, ours, found = both(scheduled("\n".join([*lines.rows, end]), *blocks))
    assert COSTS.decide_us > 0
    assert ours["step_us"] == pytest.approx(40 + COSTS.decide_us)
    assert found.step_us == pytest.approx(ours["step_us"])
