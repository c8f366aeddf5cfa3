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
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.dumps import load
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module

type Json = Annotated[bool, Parameter(negative="")]
"""The flag that every command has."""


def read(
    path: Path, target: str | None, costs: Path | None = None
) -> tuple[AnyModule, Graph, TargetCosts]:
    """Read a module file and price it for a target.

    Args:
        path: see `hlo_passes.ir.dumps.load`.
        target: `h100:1x8`; by default what the table holds for, or as many H100 as the module has
            devices, 8 to a node.
        costs: a table of measured times, as `lancet-jax calibrate` writes it.

    Raises:
        LancetError: if the file, the target or the table is unfit.
    """
    table = CostTable.load(costs) if costs is not None else None
    if target:
        parse_target(target)
    with working(f"reading {path}"):
        module = load(path)
        graph, prices = priced(module, target, table)
    return module, graph, prices


def priced(
    module: AnyModule, target: str | None, table: CostTable | None
) -> tuple[Graph, TargetCosts]:
    """Return a module's graph and prices for it; see `read`.

    Raises:
        OptionError: if the target is none, or the table was measured on other devices.
    """
    graph = module.snapshot()
    graph = replace(graph, devices=max(graph.devices, *_named_devices(graph)))
    nodes = -(-graph.devices // 8)
    default = table.target if table else f"h100:{nodes}x{-(-graph.devices // nodes)}"
    chosen = parse_target(target or default)
    if table is not None:
        table.check_device(chosen)
    return graph, TargetCosts(target=chosen, measured=table).for_graph(graph)


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
