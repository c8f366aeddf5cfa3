"""`lancet-jax calibrate`: measure a module file's kernels and exchanges on the devices at hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import jax
from cyclopts import Parameter
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hlo_passes.base import Pass
from hlo_passes.cost.target import parse_target, target_of_devices
from hlo_passes.errors import InputError
from hlo_passes.ir.files import load
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import parse_pipeline
from hlo_passes.run import run_pass
from lancet_jax.calibrate import Measuring, kernels_of, probes_of, table_of_capture
from lancet_jax.cli.files import job_of, prices_of, print_json, working
from lancet_jax.cli.options import Json
from lancet_jax.errors import OptionError
from lancet_jax.profile.capture import find_capture, read_capture


def calibrate(
    file: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    pipeline: Annotated[str, Parameter(name=["--pipeline", "-p"])] = "off",
    rounds: int = 11,
    target: str | None = None,
    json: Json = False,
) -> None:
    """Measure what a module's kernels and exchanges take here, for `--costs` of other commands.

    Goes on where it was interrupted: what the output file holds is not measured again.

    Parameters
    ----------
    file
        StableHLO text or bytecode, as jax lowers it; or a profiler capture of a step that ran
        (.xplane.pb or its folder), whose times are taken.
    output
        The table file, JSON.
    pipeline
        Passes that cut the module (exchange, full, split-region{k=4}): what they leave is
        measured as well. Other cuts are scaled from what was measured.
    rounds
        Samples of each program; their median counts.
    target
        What a capture was taken on, h100:8x8; not for StableHLO, which is measured here.
    json
        Print a summary as JSON.
    """
    if rounds < 1:
        raise OptionError("--rounds", f"{rounds} is below 1", "give 11")
    if (capture := find_capture(file)) is not None:
        _take(capture, target, output, json=json)
        return
    if target is not None:
        raise OptionError("--target", "StableHLO is measured on the devices here", "leave it out")
    passes = parse_pipeline(pipeline).passes
    module = load(file)
    if not isinstance(module, Module):
        raise InputError(str(file), "is HLO, whose fusions cannot be compiled alone",
                         "pass the StableHLO that jax lowers: lower(...).as_text()")  # fmt: skip
    _use_devices(module.devices)
    target = target_of_devices(jax.devices()[0].device_kind, module.devices).name
    measuring = Measuring(output, target, rounds)
    with working("finding kernels"):
        modules = [module, *_cuts(module, passes, target)]
        kernels = kernels_of(modules)
        probes = probes_of([m.snapshot() for m in modules], len(jax.devices()))
    rest = measuring.missing(kernels, probes)
    with _progress() as progress:
        task = progress.add_task("measuring", total=sum(map(len, rest)))
        for done in measuring.run(*rest):
            progress.update(task, completed=done)
    _tell(measuring, len(kernels), sum(map(len, rest)), json=json)


def _take(capture: Path, target: str | None, output: Path, *, json: bool) -> None:
    """Write what a capture measured as a table."""
    if target is None:
        raise OptionError("--target", "a capture does not say what cluster it was taken on",
                          "name it: --target h100:8x8")  # fmt: skip
    with working(f"reading {capture}"):
        table = table_of_capture(read_capture(capture), parse_target(target), str(capture))
    table.save(output)
    if json:
        print_json({
            "output": str(output), "target": table.target, "entries": len(table.ops),
            "exchanges": len(table.exchanges), "note": table.note,
        })  # fmt: skip
        return
    print(
        f"wrote {output}: {len(table.exchanges)} kinds of exchange and {len(table.ops)} ops on "
        f"{table.target}, from {capture}"
    )


def _use_devices(count: int) -> None:
    """Have as many virtual CPU devices as the module asks for, where CPUs are what there is."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        return  # the devices are there already


def _cuts(module: Module, passes: Sequence[Pass], target: str) -> Iterator[Module]:
    """Yield what each pass leaves."""
    for step in passes:
        _, costs = prices_of(module, target, None)
        cut = run_pass(step, module, job_of(costs)).module
        if cut is not module:
            assert isinstance(cut, Module)
            module = cut
            yield module


def _progress() -> Progress:
    """Return a progress bar on stderr, invisible in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _tell(measuring: Measuring, kernels: int, measured: int, *, json: bool) -> None:
    table = measuring.table
    spreads = sorted(op.spread for op in table.ops)
    middle = spreads[len(spreads) // 2] if spreads else 0.0
    if json:
        print_json({
            "output": str(measuring.path), "target": table.target, "kernels": kernels,
            "measured": measured, "entries": len(table.ops), "exchanges": len(table.exchanges),
            "median_spread": middle, "note": table.note,
        })  # fmt: skip
        return
    print(
        f"wrote {measuring.path}: {len(table.ops)} kernels (median spread {middle:.0%}) and "
        f"{len(table.exchanges)} kinds of exchange on {table.target}; {measured} measured now"
    )
    for line in table.note.splitlines()[1:]:
        print(line)
