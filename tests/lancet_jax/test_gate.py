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
    from lancet_jax.report.gate import Limit, Offence

    verdict = Limit("exposed", False, "a\x00<&\x1b>", 1.0, 0.0, (Offence("k", "n", "", "\x07"),))
    root = ElementTree.fromstring(junit("m\x01", [verdict]))
    assert root[0][0][0].get("message") == "a?<&?>"


_SPREAD = '#sdy.sharding<@mesh, [{"ep"}, {}]>'
_DOT = "stablehlo.dot_general {}, {}, contracting_dims = [1] x [0]"
_AUTO = f"""module @step attributes {{mhlo.num_partitions = 8 : i32}} {{
  sdy.mesh @mesh = <["ep"=8]>
  func.func public @main(%x: tensor<16x32xf32> {{sdy.sharding = {_SPREAD}}},
                         %w: tensor<32x32xf32>) -> tensor<16x32xf32> {{
    %y = {_DOT.format("%x", "%w")} : (tensor<16x32xf32>, tensor<32x32xf32>) -> tensor<16x32xf32>
    return %y : tensor<16x32xf32>
  }}
}}
"""
_GLOBAL_HLO = """HloModule jit_step, num_partitions=8

ENTRY %main (x: f32[16,32], w: f32[32,32]) -> f32[16,32] {
  %x = f32[16,32]{1,0} parameter(0), sharding={devices=[8,1]<=[8]}
  %w = f32[32,32]{1,0} parameter(1), sharding={replicated}
  %y = f32[16,32]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %z = f32[16,32]{1,0} custom-call(%y), custom_call_target="Sharding", sharding={replicated}
}
"""
_LOCAL_HLO = """HloModule jit_step, num_partitions=8

%inside (x: f32[2,32], w: f32[32,32]) -> f32[2,32] {
  %x = f32[2,32]{1,0} parameter(0)
  %w = f32[32,32]{1,0} parameter(1)
  ROOT %y = f32[2,32]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (x: f32[16,32], w: f32[32,32]) -> f32[16,32] {
  %x = f32[16,32]{1,0} parameter(0)
  %w = f32[32,32]{1,0} parameter(1)
  %in = (f32[2,32]{1,0}, f32[32,32]{1,0}) custom-call(%x, %w), custom_call_target="xla.sdy.GlobalToLocalShape"
  %lx = f32[2,32]{1,0} get-tuple-element(%in), index=0
  %lw = f32[32,32]{1,0} get-tuple-element(%in), index=1
  %y = f32[2,32]{1,0} call(%lx, %lw), to_apply=%inside
  ROOT %z = f32[16,32]{1,0} custom-call(%y), custom_call_target="xla.sdy.LocalToGlobalShape"
}
"""


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("auto.mlir", _AUTO, 2),
        ("no_count.mlir", _AUTO.replace("mhlo.num_partitions = 8 : i32", ""), 2),
        ("one.mlir", _AUTO.replace("= 8", "= 1"), 0),
        ("global.txt", _GLOBAL_HLO, 2),
        ("local.txt", _LOCAL_HLO, 0),
        ("partitioned.txt", _GLOBAL_HLO.replace('"Sharding", sharding={replicated}', '"other"'), 0),
    ],
)
def test_a_step_that_is_not_partitioned_is_no_step_that_keeps_limits(
    name, text, code, tmp_path, capsys
):
    path = tmp_path / name
    path.write_text(text)
    for limit in (["--max-exposed", "50%"], ["--max-memory", "80GiB"]):
        assert run(["check", str(path), *limit]) == code
        said = capsys.readouterr()
        if code:
            assert not said.out
            assert f"{name}: XLA has yet to partition it" in said.err
            assert "try: check what was compiled: lower(...).compile().as_text()" in said.err
