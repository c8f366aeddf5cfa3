"""What is known before a compile, where its time goes, and what is said of it."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import pytest

from hlo_passes.cost.target import parse_target
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.job import device_memory
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.telling import describe
from lancet_jax.compile.tournament import ranked, told
from lancet_jax.peers.decided import Entry
from lancet_jax.seams import backends
from tests.lancet_jax.compile.fakes import Made, cut, judged, whole

H100 = parse_target("h100:1x8")
KIND = H100.profile.device_kinds[0]
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"


def gpu(limit=None, process=0, kind=KIND):
    """A device of process 0 or another one, which says how much JAX may use of its memory."""
    client = SimpleNamespace(process_index=lambda: 0)
    stats = None if limit is None else {"bytes_limit": limit, "bytes_in_use": 7}
    return SimpleNamespace(
        device_kind=kind, process_index=process, client=client, memory_stats=lambda: stats
    )


# -------------------------------------------------------------------------------------- memory


def test_the_fullest_device_of_this_process_decides(monkeypatch):
    monkeypatch.setenv(FRACTION, "0.5")
    devices = [gpu(70 * 10**9), gpu(60 * 10**9), gpu(10**9, process=1), gpu()]
    assert device_memory(H100, devices) == 60 * 10**9


@pytest.mark.parametrize(
    ("given", "fraction"), [(None, 0.75), ("0.9", 0.9), (".5", 0.5), ("much", 0.75)]
)
@pytest.mark.parametrize("kind", [KIND, "another GPU"])
def test_devices_that_say_nothing_have_the_share_that_jax_takes(monkeypatch, given, fraction, kind):
    monkeypatch.delenv(FRACTION, raising=False)
    if given is not None:
        monkeypatch.setenv(FRACTION, given)
    limit = None if kind == KIND else 10**9
    found = device_memory(H100, [gpu(limit, kind=kind)] * 8)
    assert found == int(H100.profile.memory_bytes * fraction)


def test_devices_for_the_compiler_alone_are_not_asked(monkeypatch):
    monkeypatch.delenv(FRACTION, raising=False)
    monkeypatch.setattr(backends, "is_compile_only", lambda device: True)
    described = SimpleNamespace(device_kind=KIND, process_index=0)
    assert device_memory(H100, [described]) == int(H100.profile.memory_bytes * 0.75)


def test_nobody_knows_what_a_step_may_take_of_a_host():
    assert device_memory(parse_target("cpu:1x8"), jax.devices()) is None


def test_a_target_that_the_devices_are_not_has_its_own_memory(monkeypatch):
    monkeypatch.delenv(FRACTION, raising=False)
    assert device_memory(H100, jax.devices()) == int(H100.profile.memory_bytes * 0.75)


# --------------------------------------------------------------------------------------- clock


def test_phases_add_up_and_xlas_are_not_ours():
    clock = Clock("jit_step")
    clock.add("plan", 2.0)
    clock.add("plan", 1.0)
    clock.add("XLA compiles", 7.0, by_xla=True)
    clock.add("XLA compiles", -0.5, by_xla=True)
    clock.add("order", 0.5)
    assert clock.seconds == {"plan": 3.0, "XLA compiles": 6.5, "order": 0.5}
    assert clock.ours == 3.5
    assert Clock("other").ours == 0.0
    assert clock.age_s > 0.0


def test_a_phase_that_fails_took_its_time_too(caplog):
    clock = Clock("jit_step")
    caplog.set_level(logging.INFO, "lancet_jax")
    with pytest.raises(ValueError, match="no"), clock.phase("plan"):
        raise ValueError("no")
    assert clock.seconds.keys() == {"plan"}
    assert caplog.messages == ["jit_step: plan: 0.00 s"]
    assert caplog.records[0].levelno == logging.INFO


def test_a_phase_that_goes_on_says_so(caplog, monkeypatch):
    monkeypatch.setattr("lancet_jax.compile.clock._LONG_S", 0.01)
    caplog.set_level(logging.INFO, "lancet_jax")
    with Clock("jit_step").phase("XLA schedules 'dw'", by_xla=True):
        deadline = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    first, last = caplog.messages
    assert first == "jit_step: XLA schedules 'dw' ..."
    assert last.startswith("jit_step: XLA schedules 'dw': 0.")


def test_phases_in_several_threads_lose_nothing():
    clock = Clock("jit_step")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: clock.add("order", 1.0), range(1000)))
    assert clock.seconds == {"order": 1000.0}


# ------------------------------------------------------------------------------------- telling


def race_of(*found):
    return told(ranked(found))


def test_a_shorter_program_that_did_not_fit_is_named_with_its_reason():
    race = race_of(
        judged(whole(), Made(1000)), judged(cut("lancet k=2"), Made(900), fits=False, excess="b"),
        judged(cut("full k=2"), Made(800), fits=False, excess="it needs 90 GB"),
        judged(cut("loops k=2"), error="no"),
    )  # fmt: skip
    assert Outcome(race=race).left == "full k=2, 800 us, was left: it needs 90 GB"


@pytest.mark.parametrize(
    "race",
    [
        (),
        (Entry(name="as it is", step_us=10.0),),
        (Entry(name="as it is", step_us=10.0), Entry(name="full", step_us=11.0, why="longer")),
        (Entry(name="as it is", step_us=10.0), Entry(name="full", fits=False, why="no")),
    ],
    ids=["no race", "alone", "longer", "not compiled"],
)
def test_nothing_was_left_where_nothing_is_shorter(race):
    assert Outcome(race=race).left == ""


def test_a_race_is_told_in_one_line():
    race = race_of(judged(whole(), Made(1000)), judged(cut("full k=2"), Made(9000)),
                   judged(cut("loops k=2"), error="INTERNAL: no"))  # fmt: skip
    assert describe(race) == (
        "on XLA's own modules: as it is 1,000 us runs, of full k=2 9,000 us, "
        "loops k=2 (it does not compile: INTERNAL: no)"
    )
