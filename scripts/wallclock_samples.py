"""What `bench_wallclock` keeps of every run of a step, and the figures it makes of them."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Seconds of one run of one step on one rank.

    Attributes:
        step, cpu: wall time and this process's CPU time.
        machine: CPU time of the whole machine meanwhile.
        compute, exchange: in segments and in exchanges, where it is known.
        waits: in which compute stood still, by kind of exchange.
    """

    step: float
    cpu: float
    machine: float
    compute: float | None = None
    exchange: float | None = None
    waits: dict[str, float] = field(default_factory=dict)


def row_of(
    args: Any, name: str, rounds: Sequence[dict[str, Sample]], **more: Any
) -> dict[str, Any]:
    """Sum up one step's runs.

    Args:
        args: the command line.
        name: the pipeline.
        rounds: samples by pipeline, of each round.
        **more: what else is to be kept.
    """
    mine = [took[name] for took in rounds]
    ratios = [took["off"].step / took[name].step for took in rounds]
    return {
        "mbit": args.mbit, "paced": args.paced, "native": args.native, "ranks": args.ranks,
        "pipeline": name,
        "step_s": statistics.median(s.step for s in mine),
        "compute_s": _median([s.compute for s in mine]),
        "exchange_s": _median([s.exchange for s in mine]),
        "cpu_s": statistics.median(s.cpu for s in mine),
        "foreign_cores": statistics.median(
            max(0.0, s.machine - args.ranks * s.cpu) / s.step for s in mine
        ),
        "speed_up": statistics.median(ratios),
        "quartiles": _quartiles(ratios),
        "interval": interval(ratios),
        "cpu_low_high_s": [min(s.cpu for s in mine), max(s.cpu for s in mine)],
        "waits_s": {
            kind: statistics.median(s.waits[kind] for s in mine) for kind in mine[0].waits
        },
        "hidden": _median([
            _hidden(took["off"], took["ideal"], took[name]) for took in rounds
        ]),
        "steps_s": [s.step for s in mine],
    } | more  # fmt: skip


def _quartiles(values: Sequence[float]) -> list[float]:
    """Return the quartiles."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3


def _hidden(stock: Sample, ideal: Sample, step: Sample) -> float | None:
    """Return the share of the time of exchanges that is hidden, all in one round.

    Of the time that could be hidden: compute of the stock step beside its exchanges.
    """
    if stock.exchange is None:
        return None
    return (ideal.step + stock.exchange - step.step) / min(ideal.step, stock.exchange)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """Return the interval of the median by bootstrap, always the same for the same values."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    edge = int(len(medians) * (1 - share) / 2)
    return medians[edge], medians[-1 - edge]
