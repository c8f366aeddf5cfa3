"""What `inspect`, `plan` and `opt` share: a module file, a target, a place to print."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hlo_passes.base import AnyModule, Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.dumps import load
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module

type Json = Annotated[bool, Parameter(negative="")]
"""The flag that every command has."""


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
    graph = replace(graph, devices=max(graph.devices, *_named_devices(graph)))
    if costs is None:
        nodes = -(-graph.devices // 8)
        costs = TargetCosts(target=parse_target(f"h100:{nodes}x{-(-graph.devices // nodes)}"))
    return module, graph, costs.for_graph(graph)


def context_of(module: AnyModule, costs: TargetCosts) -> Context:
    """Return what a pass may know of a module file.

    Rows are sent by ragged exchanges unless the target is a CPU, whose backend lacks them.
    """
    return Context(
        costs=costs,
        fingerprint=module.fingerprint,
        module=module if isinstance(module, Module) else None,
        ragged=costs.target.profile.name != "cpu",
    )


def _named_devices(graph: Graph) -> Iterator[int]:
    """Yield how many devices each exchange speaks of; a bare dump does not say it elsewhere."""
    yield 1
    for inside, _ in graph.walk():
        for exchange in inside.exchanges:
            collective = inside.ops[exchange].collective
            if collective is not None and collective.groups:
                yield 1 + max(map(max, collective.groups))


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
