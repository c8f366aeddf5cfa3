"""What the commands share: a module file, a target, a place to print."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hlo_passes.base import AnyModule, Job
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import InputError, LancetError
from hlo_passes.ir.files import load
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.dump_folder import choose_module
from hlo_passes.ir.opaque import opaque_notes, parse_opaque
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.profile.capture import find_capture, read_capture

_CAPABILITY = re.compile(r"\.sm_(\d+\.\d+)[a-z]?_gpu_")


@dataclass(frozen=True)
class Loaded:
    """What a command was pointed at.

    Attributes:
        module: the module, also of a capture.
        simulator: its picture, with as many devices as its exchanges speak of, priced for the
            target.
        measured: the step by the clock, for a capture.
        notes: how the file was chosen, and what a reader should know.
    """

    module: AnyModule
    simulator: Simulator
    measured: Timeline | None = None
    notes: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        """The module's picture."""
        return self.simulator.graph

    @property
    def costs(self) -> TargetCosts:
        """Prices for the target."""
        costs = self.simulator.costs
        assert isinstance(costs, TargetCosts)
        return costs

    @property
    def name(self) -> str:
        """The module's name."""
        return self.module.name


def open_source(
    path: Path, target: str | None, costs: Path | None = None, opaque: Sequence[str] = ()
) -> Loaded:
    """Read a module file, the right one of a dump folder, or a profiler capture.

    Args:
        path: see `hlo_passes.ir.files.load`; or an `.xplane.pb`, or a folder that
            `jax.profiler.trace` wrote.
        target: `h100:1x8`; by default what the table holds for, or as many H100 as the module has
            devices, 8 to a node.
        costs: a table of measured times, as `lancet-jax calibrate` writes it.
        opaque: custom calls that are exchanges, as `parse_opaque` reads them.

    Raises:
        LancetError: if the file, the target or the table is unfit.
    """
    table = CostTable.load(costs) if costs is not None else None
    if target:
        parse_target(target)
    named = tuple(map(parse_opaque, opaque))
    notes: list[str] = []
    with working(f"reading {path}"):
        found = find_capture(path)
        capture = read_capture(found) if found is not None else None
        if capture is not None:
            notes += capture.notes
            module: AnyModule = capture.module
        else:
            if path.is_dir():
                choice = choose_module(path)
                path, notes = choice.chosen.path, [str(choice)]
            module = load(path)
        module = replace(module, opaque=named) if named else module
        graph, prices = prices_of(module, target, table)
        simulator = _priced(prices, graph, path)
        notes += opaque_notes(graph, named)
    measured = capture.timeline(graph) if capture is not None else None
    return Loaded(module, simulator, measured, tuple(notes))


def prices_of(
    module: AnyModule, target: str | None, table: CostTable | None
) -> tuple[Graph, TargetCosts]:
    """Return a module's picture and prices for its target; see `open_source`.

    Args:
        module: what was read.
        target: as `h100:1x8`; None for the table's, or as many H100 as the module has devices.
        table: measured times, if there are any.

    Raises:
        OptionError: if the target is none, or the table was measured on other devices.
    """
    graph = module.snapshot()
    graph = replace(graph, devices=graph.named_devices)
    nodes = -(-graph.devices // 8)
    default = table.target if table else f"h100:{nodes}x{-(-graph.devices // nodes)}"
    chosen = parse_target(target or default)
    if table is not None:
        table.check_device(chosen)
    return graph, TargetCosts(target=chosen, measured=table)


def _priced(costs: TargetCosts, graph: Graph, path: Path) -> Simulator:
    """Fit prices to a graph, and make sure that it can be priced at all.

    XLA's estimates beside the ops are of the device that it compiled for. A dump's name tells it.

    Raises:
        InputError: if an op makes no sense, as a shape of an unknown type.
    """
    named = _CAPABILITY.search(path.name)
    foreign = named is not None and named[1] != costs.target.profile.compute_capability
    try:
        fitted = replace(costs, xla_compute=not foreign).for_graph(graph)
        priced = Simulator(graph, fitted)
        priced.timeline()
    except LancetError:
        raise
    except Exception as error:
        raise InputError(str(path), f"malformed: {error} ({type(error).__name__})",
                         "write the file again; if XLA or JAX wrote it as it is, report it") \
            from error  # fmt: skip
    return priced


def read(
    path: Path, target: str | None, costs: Path | None = None, opaque: Sequence[str] = ()
) -> tuple[AnyModule, Graph, TargetCosts]:
    """Read a module and price it for a target; see `open_source`.

    Args:
        path: the file or folder.
        target: as `h100:1x8`; None for the default.
        costs: a table of measured times.
        opaque: custom calls that are exchanges, as on the command line.

    Raises:
        LancetError: if the file or the target is unfit.
    """
    source = open_source(path, target, costs, opaque)
    return source.module, source.graph, source.costs


def job_of(costs: TargetCosts, memory_limit: int | None = None) -> Job:
    """Return what passes may know of a compile for a target.

    Rows are sent by ragged exchanges unless the target is a CPU, whose backend lacks them.

    Args:
        costs: prices for the target.
        memory_limit: bytes of a device; None for no limit.
    """
    is_ragged = costs.target.profile.name != "cpu"
    return Job(costs=costs, ragged=is_ragged, memory_limit=memory_limit)


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
