"""Damaged input of every form ends in one message and exit code 2, or is read."""

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hlo_passes.errors import InputError
from hlo_passes.ir.files import parse
from lancet_jax.cli.app import run
from scripts.hlo_facts import facts_of_ours
from tests.hlo import STEP
from tests.hlo_samples import PLAIN
from tests.steps import CASES

MANY = int(os.environ.get("LANCET_FUZZ_EXAMPLES", "40"))
FEW = max(4, MANY // 20)
"""Bytes that native parsers read cost a process each."""


class Seeds(dict):
    """Files by form; short when hypothesis prints a failure."""

    def __repr__(self):
        return f"Seeds({', '.join(self)})"


def seeds():
    case = CASES["scan_layers"](jax.devices())
    lowered = jax.jit(case.step).lower(*case.args)
    bytecode = io.BytesIO()
    lowered.compiler_ir().operation.write_bytecode(bytecode)
    exported = jax.export.export(jax.jit(lambda x: x @ x))(jax.ShapeDtypeStruct((8, 8), "float32"))
    final = lowered.compile().runtime_executable().hlo_modules()[0]
    return Seeds({
        "mlir": lowered.as_text(debug_info=True).encode(),
        "hlo": final.to_string().encode(),
        "gpu": STEP.encode(),
        "bytecode": bytecode.getvalue(),
        "portable": exported.mlir_module_serialized,
        "proto": final.as_serialized_hlo_module_proto(),
    })  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    return seeds()


@st.composite
def damage(draw):
    """A function that damages bytes: cuts, flips, deletes, repeats, or puts in noise."""
    kind = draw(st.sampled_from(["cut", "flip", "delete", "repeat", "insert"]))
    at = draw(st.floats(0, 1))
    noise = draw(st.binary(min_size=1, max_size=8))
    length = draw(st.integers(1, 400))

    def apply(data):
        i = int(at * (len(data) - 1))
        return {
            "cut": data[:i],
            "flip": data[:i] + noise + data[i + len(noise) :],
            "delete": data[:i] + data[i + length :],
            "repeat": data[:i] + data[i : i + length] + data[i:],
            "insert": data[:i] + noise + data[i:],
        }[kind]

    return apply


def survives(data, name="input", command=("inspect",)):
    """Whether a command reads `data`, after making sure that it ended well either way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([command[0], str(path), *command[1:]])
        assert code in (0, 2), (code, err.getvalue())
        assert (err.getvalue().count("error: ") >= 1) == (code == 2), err.getvalue()
        assert "Traceback" not in err.getvalue()
        if code == 2:
            assert out.getvalue() == ""
            assert err.getvalue().count("\n  try: ") == 1
        assert [p.name for p in Path(folder).iterdir()] == [name]
        return code == 0


def few(count):
    return settings(max_examples=count, deadline=60_000, derandomize=MANY == 40, database=None,
                    phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck))  # fmt: skip


@pytest.mark.parametrize("form", ["mlir", "hlo", "gpu"])
@few(MANY)
@given(hurt=st.lists(damage(), min_size=1, max_size=3))
def test_damaged_text(whole, form, hurt):
    data = whole[form]
    for apply in hurt:
        data = apply(data)
    survives(data)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["bytecode", "portable", "proto"])
@few(FEW)
@given(hurt=damage())
def test_damaged_bytes(whole, form, hurt):
    survives(hurt(whole[form]))


@few(MANY)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_noise(data):
    survives(data, command=("plan",))


PIECES = """
HloModule ENTRY %main ROOT %x = f32[4]{0} parameter(0) all-to-all( while( fusion( , { } ( )
body=%b calls=%c replica_groups={{0,1}} replica_groups=[2,4]<=[8] dimensions={0} bf16[0,9]
all-to-all-done( async-start( dot( lhs_contracting_dims={0} to_apply=%main -> tuple( %x#1
get-tuple-element( index=7 custom-call( scatter( opaque[] f33[2] (f32[2],s32[])
"""
WORDS = st.sampled_from([*PIECES.split(), "\n"])


@few(MANY)
@given(lines=st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=12))
def test_almost_hlo(lines):
    survives(("HloModule m, is_scheduled=true\n\nENTRY %main () -> f32[] {\n"
              + "\n".join(f"  {line}" for line in lines) + "\n}\n").encode())  # fmt: skip


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\{"known.*?\}\}|[\w.%\-]+=|[\w.%\-]+|->|<=|.|\n')
BLANKS = st.sampled_from([" ", "  ", "\n", "\n  ", "\t", "/* a */", " // b\n"])


@few(MANY)
@given(gaps=st.lists(st.tuples(st.floats(0, 1), BLANKS), min_size=1, max_size=6))
def test_blanks_between_words_change_nothing(gaps):
    words = _TOKEN.findall(PLAIN)
    for at, blank in gaps:
        words[int(at * (len(words) - 1))] += blank
    try:
        read = parse("".join(words).encode(), "x")
    except InputError:
        return
    assert not list(facts_of_ours(read).differences(facts_of_ours(parse(PLAIN.encode(), "x"))))


@pytest.mark.parametrize("command", ["inspect", "plan", "opt"])
@pytest.mark.parametrize("kind", ["loop", "empty", "hollow", "device", "pipe", "nul"])
def test_what_is_no_file(tmp_path, kind, command, capsys):
    path = tmp_path / "x"
    if kind == "loop":
        path.symlink_to(tmp_path / "y")
        (tmp_path / "y").symlink_to(path)
    elif kind == "empty":
        path.mkdir()
    elif kind == "hollow":
        path.mkdir()
        (path / "module_0001.jit_f.cpu_after_optimizations-live-range.txt").write_text("no module")
        (path / "z.txt").symlink_to(path / "z.txt")
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = "\0"
    assert run([command, str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("error: ") == 1


def test_a_huge_file_is_refused_unread(tmp_path, capsys):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    assert run(["inspect", str(path)]) == 2
    assert "no module" in capsys.readouterr().err
