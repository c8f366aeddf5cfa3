"""Step time against memory."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.schedule.pareto import Point, front, orders_within
from hlo_passes.schedule.simulate import Simulator
from tests.hlo_passes.facts.test_footprint import greedy_step

POINTS = st.lists(st.builds(Point, st.text("ab", max_size=2), st.integers(0, 9), st.integers(0, 9)))


@given(POINTS)
@settings(max_examples=200)
def test_what_is_left_is_worth_having(points):
    """Nobody in the front beats another, and everybody outside is matched or beaten."""
    kept = front(points)
    sizes, times = [p.peak_bytes for p in kept], [p.step_us for p in kept]
    assert sizes == sorted(set(sizes))
    assert times == sorted(set(times), reverse=True)
    for p in points:
        assert any(k.step_us <= p.step_us and k.peak_bytes <= p.peak_bytes for k in kept)


def test_more_memory_hides_more():
    """The small order and the short one are both worth having."""
    costs = TargetCosts(parse_target("h100:1x8"))
    simulator = Simulator(ScheduledModule(greedy_step(4096)).snapshot(), costs)
    points = list(orders_within(simulator))
    stock = simulator.timeline()
    assert points[0].peak_bytes <= stock.peak_bytes
    for point, slack in zip(points, (0.0, 0.02, 0.05, 0.1), strict=False):
        assert point.peak_bytes <= stock.peak_bytes * (1 + slack)
    kept = front(points)
    assert len(kept) > 1
    assert kept[-1].step_us < stock.makespan_us
