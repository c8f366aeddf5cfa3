"""Jobs of several processes: real ones with gloo between them, and the meeting alone."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from lancet_jax.errors import PeerError, UnsupportedError
from lancet_jax.peers.agree import Peers, SharedPlans, exchange_order
from lancet_jax.peers.decided import Decided
from lancet_jax.peers.job_store import JobStore

ROOT = Path(__file__).parents[3]
SPLIT = "split-region{k=2},schedule-dw"
CUT_EXCHANGES = "split-exchange{k=2},schedule-dw"

# ---------------------------------------------------------------------------- real processes


def run(seconds=120, **options):
    """Run a job; return per rank (exit code, what it printed), and the seconds that it took."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    command = [sys.executable, "-W", "ignore", "-m", "tests.lancet_jax.peers.job_worker"]
    started = time.monotonic()
    ranks = [
        subprocess.Popen(
            [*command, str(rank), port, json.dumps(options)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(options["size"])
    ]  # fmt: skip
    found = []
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=seconds - (time.monotonic() - started))
            lines = [line for line in out.splitlines() if line.startswith("{")]
            found.append((rank.returncode, json.loads(lines[-1]) if lines else {"stderr": err}))
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.communicate()
    return found, time.monotonic() - started


def check_all_ran(found, *, cuts=0):
    assert all(code == 0 and said["same"] and not said["error"] for code, said in found), found
    assert {said["cuts"] for _, said in found} == {cuts}
    assert len({said["plan"] for _, said in found}) == 1
    assert found[0][1]["moves"]


def check_all_failed(found, *words):
    for code, said in found:
        assert code != 0
        assert said["error"].startswith("PeerError"), said
        assert all(word in said["error"] for word in words), said


def test_two_processes_run_the_same_plan():
    found, _ = run(size=2)
    check_all_ran(found)


def test_another_pipeline_is_an_error_on_both_before_xla_compiles():
    found, _ = run(size=2, pipeline=["dw", "off"])
    check_all_failed(
        found, "process 0 has", "process 1 has", "'schedule-dw' on process 0", "'off' on process 1"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("size", "plan_on"), [(2, "every"), (4, "first")])
def test_a_cut_step_runs_the_same_plan(size, plan_on):
    found, _ = run(size=size, plan_on=plan_on, step="model", pipeline=SPLIT)
    check_all_ran(found, cuts=1)


@pytest.mark.slow
@pytest.mark.parametrize(("faults", "is_wrong"), [
    (["", ""], False), (["wrong", "wrong"], True), (["", "sees another"], True),
])  # fmt: skip
def test_processes_agree_on_what_an_audit_finds(faults, is_wrong):
    found, _ = run(size=2, step="audited", pipeline=CUT_EXCHANGES, fault=faults)
    for code, told in found:
        assert (code, told["same"]) == (0, True), found
        (note,) = [note for note in told["notes"] if "audited" in note]
        assert ("left whole" in note) == ("other numbers" in told["error"]) == is_wrong
        assert told["cuts"] == (0 if is_wrong else 1)
    ours, theirs = (next(n for n in told["notes"] if "audited" in n) for _, told in found)
    assert re.findall(r"\d of \d outputs", ours) == re.findall(r"\d of \d outputs", theirs)


@pytest.mark.slow
def test_another_choice_of_auditing_is_an_error_on_both():
    found, _ = run(size=2, step="audited", pipeline=CUT_EXCHANGES, audit=["first", False])
    check_all_failed(found, "audit: 'first' on process 0, 'False' on process 1")


@pytest.mark.slow
def test_another_cut_is_an_error_on_both():
    found, _ = run(size=2, step="model", pipeline=SPLIT, fault=["", "parts"])
    check_all_failed(found, "plans: '", "process 0 has", "process 1 has")


@pytest.mark.slow
def test_another_order_is_an_error_on_all_before_the_step_runs():
    found, _ = run(size=4, fault=["", "", "", "order"])
    check_all_failed(found, "plan: '", "process 0 has", "process 3 has")


@pytest.mark.slow
def test_a_process_that_could_not_plan_is_an_error_on_both():
    found, _ = run(size=2, fault=["error", ""], on_unsupported="ignore")
    check_all_failed(found, "left as it was", "division by zero")


@pytest.mark.slow
def test_the_first_plans_for_all():
    found, _ = run(size=2, plan_on="first", fault=["", "no planning"])
    check_all_ran(found)


@pytest.mark.slow
def test_where_the_first_cannot_plan_all_run_the_step_as_it_is():
    found, _ = run(size=2, plan_on="first", fault=["error", ""], on_unsupported="ignore")
    for code, said in found:
        assert (code, said["same"], said["plan"]) == (0, True, None)
        assert "division by zero" in said["error"]


@pytest.mark.slow
@pytest.mark.parametrize("plan_on", ["every", "first"])
def test_a_hit_in_one_process_and_a_miss_in_the_other(tmp_path, plan_on):
    folders = [str(tmp_path / name) for name in "ab"]
    cold, _ = run(size=2, cache=folders, plan_on=plan_on)
    warm, _ = run(size=2, cache=folders, plan_on=plan_on)
    for found in (cold, warm):
        check_all_ran(found)
    assert [said["hits"] for _, said in cold] == [0, 0]
    assert [said["hits"] for _, said in warm] == [1, 0]
    assert warm[0][1]["plan"] == cold[0][1]["plan"]


@pytest.mark.slow
def test_one_process_may_compile_once_more_and_earlier():
    found, _ = run(size=2, compile_twice=[True, False], fault=["", "late"])
    check_all_ran(found)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["silent", "dead"])
def test_a_process_that_never_compiles_ends_the_job_in_time(fault):
    found, seconds = run(size=2, timeout=2, fault=["", fault])
    check_all_failed(found[:1], "process 1 did not come to compile it in 2 s")
    assert found[0][1]["seconds"] < 10
    assert found[1][0] != 0
    assert seconds < 60


# ---------------------------------------------------------------------------- the meeting alone


class FakeService:
    """JAX's coordination service, in this process."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set_bytes(self, key, value, overwrite):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get_bytes(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, milliseconds / 1e3):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: no such key")
            return self.values[key]


@pytest.fixture
def peers():
    service = FakeService()
    members = (0, 1, 2)
    return [Peers(JobStore(service, rank), members, "step", "here", 0.3) for rank in members]


def meet(peers, facts):
    """Let every member bring its facts, and return the error of each, or None."""
    errors = {}

    def come(rank):
        try:
            peers[rank].agree("program", facts[rank])
            errors[rank] = None
        except PeerError as error:
            errors[rank] = str(error)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in facts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_equal_facts_agree_and_are_not_asked_again(peers):
    same = {rank: {"plan": "a"} for rank in range(3)}
    assert meet(peers, same) == {0: None, 1: None, 2: None}
    assert meet(peers, {1: {"plan": "a"}}) == {1: None}


def test_programs_of_one_name_may_come_in_turn(peers):
    for plan in "ab":
        facts = {rank: {"plan": plan} for rank in range(3)}
        assert meet(peers, facts) == {0: None, 1: None, 2: None}


def test_all_get_the_same_error_and_it_names_who_differs(peers):
    errors = meet(peers, {0: {"plan": "a"}, 1: {"plan": "a"}, 2: {"plan": "b"}})
    assert len(set(errors.values())) == 1
    assert "process 0 has" in errors[0]
    assert "process 2 has" in errors[0]
    assert "plan: 'a' on process 0, 'b' on process 2" in errors[0]
    same = {rank: {"plan": "a"} for rank in range(3)}
    assert meet(peers, same) == {0: None, 1: None, 2: None}


def test_what_one_does_not_know_agrees_with_everything(peers):
    errors = meet(peers, {0: {"plan": ""}, 1: {"plan": "a", "why": "x"}, 2: {"plan": "a"}})
    assert set(errors.values()) == {None}


def test_who_never_comes_is_named_by_all(peers):
    errors = meet(peers, {0: {"plan": "a"}, 2: {"plan": "a"}})
    assert all("process 1 did not come" in error for error in errors.values())


def test_a_missing_first_process_is_named(peers):
    (error,) = meet(peers, {1: {"plan": "a"}}).values()
    assert "process 0 did not come" in error


def gather(peers, said):
    """Let every member say something, and return what each hears, or its error."""
    heard = {}

    def come(rank):
        try:
            heard[rank] = peers[rank].gather("audit", said[rank])
        except PeerError as error:
            heard[rank] = str(error)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard


def test_what_is_gathered_is_heard_by_all_and_asked_anew(peers):
    for said in ((b"a", b"b", b"c"), (b"a", b"b", b"d")):
        assert gather(peers, dict(enumerate(said))) == dict.fromkeys(range(3), said)


def test_who_does_not_come_to_be_heard_is_named_by_all(peers):
    heard = gather(peers, {0: b"a", 2: b"c"})
    assert all("process 1 did not come" in error for error in heard.values())


def test_a_decision_is_shipped_whole_or_its_error(peers):
    first, second = (SharedPlans(p, True) for p in peers[:2])
    first.leave("x", Decided(prices="v100"))
    assert first.made("x") is None
    assert second.made("x") == Decided(prices="v100")
    first.leave("y", Decided(error="no luck"))
    with pytest.raises(UnsupportedError, match="no luck"):
        second.made("y")
    assert SharedPlans(peers[1], False).made("x") is None


def test_a_coordinator_that_is_gone_is_an_error(peers):
    class Gone:
        def key_value_set_bytes(self, *args):
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: connection refused")

    with pytest.raises(PeerError, match="coordinator does not answer"):
        JobStore(Gone(), 0).set("key", b"")


def test_the_order_of_exchanges_shows_and_that_of_compute_does_not():
    lines = ["  %s = f32[4] sine(%x)", "  %c = f32[4] cosine(%x)",
             "  %a = f32[4] all-to-all(%x)", "  %b = f32[4] all-reduce(%x)"]  # fmt: skip

    def text(order):
        body = "\n".join(lines[i] for i in order)
        return (f"HloModule m, is_scheduled=true\n\nENTRY %main (x: f32[4]) -> f32[4] {{\n"
                f"  %x = f32[4] parameter(0)\n{body}\n}}\n")  # fmt: skip

    assert exchange_order(text([0, 1, 2, 3])) == exchange_order(text([1, 2, 0, 3]))
    assert exchange_order(text([0, 1, 2, 3])) != exchange_order(text([0, 1, 3, 2]))
