"""Runs a small `.mlir` or `.hlo` file through passes and FileCheck, all in this process."""

import re
from pathlib import Path

from filecheck.matcher import Matcher
from filecheck.options import Options

from hlo_passes.base import Job
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.files import load
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import parse_pipeline


def check_file(path: Path, scratch: Path) -> None:
    """Run the passes of the `// RUN:` line and match the CHECK lines of the same file.

    A RUN line reads `RUN: PIPELINE [target]`.
    """
    pipeline, target = re.search(r"RUN: (\S+)(?: (\S+))?", path.read_text()).groups()
    out = scratch / "out.txt"
    out.write_text(rewritten(path, pipeline, target or "h100:1x8"))
    options = Options(match_filename=str(path), input_file=str(out))
    assert Matcher.from_opts(options).run() == 0, out.read_text()


def rewritten(path: Path, pipeline: str, target: str) -> str:
    """Return the module that the passes leave, as text."""
    costs = TargetCosts(parse_target(target))
    job = Job(costs=costs, ragged=not target.startswith("cpu"))
    module, _ = parse_pipeline(pipeline).run(load(path), job)
    return module.text() if isinstance(module, Module) else module.text
