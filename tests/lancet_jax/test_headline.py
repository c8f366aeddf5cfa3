"""A report in one line, and why things were left: each reason once."""

from dataclasses import replace

import pytest

from hlo_passes.plans import Plan, Prediction, Refusal, Split
from lancet_jax.errors import UnsupportedError
from lancet_jax.report.headline import headline
from lancet_jax.report.reasons import grouped_notes, reasons_of
from lancet_jax.report.report import Report
from tests.reports import alone, quiet, small

NOTHING = Plan(module="", target="h100:1x8")


def run_of(step_us):
    return Prediction(step_us=step_us, compute_us=0.0, exchange_us=0.0, exposed_us=0.0,
                      exposed_all_to_all_us=0.0, peak_bytes=0)  # fmt: skip


def cut_by(*ks, strategy="full k=2", along="tokens", **more):
    splits = tuple(
        Split(by="split-region", block="main", first=0, last=1, k=k, along=along) for k in ks
    )
    return Plan(module="", target="", passes=("choose-split",), strategy=strategy, edits=splits,
                **more)  # fmt: skip


def compiled(report):
    """The same, as if XLA had made it."""
    return replace(report, after=replace(report.after, source="compiled"))


def test_a_new_order():
    assert headline(small()) == (
        "runs: re-ordered (greedy), 36 us, 26% shorter than 49; 11 us of exchange stay exposed: "
        "all work that may run beside it does, and is not enough; only splitting would help"
    )


def test_it_comes_first_in_every_rendering():
    report = small()
    assert str(report).partition("\n")[0] == headline(report) == report.to_dict()["headline"]
    assert f'<p id="headline">{headline(report)}</p>' in report.to_html()


def test_a_cut():
    report = replace(small(), cuts=(cut_by(2),))
    assert headline(report).startswith("runs: cut into 2 parts (full), 36 us, 26% shorter than 49;")
    both = replace(report, cuts=(cut_by(4, 2, strategy="k=4"),))
    assert headline(both).startswith("runs: cut into 2 and 4 parts (choose-split), 36 us")
    loops = replace(report, cuts=(cut_by(2, strategy="loops k=2", along="trips"),))
    assert headline(loops).startswith("runs: loops run 2 trips at a time (loops), 36 us")


def test_what_was_left_is_said_instead_of_why_exchanges_are_exposed():
    left = "full takes 30 us, and needs 2.0 MB more: memory-slack=0.3 allows that"
    assert headline(replace(small(), left=left)) == (
        f"runs: re-ordered (greedy), 36 us, 26% shorter than 49; "
        f"11 us of exchange stay exposed; {left}"
    )


def test_left_whole_for_memory():
    reason = "k=2 needs 9.0 MB of temporaries (estimated), and 8.0 MB are allowed"
    plan = Plan(module="", target="", race={"k=2": run_of(30.0)}, before=run_of(49.0),
                after=run_of(49.0), refusals=(Refusal(op="main", reason=reason),))  # fmt: skip
    report = replace(alone(small()), plan=plan)
    assert headline(report) == (
        "runs: as it was, 49 us; 24 us of exchange stay exposed; "
        f"k=2 was predicted to take 30 us, not 49: {reason}"
    )
    assert "predicted" not in headline(compiled(report))


def test_a_cut_that_was_asked_for():
    plan = cut_by(2, strategy="k=2", because="was asked for", race={"k=2": run_of(60.0)},
                  before=run_of(49.0), after=run_of(60.0))  # fmt: skip
    report = replace(small(), plan=plan, before=small().after, after=small().before)
    assert headline(report) == (
        "runs: cut into 2 parts (choose-split), 49 us, 35% longer than 36; "
        "24 us of exchange stay exposed; "
        "uncut was predicted to take 49 us, not 60: k=2 was asked for"
    )


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("one device: there is nothing to exchange",) * 2,
        (f"left as it was: {UnsupportedError('step', 'planted', 'mend it')}",
         "left as it was: step: planted try: mend it"),
    ],
)  # fmt: skip
def test_nothing_planned(note, said):
    report = replace(alone(small()), plan=None, notes=("partitioned first", note))
    expected = f"runs: as it was, 49 us; 24 us of exchange stay exposed; {said}"
    assert headline(report) == expected


def test_nothing_to_hide_and_nothing_exposed():
    assert headline(quiet()) == "runs: as it was, 2 us; it has no exchange to hide"
    report = small()
    (window,) = report.after.windows
    after = replace(report.after, windows=(replace(window, exposed_us=0.0),))
    assert headline(replace(report, after=after)).endswith(
        "shorter than 49; every exchange is hidden"
    )


def test_a_reason_is_said_once():
    notes = [f"jit(step)/layer_{i}/moe/all_to_all#{i} stays whole: no dim /a/b.py:{i % 2}"
             for i in range(48)]  # fmt: skip
    (note,) = grouped_notes(notes)
    assert str(note) == "note on 48 ops: stays whole: no dim (b.py:0, b.py:1)"
    report = replace(small(), notes=(*notes, "another"))
    assert str(report).count("stays whole") == 1
    assert [r.text for r in reasons_of(report)][1:] == ["stays whole: no dim", "another"]
    said = grouped_notes(["one", "main two", "main/while.3/1 two", "mainly three"])
    assert list(map(str, said)) == ["note: one", "note on 2 ops: two", "note: mainly three"]


def test_the_most_exposed_comes_first():
    report = small()
    (window,) = report.after.windows
    other = replace(window, key="other#0", exposed_us=100.0, times=2)
    refusals = (Refusal(op=window.key, reason="exposed: little", source="/a/b.py:1"),
                Refusal(op="other#0", reason="partly exposed: much"),
                Refusal(op="gone#0", reason="stays whole"))  # fmt: skip
    after = replace(report.after, windows=(window, other))
    report = replace(report, after=after, plan=Plan(module="", target="", refusals=refusals))
    assert [str(reason) for reason in reasons_of(report)] == [
        "exposed, 1 exchange, 200 us: much",
        "exposed, 1 exchange, 11 us: little (b.py:1)",
        "left alone, 1: stays whole",
    ]
    assert "; 211 us of exchange stay exposed, 200 of them: much" in headline(report)


def test_a_report_stays_a_report():
    assert type(replace(small(), left="x")) is Report
    assert type(Report.of_plan("a", small().stock.graph, small().stock.costs, NOTHING)) is Report
