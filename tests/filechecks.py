"""Runs a small `.mlir` or `.hlo` file through passes and FileCheck, all in this process."""

import re
from pathlib import Path

from filecheck.matcher import Matcher
from filecheck.options import Options

from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.files import load
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import parse_pipeline
from hlo_passes.reorder_scheduled import at_post_scheduler


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
    module = load(path)
    for step in parse_pipeline(pipeline).passes:
        graph = module.snapshot()
        costs = TargetCosts(parse_target(target)).for_graph(graph)
        chosen = at_post_scheduler(step) if isinstance(module, ScheduledModule) else step
        whole = module if isinstance(module, Module) else None
        ragged = not (target or "").startswith("cpu")
        context = Context(costs=costs, fingerprint=module.fingerprint, module=whole, ragged=ragged)
        plan = chosen.plan(graph, context)
        module = chosen.apply(module, plan).module
    return module.text() if isinstance(module, Module) else module.text
