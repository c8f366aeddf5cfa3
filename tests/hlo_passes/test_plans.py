import pytest

from hlo_passes.errors import InputError, PlanError
from hlo_passes.plans import Move, Pin, Plan, Refusal, Split, Stream, reorders
from hlo_passes.schedule.drift import drift_of

PLAN = Plan(
    module="abc",
    target="h100:1x8",
    passes=("schedule-dw",),
    strategy="list",
    edits=(
        *reorders("schedule-dw", {"main": (1, 0), "body": (0,)}),
        Pin(by="pin-order", exchange=3, sinks=(1,)),
        Split(by="split-region", block="main", first=0, last=1, k=2),
        Stream(by="separate-tiers", block="main", exchanges=(3,)),
    ),
    moves=(Move(op="a#0", beside="b#0", us=1.5, reason="r"),),
    refusals=(Refusal(op="c#0", reason="why", source="f.py:1"),),
)


def test_save_load_is_the_identity(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_equal_plans_have_equal_bytes_and_hashes():
    again = Plan.from_json(PLAN.to_json())
    other = Plan(
        module="abc", target="h100:1x8", edits=reorders("x", {"body": (0,), "main": (1, 0)})
    )
    same = Plan(
        module="abc", target="h100:1x8", edits=reorders("x", {"main": (1, 0), "body": (0,)})
    )
    assert again.to_json() == PLAN.to_json()
    assert other.hash == same.hash != PLAN.hash


def test_another_module_is_refused():
    PLAN.check("abc")
    with pytest.raises(PlanError, match="made for module abc, but this module is xyz"):
        PLAN.check("xyz")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not a plan"),
        (b'{"module": 3, "target": "x"}', "module"),
        (b'{"module": "a", "target": "x", "schema": 99}', "schema 99"),
    ],
)
def test_damage_names_the_file(data, message, tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        Plan.load(path)
    assert str(path) in str(caught.value)


def test_nothing_half_written(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        PLAN.save(tmp_path / "missing" / "plan.json")
    with pytest.raises(InputError, match="No such file"):
        Plan.load(tmp_path / "missing.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("planned", "final", "moved", "missing"),
    [
        ("abcd", "abcd", 0, 0),
        ("abcd", "axbycd", 0, 0),
        ("abcd", "acbd", 1, 0),
        ("abcd", "dabc", 1, 0),
        ("abcd", "ad", 0, 2),
        ("abcde", "edcba", 4, 0),
    ],
)
def test_drift(planned, final, moved, missing):
    drift = drift_of({"main": tuple(planned)}, {"main": tuple(final)})
    assert (drift.moved, drift.missing) == (moved, missing)
    assert bool(drift) == (moved > 0)
