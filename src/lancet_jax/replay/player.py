"""Plays a score: compute on this thread, exchanges on another, both in order."""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from lancet_jax.replay.exchanges import exchange
from lancet_jax.replay.link import Link
from lancet_jax.replay.score import Launch, Score, Segment, Wait
from lancet_jax.seams import programs


@dataclass(frozen=True, slots=True)
class Times:
    """Measured seconds of one run.

    Attributes:
        step: from the first to the last.
        segments: of every segment, in order.
        exchanges: of every exchange, in order of issue, beside compute or not.
        waits: that compute stood still for every exchange, in order of issue.
        cpu: of this process, all threads.
    """

    step: float
    segments: tuple[float, ...]
    exchanges: tuple[float, ...]
    waits: tuple[float, ...]
    cpu: float

    @property
    def compute(self) -> float:
        """In all segments."""
        return sum(self.segments)

    @property
    def exchange(self) -> float:
        """In all exchanges."""
        return sum(self.exchanges)


@dataclass
class Player:
    """Runs a score.

    Attributes:
        score: what to do.
        link: the way to the other processes.
        cores: CPU cores for the thread that exchanges, as a device has engines of its own that
            copy; those of the process if none are named.
        urgent: let that thread come before compute on a core they share: a device's copies do not
            wait for a time slice either. Needs rights to real-time scheduling (Linux); without
            them all stays as it is.
    """

    score: Score
    link: Link
    cores: Collection[int] = ()
    urgent: bool = False

    @cached_property
    def programs(self) -> list[Any]:
        """Every segment, compiled."""
        return [programs.compile_segment(text) for text in self.score.programs]

    def run(self, inputs: Sequence[Any]) -> tuple[list[Any], Times]:
        """Run the step once on this process's shards of its arguments."""
        programs, values = self.programs, dict(zip(self.score.inputs, inputs, strict=True))
        started: list[tuple[Launch, Future[tuple[list[Any], float]]]] = []
        computing: list[float] = []
        exchanging: dict[int, float] = {}
        waiting: dict[int, float] = {}
        begin, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(1, initializer=self._take_place) as stream:
            for step in self.score.steps:
                if isinstance(step, Segment):
                    since = time.perf_counter()
                    made = programs[step.code]([values[i] for i in step.inputs])
                    computing.append(time.perf_counter() - since)
                    values.update(zip(step.outputs, made, strict=True))
                    for i in step.spent:
                        del values[step.inputs[i]]
                elif isinstance(step, Launch):
                    arrays = [np.asarray(values[i]) for i in step.inputs]
                    started.append((step, stream.submit(self._exchange, step, arrays)))
                elif isinstance(step, Wait):
                    what, future = started[step.exchange]
                    since = time.perf_counter()
                    results, exchanging[step.exchange] = future.result()
                    waiting[step.exchange] = time.perf_counter() - since
                    values.update(zip(what.outputs, results, strict=True))
        outputs = [values[i] for i in self.score.outputs]
        jax.block_until_ready(outputs)
        took, spent = time.perf_counter() - begin, time.process_time() - cpu
        lasted, waited = _in_order(exchanging), _in_order(waiting)
        return outputs, Times(took, tuple(computing), lasted, waited, spent)

    def _exchange(self, what: Launch, arrays: list[np.ndarray]) -> tuple[list[Any], float]:
        since = time.perf_counter()
        made = [
            jax.device_put(result, may_alias=True) for result in exchange(what, arrays, self.link)
        ]
        return jax.block_until_ready(made), time.perf_counter() - since

    def _take_place(self) -> None:
        """Move this thread to the cores that are meant for it, and before others there."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        if self.urgent:
            with suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _in_order(found: Mapping[int, float]) -> tuple[float, ...]:
    """Return values by exchange, in order of issue."""
    return tuple(value for _, value in sorted(found.items()))
