"""The pages build without a warning, and every notebook runs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_pages_build_and_the_notebooks_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d",
         str(tmp_path / "trees"), "-D", "nb_execution_mode=force", "docs", str(tmp_path / "pages")],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    for notebook in (ROOT / "docs" / "notebooks").glob("*.md"):
        page = tmp_path / "pages" / "notebooks" / f"{notebook.stem}.html"
        assert "cell_output" in page.read_text(), notebook.name
