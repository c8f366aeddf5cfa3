"""Times of the pieces that a replayed step is made of, for `bench_cost_model`."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lancet_jax.calibrate import kernels_of, time_all
from lancet_jax.calibrate.measure import empty_run, runner
from lancet_jax.replay import Player
from lancet_jax.replay.exchanges import exchange
from scripts.replayed_steps import meet


@dataclass(frozen=True)
class Sent:
    """One exchange of a step, with the arrays that it was given.

    Attributes:
        key: the same for exchanges that take the same time.
        what, arrays: see `lancet_jax.replay.exchanges.exchange`.
        bytes: payload of this rank.
    """

    key: tuple[Any, ...]
    what: Any
    arrays: list[Any]
    bytes: int


def heard(player: Any, inputs: Any) -> list[Sent]:
    """Run a step once, which also compiles it, and return what it sent."""
    found: list[Sent] = []

    class Listening(Player):
        def _exchange(self, what: Any, arrays: Any) -> Any:
            size = sum(array.nbytes for array in arrays)
            key: tuple[Any, ...] = (what.kind, size)
            if what.kind == "ragged_all_to_all":  # what it sends is in its arrays, on every rank
                key = (what.kind, id(player), len(found))
                size = int(arrays[3].sum()) * arrays[0][:1].nbytes
            found.append(Sent(key, what, arrays, size))
            return super()._exchange(what, arrays)

    listening = Listening(player.score, player.link)
    listening.programs = player.programs
    listening.run(inputs)
    return found


class KernelTimes:
    """Times of all kernels, each alone; every rank measures, so that all are as busy."""

    def __init__(self, modules: Any, link: Any) -> None:
        self.kernels = list(kernels_of(list(modules)).values())
        self.runs = [empty_run(), *(runner(k.program, k.inputs) for k in self.kernels)]
        self.samples: list[list[float]] = []
        self.link = link

    def measure(self) -> None:
        """Take one sample of each."""
        meet(self.link)
        self.samples.append([timing.us for timing in time_all(self.runs, 1)])

    @property
    def times_us(self) -> list[float]:
        """The empty program's, then that of every kernel beside it."""
        empty, *rest = (center(column) for column in zip(*self.samples, strict=True))
        return [empty, *(max(us - empty, 0.0) for us in rest)]


class ExchangeTimes:
    """Times of all exchanges over the link, nothing beside them."""

    def __init__(self, sent: dict[str, list[Sent]], link: Any) -> None:
        self.sent, self.link = sent, link
        self.wanted = {one.key: one for found in sent.values() for one in found}
        self.wall: dict[Any, list[float]] = {key: [] for key in self.wanted}
        self.cpu = 0.0

    def measure(self) -> None:
        """Take one sample of each."""
        for key, one in self.wanted.items():
            meet(self.link)
            started, cpu = time.perf_counter(), time.process_time()
            exchange(one.what, one.arrays, self.link)
            self.wall[key].append(time.perf_counter() - started)
            self.cpu += time.process_time() - cpu

    def seconds(self, name: str) -> list[float]:
        """Return those of one step, in order."""
        return [center(self.wall[one.key]) for one in self.sent[name]]

    @property
    def points(self) -> dict[str, list[tuple[int, float]]]:
        """(bytes, us) by kind."""
        found: dict[str, list[tuple[int, float]]] = {}
        for key, one in self.wanted.items():
            found.setdefault(one.what.kind, []).append((one.bytes, center(self.wall[key]) * 1e6))
        return found

    @property
    def cpu_share(self) -> float:
        """CPU time of this rank over wall time."""
        return min(self.cpu / sum(map(sum, self.wall.values())), 0.9)


class Pieces:
    """Times of a score's segments, played in order with nothing sent."""

    def __init__(self, player: Any, inputs: Any, link: Any) -> None:
        self.player, self.inputs, self.link = player, inputs, link
        self.times: list[Any] = []

    def measure(self) -> None:
        """Take one sample of each."""
        meet(self.link)
        self.times.append(self.player.run(self.inputs)[1])

    @property
    def segments(self) -> list[float]:
        """Seconds of every segment."""
        return [center(column) for column in zip(*(t.segments for t in self.times), strict=True)]

    @property
    def handling(self) -> float:
        """Seconds of everything else, per exchange."""
        rest = center([t.step - t.compute for t in self.times])
        return rest / max(len(self.player.score.exchanges), 1)


def center(values: Sequence[float]) -> float:
    """Return the mean of the middle half: means add up over pieces, medians do not."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return statistics.mean(ordered[cut : len(ordered) - cut])
