"""The script that reads XLA's log: what it takes for a time, and what it refuses."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "xla_exchange_costs.py"
TIME = "I1124 11:41:33.7 9015 sol_latency_estimator.cc:532] GetLatencyBetween: Computed collective"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("xla_exchange_costs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_times_belong_to_the_program_named_before(script):
    log = [
        f"{TIME} time for all-to-all-start: 1 us",
        "# all_to_all 8 65536",
        f"{TIME} time for all-to-all-start: 23.712 us",
        "I1124 11:41:33 NodeCost: Fusion cost from gpu_performance_model for loop: 0.039 us",
        f"{TIME} time for all-to-all-start: 23.712 us",
        "# all_reduce 2 131072",
        f"{TIME} time for all-reduce-start.1: 40 us",
    ]
    assert dict(script.parse(log)) == {
        ("all_to_all", 8, 65536): 23.712,
        ("all_reduce", 2, 131072): 40.0,
    }


@pytest.mark.parametrize(
    "log", [[], [f"{TIME} time for a-start: 1 us", f"{TIME} time for a-start: 2 us"]]
)
def test_no_time_and_two_times_are_refused(script, log):
    with pytest.raises(SystemExit, match="not one time"):
        dict(script.parse(["# all_to_all 8 65536", *log]))


def test_a_table_holds_every_kind_group_and_size(script):
    times = {
        (kind, group, size): size / group
        for kind in script.KINDS
        for group in script.GROUP_SIZES
        for size in script.SIZES
    }
    table = script.table_of("h100:1x8", times)
    table.check()
    assert table.source == "xla"
    assert table.exchange_us("all_gather", 4, 1, script.SIZES[3]) == script.SIZES[3] / 4
