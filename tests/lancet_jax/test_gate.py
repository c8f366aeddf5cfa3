"""`lancet-jax check`: limits, exit codes, and files for continuous integration."""

import json
from xml.etree import ElementTree

import pytest

from lancet_jax.cli.app import run
from tests.hlo import STEP


@pytest.fixture
def step(tmp_path):
    path = tmp_path / "step.txt"
    path.write_text(STEP)
    return path


def checked(step, capsys, *options):
    code = run(["check", str(step), *options, "--json"])
    return code, json.loads(capsys.readouterr().out)["verdicts"]


def test_limits_are_kept_or_broken(step, capsys):
    code, (verdict,) = checked(step, capsys, "--max-exposed", "100%")
    assert code == 0
    assert verdict["ok"]
    assert verdict["offences"] == []
    exposed = verdict["value"]
    assert exposed > 0
    for limit, code in ((f"{exposed - 0.01}us", 1), (f"{exposed + 0.01}us", 0), ("0%", 1)):
        assert checked(step, capsys, "--max-exposed", limit)[0] == code


def test_offenders_have_lines(step, capsys):
    _, (verdict,) = checked(step, capsys, "--max-exposed", "0%")
    (offence,) = verdict["offences"]
    assert offence["line"] == "model.py:7"
    assert offence["name"] == "a2a-start"
    assert run(["check", str(step), "--max-exposed", "0%"]) == 1
    assert "model.py:7: fwd dispatch" in capsys.readouterr().out


def test_memory_is_arguments_and_temporaries(step, capsys):
    _, (verdict,) = checked(step, capsys, "--max-memory", "1GiB")
    arguments = 3 * 8 * 64 * 2
    assert verdict["value"] >= arguments
    exact = verdict["value"]
    assert checked(step, capsys, "--max-memory", f"{exact:.0f}B")[0] == 0
    code, (verdict,) = checked(step, capsys, "--max-memory", f"{exact - 1:.0f}B")
    assert code == 1
    assert verdict["offences"]


def test_junit_has_what_readers_ask_for(step, tmp_path, capsys):
    path = tmp_path / "junit.xml"
    options = ["--max-exposed", "0%", "--max-memory", "1GiB", "--junit", str(path)]
    assert run(["check", str(step), *options]) == 1
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    assert {"name", "tests", "failures", "errors"} <= suite.attrib.keys()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    cases = {case.get("name"): case for case in suite}
    assert all({"name", "classname", "time"} <= case.attrib.keys() for case in suite)
    (failure,) = cases["exposed"]
    assert failure.tag == "failure"
    assert "model.py:7" in failure.text
    assert failure.get("message")
    assert [child.tag for child in cases["memory"]] == ["system-out"]
    capsys.readouterr()


def test_sarif_has_what_its_schema_requires(step, tmp_path, capsys):
    path = tmp_path / "log.sarif"
    assert run(["check", str(step), "--max-exposed", "0%", "--sarif", str(path)]) == 1
    log = json.loads(path.read_text())
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (one,) = log["runs"]
    driver = one["tool"]["driver"]
    assert driver["name"] == "lancet-jax"
    (result,) = one["results"]
    rule = driver["rules"][result["ruleIndex"]]
    assert rule["id"] == result["ruleId"]
    assert result["message"]["text"]
    (location,) = result["locations"]
    place = location["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "model.py"
    assert place["region"]["startLine"] == 7
    capsys.readouterr()


def test_a_passed_check_leaves_no_results(step, tmp_path, capsys):
    path = tmp_path / "log.sarif"
    assert run(["check", str(step), "--max-exposed", "100%", "--sarif", str(path)]) == 0
    assert json.loads(path.read_text())["runs"][0]["results"] == []
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no limit to check"),
        (["--max-exposed", "15"], "no number with one of"),
        (["--max-exposed", "70GiB"], "no number with one of"),
        (["--max-memory", "15%"], "--max-memory '15%': is no size"),
        (["--max-memory", "-1GiB"], ""),
        (["--max-exposed", "1%", "--junit", "no/such/folder/x.xml"], "No such file"),
    ],
)
def test_mistakes(step, options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["check", str(step), *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["step.txt"]


def test_odd_characters_make_legal_xml():
    from lancet_jax.report.ci import junit
    from lancet_jax.report.gate import Offence, Verdict

    verdict = Verdict("exposed", False, "a\x00<&\x1b>", 1.0, 0.0, (Offence("k", "n", "", "\x07"),))
    root = ElementTree.fromstring(junit("m\x01", [verdict]))
    assert root[0][0][0].get("message") == "a?<&?>"
