"""What `inspect`, `plan` and `opt` share: a module file, a target, a place to print."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hlo_passes.base import AnyModule
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.dumps import load
from hlo_passes.ir.graph import Graph


def read(path: Path, target: str | None) -> tuple[AnyModule, Graph, TargetCosts]:
    """Read a module file and price it for a target.

    Args:
        path: see `hlo_passes.ir.dumps.load`.
        target: `h100:1x8`; by default as many H100 as the module has devices, 8 to a node.

    Raises:
        LancetError: if the file or the target is unfit.
    """
    costs = TargetCosts(target=parse_target(target)) if target else None
    with working(f"reading {path}"):
        module = load(path)
        graph = module.snapshot()
    if costs is None:
        count = max(graph.devices, *(max(map(max, g), default=0) + 1 for g in _groups(graph)), 1)
        nodes = -(-count // 8)
        costs = TargetCosts(target=parse_target(f"h100:{nodes}x{-(-count // nodes)}"))
    return module, graph, costs.for_graph(graph)


def _groups(graph: Graph) -> Iterator[tuple[tuple[int, ...], ...]]:
    yield ()
    for inside, _ in graph.walk():
        for exchange in inside.exchanges:
            collective = inside.ops[exchange].collective
            if collective is not None and collective.groups:
                yield collective.groups


def stdout() -> Console:
    """Return a console for results: 80 columns and plain in a pipe."""
    is_terminal = sys.stdout.isatty()
    return Console(width=None if is_terminal else 80, highlight=False)


def print_json(data: dict[str, Any]) -> None:
    """Print a result as JSON."""
    print(json.dumps(data, indent=1, sort_keys=True))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that something takes its time, if a person is looking."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield
