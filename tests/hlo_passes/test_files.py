"""One small file in and out per rewrite."""

from pathlib import Path

import pytest

from tests.filechecks import check_file

FILES = sorted(p for p in Path(__file__).parent.glob("*/*.*") if p.suffix in (".mlir", ".hlo"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_file(path, tmp_path):
    check_file(path, tmp_path)
