"""The command line, in this process."""

import io
import json

import jax
import pytest

from hlo_passes.ir.files import load
from hlo_passes.plans import Plan
from lancet_jax.cli.app import run
from tests.hlo import STEP, scheduled
from tests.steps import CASES

TOY = """HloModule toy, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %a = f32[4]{0} negate(%x)
}
"""


@pytest.fixture(scope="module")
def lowered():
    case = CASES["scatter"](jax.devices())
    return jax.jit(case.step, **case.jit_kwargs).lower(*case.args)


@pytest.fixture(scope="module")
def files(lowered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    module = lowered.compiler_ir()
    bytecode = io.BytesIO()
    module.operation.write_bytecode(bytecode)
    final = lowered.compile().runtime_executable().hlo_modules()[0]
    proto = final.as_serialized_hlo_module_proto()
    wrapped = b"\x0a" + _varint(len(proto)) + proto
    contents = {
        "step.mlir": lowered.as_text().encode(),
        "located.mlir": lowered.as_text(debug_info=True).encode(),
        "step.mlirbc": bytecode.getvalue(),
        "unscheduled.txt": lowered.as_text("hlo").encode(),
        "scheduled.txt": final.to_string().encode(),
        "step.hlo.pb": wrapped,
        "module.pb": proto,
        "gpu.txt": STEP.encode(),
        "quiet.txt": TOY.encode(),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def _varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


FORMS = ["step.mlir", "located.mlir", "step.mlirbc", "unscheduled.txt", "scheduled.txt",
         "step.hlo.pb", "module.pb", "gpu.txt", "quiet.txt"]  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_inspect_reads_every_form(files, name, capsys):
    assert run(["inspect", str(files / name), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    if name != "quiet.txt":
        assert any(e["kind"] == "all_to_all" for e in facts["exchanges"])
        assert facts["exchange_us"] > 0
    assert facts["exposed_us"] >= facts["bound_exposed_us"] - 1e-6


@pytest.mark.parametrize("name", FORMS)
def test_inspect_prints_80_columns_without_colour(files, name, capsys):
    assert run(["inspect", str(files / name)]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "\x1b" not in out


@pytest.mark.parametrize("name", FORMS)
def test_plan_then_opt_then_replay(files, name, tmp_path, capsys):
    plan, first, second = (tmp_path / n for n in ("plan.json", "a.txt", "b.txt"))
    options = ["--target", "v100:1x8", "-p", "schedule-dw{memory-slack=10}"]
    assert run(["plan", str(files / name), "-o", str(plan), *options]) == 0
    assert run(["opt", str(files / name), "-o", str(first), *options]) == 0
    assert run(["opt", str(files / name), "-o", str(second), "--plan", str(plan)]) == 0
    assert first.read_text() == second.read_text()
    before, after = load(files / name).snapshot(), load(first).snapshot()
    assert sorted(o.kind for o in before.ops) == sorted(o.kind for o in after.ops)
    assert Plan.load(plan).changes == (
        [o.kind for o in before.ops] != [o.kind for o in after.ops]
        or load(files / name).fingerprint != load(first).fingerprint
    )
    capsys.readouterr()


def test_pin_order_from_the_command_line(files, tmp_path, capsys):
    out = tmp_path / "out.mlir"
    spec = "schedule-dw{memory-slack=10},pin-order"
    command = ["opt", str(files / "step.mlir"), "-p", spec, "-o", str(out), "--target", "v100:1x8",
               "--json"]  # fmt: skip
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["changed"]
    assert "optimization_barrier" in out.read_text()


def test_opt_prints_without_output(files, capsys):
    assert run(["opt", str(files / "gpu.txt"), "-p", "off"]) == 0
    assert capsys.readouterr().out.strip() == STEP.strip()


def test_doctor(capsys):
    assert run(["doctor", "--json"]) == 0
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["post-scheduler stage: cpu"]["ok"]
    assert run(["doctor"]) == 0
    assert "works" in capsys.readouterr().out


LOOP = scheduled("  %a = f32[] negate(%b)\n  %b = f32[] negate(%a)\n  ROOT %r = f32[] add(%a, %b)")

BAD = {
    "empty": (b"", "the file is empty"),
    "prose": (b"Dear reader,\n", "neither StableHLO nor HLO"),
    "binary": (bytes(range(256)) * 4, "neither text nor a protobuf"),
    "cut.txt": (STEP[: STEP.index("ROOT")].encode(), "truncated"),
    "cyclic.txt": (LOOP.encode(), "reads b, which no line before it defines"),
    "cut.mlir": (b"module {\n  func.func @main(", "2:"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["inspect", "plan", "opt"])
def test_bad_files_end_in_one_message(tmp_path, name, command, capsys):
    data, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    out = [] if command == "inspect" else ["-o", str(tmp_path / "out")]
    check_error(run([command, str(path), *out]), capsys, message, str(path))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing.txt"], "No such file"),
        (["inspect", "."], "no module in this folder"),
        (["inspect", "{gpu}", "--target", "k80:1x8"], "k80"),
        (["inspect", "{gpu}", "--target", "h100:1by8"], "h100:1by8"),
        (["plan", "{gpu}", "-p", "faster"], "faster"),
        (["plan", "{gpu}", "-p", "schedule-dw{speed=1}"], "speed"),
        (["plan", "{gpu}", "-p", "schedule-dw,pin-order"], "one pass"),
        (["plan", "{gpu}", "-o", "no/such/folder/plan.json"], "No such file"),
        (["opt", "{gpu}", "-p", "pin-order"], "barriers go into StableHLO"),
        (["opt", "{gpu}", "--plan", "{mlir}"], "not a plan"),
        (["frobnicate"], "frobnicate"),
        (["inspect"], "requires an argument"),
    ],
)
def test_mistakes_end_in_one_message(files, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"gpu": files / "gpu.txt", "mlir": files / "step.mlir"}
    filled = [a.format(**names) if a in ("{gpu}", "{mlir}") else a for a in arguments]
    check_error(run(filled), capsys, message)
    assert list(tmp_path.iterdir()) == []


def test_a_stale_plan_is_refused(files, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    assert run(["plan", str(files / "gpu.txt"), "-o", str(plan)]) == 0
    capsys.readouterr()
    code = run(
        ["opt", str(files / "scheduled.txt"), "--plan", str(plan), "-o", str(tmp_path / "o")]
    )
    check_error(code, capsys, "made for module")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def check_error(code, capsys, *parts):
    """One message on stderr with the place and a remedy, nothing on stdout, exit code 2."""
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "try: " in printed.err
    assert "Traceback" not in printed.err
    for part in parts:
        assert part in printed.err
