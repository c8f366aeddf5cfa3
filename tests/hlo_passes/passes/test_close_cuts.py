"""A cut that is about as good as none is tried where XLA's schedules will be compared."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hlo_passes import split_pass
from hlo_passes.base import Context
from hlo_passes.choose_split import describe_race
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan, Prediction
from hlo_passes.split_exchange import SplitExchange
from hlo_passes.split_pass import CLOSE

STEP = Path(__file__).parents[1] / "split_exchange" / "capacity.mlir"


def timeline(step_us):
    times = ("compute_us", "exchange_us", "exposed_us", "exposed_all_to_all_us")
    return SimpleNamespace(makespan_us=step_us, peak_bytes=0, **dict.fromkeys(times, 0.0))


@pytest.mark.parametrize(
    ("checked", "cut_us", "is_cut"),
    [
        (True, 109.0, True),
        (True, 111.0, False),
        (False, 101.0, False),
        (False, 99.0, True),
        (False, 99.95, False),
    ],
)
def test_closeness(monkeypatch, checked, cut_us, is_cut):
    module = Module.parse(STEP.read_text())
    whole, steps = module.snapshot(), {}

    def ordered(graph, context):
        steps[len(graph.ops)] = graph
        return timeline(100.0 if len(graph.ops) == len(whole.ops) else cut_us)

    monkeypatch.setattr(split_pass, "ordered_timeline", ordered)
    costs = TargetCosts(parse_target("h100:1x8"))
    context = Context(costs=costs, fingerprint=module.fingerprint, module=module, checked=checked)
    plan = SplitExchange(rho=2).plan(whole, context)
    assert len(steps) == 2
    assert bool(plan.splits) is is_cut
    assert plan.after.step_us == (cut_us if is_cut else 100.0)
    said = {109.0: f"k=2 {CLOSE}", 99.0: "k=2 wins", 99.95: "uncut is taken: what is shorter gains"
            " too little, or does not fit"}.get(cut_us, "uncut wins")  # fmt: skip
    told = [refusal.reason for refusal in plan.refusals if "no cut" in refusal.reason]
    reason = f"no cut makes the step shorter{' by 0.1%' * (cut_us < 100)}"
    assert told == ([] if is_cut else [reason])
    assert describe_race(plan) == f"predicted steps: uncut 100 us, k=2 {cut_us:.0f} us; {said}"


@pytest.mark.parametrize(
    ("steps_us", "is_over"),
    [([120, 130], True), ([120], False), ([130, 120], False), ([104, 120], False),
     ([90, 120, 130], True)],
)  # fmt: skip
def test_more_parts_are_not_tried_once_they_only_make_a_step_longer(steps_us, is_over):
    assert split_pass._is_over(steps_us, min(100, *steps_us)) == is_over


def test_the_cut_that_was_tried_is_the_one_that_is_made():
    module, costs = Module.parse(STEP.read_text()), TargetCosts(parse_target("h100:1x8"))
    context = Context(costs=costs, fingerprint=module.fingerprint, module=module)
    step = SplitExchange(k=2)
    plan = step.plan(module.snapshot(), context)
    assert describe_race(plan).endswith("; k=2 was asked for")
    tried, again = (step.apply(module, plan).module for _ in range(2))
    assert tried is not again
    assert tried.text() == again.text() != module.text()


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("k=4", "k=4 wins"),
        ("k=2", "k=2 is taken: what is shorter gains too little, or does not fit"),
        ("stock", "uncut is taken: what is shorter gains too little, or does not fit"),
    ],
)
def test_only_the_shortest_wins(strategy, said):
    times = {"stock": 100.0, "k=2": 90.0, "k=4": 89.5}
    runs = {name: Prediction(step_us=us, compute_us=0.0, exchange_us=0.0, exposed_us=0.0,
                             exposed_all_to_all_us=0.0, peak_bytes=0)
            for name, us in times.items()}  # fmt: skip
    before = runs.pop("stock")
    plan = Plan(module="", target="", strategy=strategy, race=runs, before=before,
                after=runs.get(strategy, before))  # fmt: skip
    assert describe_race(plan).endswith(said)
