import pytest
from hypothesis import given
from hypothesis import strategies as st

from hlo_passes.base import Tier, parse_pass
from hlo_passes.choose_split import ChooseSplit
from hlo_passes.errors import OptionError
from hlo_passes.pin_order import PinOrder
from hlo_passes.pipelines import PASSES, PRESETS, parse_pipeline
from hlo_passes.run import Pipeline
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.separate_tiers import SeparateTiers
from hlo_passes.split_exchange import SplitExchange
from hlo_passes.split_region import SplitRegion
from hlo_passes.unroll_loops import UnrollLoops


def test_the_name_is_the_class_in_kebab_case():
    assert ScheduleDw.pass_name() == "schedule-dw"
    assert PinOrder.pass_name() == "pin-order"


def test_defaults_print_bare():
    assert ScheduleDw().spec == "schedule-dw"
    assert ScheduleDw(strategy="greedy", two_x_guard=True).spec == (
        "schedule-dw{strategy=greedy,two-x-guard=true}"
    )


@given(
    st.sampled_from(["best", "greedy", "list"]), st.booleans(), st.booleans(),
    st.floats(0, 10, allow_nan=False),
)  # fmt: skip
def test_what_prints_is_read_back(strategy, guard, chance, slack):
    made = ScheduleDw(strategy, guard, chance, slack)
    assert parse_pass(made.spec, PASSES) == made


def test_pipelines_print_and_read():
    made = Pipeline((ScheduleDw(strategy="list"), PinOrder(before=False)))
    assert made.spec == "schedule-dw{strategy=list},pin-order{before=false}"
    assert parse_pipeline(made.spec) == made


def test_presets():
    assert parse_pipeline("off").passes == ()
    assert parse_pipeline("dw").passes == (ScheduleDw(),)
    assert all(isinstance(parse_pipeline(name), Pipeline) for name in PRESETS)


def test_every_pass_states_what_it_may_do_to_numbers():
    assert {cls: cls.tier for cls in PASSES} == {
        ScheduleDw: Tier.EXACT,
        ChooseSplit: Tier.REASSOCIATES,
        SplitExchange: Tier.REASSOCIATES,
        SplitRegion: Tier.REASSOCIATES,
        UnrollLoops: Tier.EXACT,
        SeparateTiers: Tier.EXACT,
        PinOrder: Tier.REASSOCIATES,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "neither a preset nor a pass.*dw"),
        ("schedule-dw,nonsense", "no such pass.*schedule-dw"),
        ("schedule-dw{speed=9}", "no option 'speed'.*strategy"),
        ("schedule-dw{strategy=fast}", "'fast' is no one of best, greedy, list"),
        ("schedule-dw{two-x-guard=perhaps}", "'perhaps' is no bool"),
        ("schedule-dw{memory-slack=much}", "'much' is no float"),
    ],
)
def test_mistakes_name_the_place_and_the_choices(text, message):
    with pytest.raises(OptionError, match=f"(?s){message}"):
        parse_pipeline(text)
