"""Targets and profiles: what is read, what is refused, and whether the figures agree."""

import msgspec
import pytest

from hlo_passes.cost.device import (
    DeviceProfile,
    load_profile,
    profile_from_json,
    profile_names,
    profile_of_kind,
    shipped,
)
from hlo_passes.cost.target import parse_target, target_of_devices
from hlo_passes.errors import InputError, OptionError

NAMES = ("a100", "b200", "cpu", "h100", "h200", "v100")
GPUS = tuple(name for name in NAMES if name != "cpu")


@pytest.mark.parametrize(
    ("text", "name", "devices"),
    [
        ("h100", "h100:1x8", 8),
        ("h100:1x8", "h100:1x8", 8),
        (" H100:1x8 ", "h100:1x8", 8),
        ("a100:8x8", "a100:8x8", 64),
        ("v100:8x8", "v100:8x8", 64),
        ("b200:1x8", "b200:1x8", 8),
        ("h200:2x4", "h200:2x4", 8),
        ("cpu:1x8", "cpu:1x8", 8),
        ("cpu", "cpu:1x8", 8),
        ("cpu:1x32", "cpu:1x32", 32),
    ],
)
def test_targets_are_read(text, name, devices):
    target = parse_target(text)
    assert (target.name, target.topology.devices) == (name, devices)
    assert parse_target(target.name) == target


@pytest.mark.parametrize(
    "text", ["", "h100:", "h100:8", "h100:1x", "h100 1x8", "h100:1x8x2", "8xh100", "h100:-1x8"]
)
def test_other_spellings_are_refused_with_the_right_one(text):
    with pytest.raises(OptionError, match="DEVICE:NODESxDEVICES") as caught:
        parse_target(text)
    assert "h100:1x8" in caught.value.remedy
    assert all(name in caught.value.remedy for name in NAMES)


def test_unknown_devices_are_refused_with_the_known_ones():
    with pytest.raises(OptionError, match="a100, b200, cpu, h100, h200, v100"):
        parse_target("tpu:1x8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h100:0x8", "has no devices"),
        ("h100:1x0", "has no devices"),
        ("h100:1x16", r"holds 8 devices, not 16\n.*h100:2x8"),
    ],
)
def test_impossible_sizes_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        parse_target(text)


@pytest.mark.parametrize(
    ("count", "per_node", "name"),
    [
        (8, None, "h100:1x8"),
        (4, None, "h100:1x4"),
        (64, None, "h100:8x8"),
        (12, None, "h100:2x6"),
        (8, 4, "h100:2x4"),
        (16, 16, "h100:2x8"),
        (1, None, "h100:1x1"),
    ],
)
def test_targets_of_real_devices(count, per_node, name):
    target = target_of_devices("NVIDIA H100 80GB HBM3", count, per_node)
    assert (target.name, target.topology.devices) == (name, count)


def test_virtual_devices_are_one_node_whatever_their_number():
    assert target_of_devices("cpu", 24).name == "cpu:1x24"


def test_unknown_kinds_and_no_devices_are_refused():
    with pytest.raises(OptionError, match="NVIDIA H100 80GB HBM3") as caught:
        target_of_devices("NVIDIA GeForce RTX 4090", 8)
    assert "target=" in caught.value.remedy
    with pytest.raises(OptionError, match="has no devices"):
        target_of_devices("cpu", 0)


def test_the_shipped_profiles():
    assert profile_names() == NAMES
    assert shipped("h100.json") is not None
    assert shipped("nowhere.json") is None
    for name in NAMES:
        assert load_profile(name).name == name
    with pytest.raises(OptionError, match="h100"):
        load_profile("exchange-h100-1x8")


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_agrees_with_itself(name):
    profile = load_profile(name)
    for kind in profile.device_kinds:
        assert profile_of_kind(kind) is profile
    rates = profile.matmul_flops
    assert rates["f64"] <= rates["f32"] <= rates["tf32"] <= rates["f8"] or name == "cpu"
    assert rates["bf16"] <= rates["f16"] <= rates["f8"]
    assert rates["f32"] >= profile.vector_flops["f32"] >= profile.vector_flops["f64"]
    # More flops per byte than one, less than a thousand: no factor of a thousand is lost.
    assert 1 < rates["f32"] / profile.hbm_bytes_per_s < 1000
    assert profile.tiers[-1].participants == 0
    speeds = [tier.bytes_per_s for tier in profile.tiers]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] < profile.hbm_bytes_per_s


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source(name):
    profile = load_profile(name)
    figures = {"matmul_flops", "vector_flops", "hbm_bytes_per_s", "memory_bytes", "launch_us",
               "decide_us", "efficiency", "per_node"}  # fmt: skip
    assert figures <= {field for field, text in profile.sources.items() if len(text) > 10}
    assert all(len(tier.source) > 20 for tier in profile.tiers)


@pytest.mark.parametrize("name", GPUS)
def test_peaks_follow_from_cores_and_clock(name):
    profile = load_profile(name)
    by_cores = profile.sm_count * profile.fpus_per_core * 2 * profile.clock_ghz * 1e9
    assert profile.vector_flops["f32"] == pytest.approx(by_cores, rel=0.03)
    assert profile.compute_capability == {"v100": "7.0", "a100": "8.0", "b200": "10.0"}.get(
        name, "9.0"
    )
    assert profile.shared_memory_per_block_optin <= profile.shared_memory_per_core
    assert profile.l2_bytes < profile.memory_bytes


def test_rates_by_element_type():
    h100, v100 = load_profile("h100"), load_profile("v100")
    assert h100.flops_per_s("f32", matmul=True) == 494.7e12
    assert h100.flops_per_s("f32", matmul=True, tf32=False) == 66.9e12
    assert v100.flops_per_s("f32", matmul=True) == v100.flops_per_s("bf16", matmul=True) == 15.7e12
    assert h100.flops_per_s("f8E4M3FN", matmul=True) == 1978.9e12
    assert h100.flops_per_s("bf16", matmul=True) == h100.flops_per_s("f16", matmul=True)
    assert h100.flops_per_s("ui8", matmul=True) == 1978.9e12
    assert h100.flops_per_s("i32", matmul=True) == 66.9e12
    assert h100.flops_per_s("bf16", matmul=False) == 66.9e12
    assert h100.flops_per_s("f64", matmul=False) == 33.5e12


def test_kinds_without_a_share_of_their_own_take_the_common_one():
    h100 = load_profile("h100")
    assert h100.hbm_share("add") == h100.efficiency["hbm"]
    assert h100.hbm_share("sort") < h100.hbm_share("add")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matmul_flops": {"f32": 1.0}}, "no figure for f64, tf32"),
        ({"efficiency": {"matmul": 0.5, "hbm": 0.5}}, "no figure for vector"),
        ({"efficiency": {"matmul": 1.5, "hbm": 0.5, "vector": 0.5}}, "share above 0"),
        ({"hbm_bytes_per_s": 0}, "above 0"),
        ({"device_kinds": []}, "device kind"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_broken_profiles_are_refused(change, message):
    data = msgspec.json.decode(shipped("h100.json")) | change
    with pytest.raises(InputError, match=message):
        profile_from_json(msgspec.json.encode(data), "mine.json")


def test_a_profile_of_ones_own_is_read():
    mine = msgspec.json.decode(shipped("h100.json")) | {"name": "mine"}
    profile = profile_from_json(msgspec.json.encode(mine))
    assert isinstance(profile, DeviceProfile)
    assert profile.name == "mine"
