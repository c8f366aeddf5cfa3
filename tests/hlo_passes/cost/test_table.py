"""Tables: lookup, what is refused, and files."""

import msgspec
import pytest

from hlo_passes.cost.model import CostSource
from hlo_passes.cost.table import CostTable, ExchangeTimes, OpTime
from hlo_passes.errors import InputError

A2A = ExchangeTimes(kind="all_to_all", group_size=8, points=((1000, 10.0), (3000, 30.0)))
DOT = OpTime(kind="dot_general", operands=("bf16[8,4]", "bf16[4,2]"), dtype="bf16", us=7.0)


def table(**fields):
    given = {"source": "measured", "target": "h100:1x8", "date": "2026-11-24"}
    return CostTable(**(given | fields))


def test_exchanges_are_found_by_kind_group_and_nodes():
    found = table(exchanges=(A2A, msgspec.structs.replace(A2A, nodes=2, points=((1000, 99.0),))))
    assert found.exchange_us("all_to_all", 8, 1, 2000) == 20
    assert found.exchange_us("all_to_all", 8, 2, 1000) == 99
    assert found.exchange_us("all_to_all", 4, 1, 2000) is None
    assert found.exchange_us("all_reduce", 8, 1, 2000) is None


def test_ragged_exchanges_take_dense_times_unless_they_have_their_own():
    assert table(exchanges=(A2A,)).exchange_us("ragged_all_to_all", 8, 1, 1000) == 10
    own = msgspec.structs.replace(A2A, kind="ragged_all_to_all", points=((1000, 4.0),))
    both = table(exchanges=(A2A, own))
    assert both.exchange_us("ragged_all_to_all", 8, 1, 1000) == 4
    assert both.exchange_us("all_to_all", 8, 1, 1000) == 10


def test_ops_are_found_by_their_operands():
    found = table(ops=(DOT,))
    assert found.op_us("dot_general", ("bf16[8,4]", "bf16[4,2]"), "bf16") == 7
    assert found.op_us("dot_general", ("bf16[8,4]", "bf16[4,3]"), "bf16") is None
    assert found.op_us("dot_general", ("bf16[8,4]", "bf16[4,2]"), "f32") is None


def test_only_measured_tables_say_measured():
    assert table().cost_source is CostSource.MEASURED
    assert table(source="xla").cost_source is CostSource.XLA


def test_files_round_trip_and_leave_no_scratch(tmp_path):
    first = table(exchanges=(A2A,), ops=(DOT,), versions={"jax": "0.12"}, note="idle machine")
    first.save(tmp_path / "costs.json")
    assert CostTable.load(tmp_path / "costs.json") == first
    assert [path.name for path in tmp_path.iterdir()] == ["costs.json"]
    assert (tmp_path / "costs.json").read_bytes() == first.to_json()


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "costs.json"
    table(exchanges=(A2A,)).save(path)
    with pytest.raises(InputError, match="twice"):
        table(exchanges=(A2A, A2A)).save(path)
    assert CostTable.load(path).exchanges == (A2A,)
    with pytest.raises(InputError, match="No such file"):
        table().save(tmp_path / "nowhere" / "costs.json")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"exchanges": (A2A, A2A)}, "stands there twice"),
        ({"ops": (DOT, DOT)}, "stands there twice"),
        ({"ops": (msgspec.structs.replace(DOT, us=-1.0),)}, "is no time"),
        ({"exchanges": (msgspec.structs.replace(A2A, kind="gossip"),)}, "no exchange of that kind"),
        ({"exchanges": (msgspec.structs.replace(A2A, group_size=1),)}, "no such group"),
        ({"exchanges": (msgspec.structs.replace(A2A, nodes=9),)}, "no such group"),
        ({"exchanges": (msgspec.structs.replace(A2A, points=()),)}, "no points"),
        (
            {"exchanges": (msgspec.structs.replace(A2A, points=((1, 10.0), (2, 7.0))),)},
            "less time than a smaller payload",
        ),
    ],
)
def test_nonsense_is_refused_with_its_place_and_a_remedy(fields, message):
    with pytest.raises(InputError, match=message) as caught:
        table(**fields).check("costs.json")
    assert caught.value.where.startswith("costs.json")
    assert caught.value.remedy


def test_an_estimate_may_dip_and_a_measurement_a_little():
    dip = msgspec.structs.replace(A2A, points=((1, 10.0), (2, 2.0)))
    table(source="xla", exchanges=(dip,)).check()
    table(exchanges=(msgspec.structs.replace(A2A, points=((1, 10.0), (2, 9.0))),)).check()


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"source": "guessed"}'])
def test_what_is_no_table_is_refused(text, tmp_path):
    path = tmp_path / "costs.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match="not a cost table"):
        CostTable.load(path)


def test_unknown_fields_and_missing_files_are_refused(tmp_path):
    extra = table().to_json().replace(b'"note"', b'"remark"')
    with pytest.raises(InputError, match="remark"):
        CostTable.from_json(extra)
    with pytest.raises(InputError, match="No such file"):
        CostTable.load(tmp_path / "none.json")
