"""Times small programs: warmed up, interleaved, many times, and says how much that varied."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SAMPLE_S = 5e-4
"""One sample runs a program as often as it takes to fill this time: clocks are coarse."""

_MOST = 50
"""Runs of one sample at most."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of one program.

    Attributes:
        us: median of the samples, in us.
        spread: distance of the quartiles as a share of the median.
    """

    us: float
    spread: float

    def less(self, other: "Timing") -> "Timing":
        """Take off what another program takes, of which this one holds at least as much."""
        us = max(self.us - other.us, 0.01 * self.us)
        return Timing(us, self.spread * self.us / us)


def time_all(runs: Sequence[Callable[[], object]], rounds: int) -> list[Timing]:
    """Time programs.

    Every round runs each of them, one after the other, so that what disturbs the machine for a
    while disturbs all alike.

    Args:
        runs: programs that return when they are done.
        rounds: samples of each, at least 1.
    """
    repeats = [_repeats(run) for run in runs]
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, repeat, found in zip(runs, repeats, samples, strict=True):
            started = time.perf_counter()
            for _ in range(repeat):
                run()
            found.append((time.perf_counter() - started) / repeat * 1e6)
    return [_summary(found) for found in samples]


def _repeats(run: Callable[[], object]) -> int:
    """Warm a program up, and return how often one sample runs it."""
    run()
    started = time.perf_counter()
    run()
    took = time.perf_counter() - started
    return max(1, min(_MOST, int(_SAMPLE_S / max(took, 1e-7))))


def _summary(samples: Sequence[float]) -> Timing:
    middle = statistics.median(samples)
    if len(samples) < 2:
        return Timing(middle, 0.0)
    low, _, high = statistics.quantiles(samples, n=4)
    return Timing(middle, (high - low) / middle if middle else 0.0)
