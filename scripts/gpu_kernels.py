"""Kernels of a profiler's capture, by kind, against the judge's prices of the schedule's ops.

Most kernels run in CUDA graphs, where the profiler names the kernel and not the op. So they are
compared by what their names say that they are: XLA calls a kernel after its fusion.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from lancet_jax.judge.listing import Line, ListedComputation, Listing, read_listing
from lancet_jax.judge.prices import Prices, exchange_kind
from lancet_jax.profile.capture import read_capture
from lancet_jax.profile.events import Event, runs_in
from scripts.gpu_programs import GPUS

_PRODUCTS = re.compile(r"nvjet|gemm|cutlass|splitK")
_WORDS = ("scatter", "gather", "transpose", "reduce", "concatenate")


def kernel_times(capture: Path, text: str) -> dict[str, Any]:
    """Compare a capture's kernels with the judge's prices.

    Args:
        capture: of one program with emulated exchanges.
        text: the schedule that it was made of.

    Returns:
        Us of one step by kind of kernel, measured and priced; trips of its loops, by how many loops
        made so many; what its exchanges took; and its length: all means over the capture's runs.
    """
    listing = read_listing(text)
    exchanges = {line.name for block in listing.blocks.values() for line in block.lines
                 if exchange_kind(line)}  # fmt: skip
    module = read_capture(capture).notes[0].split(": ")[1].split(" on ")[0]
    runs = [e for (name, _, _), e in runs_in(capture.read_bytes()).items() if name == module]
    checks = Counter(e.op for run in runs for e in run if e.op.startswith("while"))
    trips = {name: round(count / len(runs)) - 1 for name, count in checks.items()}
    measured: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for kernel, op, us in _kernels(capture, module):
        if op.removesuffix(".start") not in exchanges and not op.startswith("while"):
            measured[kind_of(kernel)] += us / len(runs)
            counts[kind_of(kernel)] += 1
    priced = _priced(listing, trips)
    return {
        "runs": len(runs),
        "kinds": {
            kind: {"kernels": counts[kind] / len(runs), "measured_us": measured[kind],
                   "predicted_us": priced.get(kind, 0.0)}
            for kind in sorted({*measured, *priced}, key=lambda k: -measured[k])
        },
        "trips": dict(sorted(Counter(trips.values()).items())),
        "exchange_us": sum(_exchange_us(run, exchanges) for run in runs) / len(runs),
        "step_us": sum(max(e.start_us + e.us for e in run) - run[0].start_us
                       for run in runs) / len(runs),
    }  # fmt: skip


def kind_of(name: str) -> str:
    """Return what a kernel or a fusion is, by its name."""
    if _PRODUCTS.search(name):
        return "matrix products"
    if re.fullmatch(r"fusion([._]\d+)*", name):
        return "Triton fusions"
    if name.lower().startswith(("mem", "copy")):
        return "copies"
    return next((f"{word} fusions" for word in _WORDS if word in name), "loop fusions")


def _kernels(capture: Path, module: str) -> Iterator[tuple[str, str, float]]:
    """Yield (kernel, op, us) of everything that a module ran on the device."""
    from jax.profiler import ProfileData

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for plane in ProfileData.from_file(str(capture)).planes:
            for line in plane.lines if plane.name.startswith("/device") else ():
                for event in line.events:
                    stats = dict(event.stats)
                    if f"{stats.get('hlo_module')}({stats.get('program_id')})" == module:
                        yield event.name, str(stats["hlo_op"]), event.duration_ns / 1e3


def _priced(listing: Listing, trips: dict[str, int]) -> dict[str, float]:
    """Return the judge's us of a step by kind of kernel."""
    prices = Prices(listing, TargetCosts(parse_target(GPUS)))
    found: dict[str, float] = defaultdict(float)

    def add(block: ListedComputation, times: int) -> None:
        for line in block.lines:
            if line.opcode == "while":
                add(listing.block(line.value("body"), line), times * trips.get(line.name, 1))
            elif not exchange_kind(line):
                found[_kind_of_line(line)] += times * prices.compute(line, block)[0]

    add(listing.entry, 1)
    return {kind: us for kind, us in found.items() if us > 0}


def _kind_of_line(line: Line) -> str:
    is_product = line.opcode == "custom-call"
    return "matrix products" if is_product else kind_of(line.name)


def _exchange_us(run: list[Event], exchanges: set[str]) -> float:
    """Return what all exchanges of a run took: from the first kernel of each to its last."""
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for e in run:
        name = e.op.removesuffix(".start")
        if name in exchanges:
            begin, end = spans.get((name, e.launch), (e.start_us, e.start_us))
            spans[name, e.launch] = min(begin, e.start_us), max(end, e.start_us + e.us)
    return sum(end - begin for begin, end in spans.values())
