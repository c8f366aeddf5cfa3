"""The rules of the house, kept by machines."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("hlo_passes/**/*.py")])
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports"],
        ["pyrefly", "check", "--python-interpreter-path", sys.executable],
    ],
    ids=lambda c: " ".join(c[:2]),
)
def test_tools(command):
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_nothing_writes_the_environment():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            assert not any("environ" in ast.unparse(t) for t in targets), path


def test_importing_does_nothing_but_import():
    code = (
        "import sys, os; before = dict(os.environ); import lancet_jax, jax._src.xla_bridge as b;"
        "assert not b.backends_are_initialized(); assert dict(os.environ) == before;"
        "import jax._src.compiler as c; assert c.compile_or_get_cached.__module__ == c.__name__;"
        "assert 'flax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
