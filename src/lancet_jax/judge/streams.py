"""Streams of a GPU, driven by events: each runs what was queued, and waits where told to.

As CUDA has it: a stream is a queue; a kernel starts when the one before it has ended; a stream may
raise a flag, and another may wait for it. Nothing else orders anything. Time goes from event to
event, and between two of them it is known who is busy: that is what is added up.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count


class TaskKind(Enum):
    """What keeps a stream busy."""

    COMPUTE = auto()
    ALL_TO_ALL = auto()
    OTHER_EXCHANGE = auto()
    HOST = auto()
    """Nothing: the stream is empty until the host knows how to go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something that takes `us`."""

    kind: TaskKind
    us: float


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise a flag once everything before it has ended."""

    flag: int


@dataclass(frozen=True, slots=True)
class Await:
    """Go no further until a flag is up."""

    flag: int


type Command = Task | Raise | Await


@dataclass
class _Stream:
    """A queue being worked off.

    Attributes:
        queue: what is left.
        kind: what it does at the moment; None while it waits or has ended.
        left_us: work left of the running kernel, at full speed.
        edition: how often its end was foretold; only the newest holds.
    """

    queue: deque[Command]
    kind: TaskKind | None = None
    left_us: float = 0.0
    edition: int = 0


@dataclass
class Replay:
    """One run.

    Attributes:
        contention: share by which an exchange in flight slows compute beside it.
        now: time in us.
        times: us by who was busy: compute stream, exchange stream, and the stream of exchanges
            that XLA was told stay on the links inside a node.
    """

    contention: float = 0.0
    now: float = 0.0
    times: dict[tuple[TaskKind | None, ...], float] = field(
        default_factory=lambda: defaultdict(float)
    )
    _events: list[tuple[float, int, int, int]] = field(default_factory=list)
    _up: set[int] = field(default_factory=set)
    _waiting: dict[int, list[int]] = field(default_factory=dict)
    _ticket: count = field(default_factory=count)

    def run(
        self,
        compute: Iterable[Command],
        exchange: Iterable[Command],
        fabric: Iterable[Command] = (),
    ) -> None:
        """Work all queues off.

        Args:
            compute: what the host queued on the compute stream, in order.
            exchange: the same of the stream of exchanges.
            fabric: the same of the stream of exchanges that stay inside a node.

        Raises:
            RuntimeError: if they wait for flags that nobody will raise.
        """
        self._streams = [_Stream(deque(queue)) for queue in (compute, exchange, fabric)]
        for index in range(len(self._streams)):
            self._advance(index)
        while self._events:
            at, _, index, edition = heapq.heappop(self._events)
            stream = self._streams[index]
            if edition != stream.edition:
                continue
            self._pass(at)
            stream.kind = None
            self._advance(index)
        if any(stream.queue for stream in self._streams):
            raise RuntimeError("the streams wait for each other")

    def _pass(self, at: float) -> None:
        """Let time go by, and book who was busy."""
        gone = at - self.now
        self.times[tuple(stream.kind for stream in self._streams)] += gone
        for index, stream in enumerate(self._streams):
            if stream.kind is not None:
                stream.left_us -= gone * self._speed(index)
        self.now = at

    def _speed(self, index: int) -> float:
        compute, *exchanges = self._streams
        talks = any(stream.kind is not None for stream in exchanges)
        slow = index == 0 and talks and compute.kind is TaskKind.COMPUTE
        return 1 / (1 + self.contention) if slow else 1.0

    def _advance(self, index: int) -> None:
        """Let a stream take commands until one keeps it busy or waiting."""
        stream = self._streams[index]
        while stream.queue and stream.kind is None:
            command = stream.queue[0]
            if isinstance(command, Await) and command.flag not in self._up:
                self._waiting.setdefault(command.flag, []).append(index)
                break
            stream.queue.popleft()
            if isinstance(command, Raise):
                self._raise(command.flag)
            elif isinstance(command, Task) and command.us > 0:
                stream.kind, stream.left_us = command.kind, command.us
        for each in range(len(self._streams)):
            self._foretell(each)

    def _raise(self, flag: int) -> None:
        self._up.add(flag)
        for index in self._waiting.pop(flag, []):
            self._advance(index)

    def _foretell(self, index: int) -> None:
        """Note when the running kernel will end, at the speed that it has now."""
        stream = self._streams[index]
        stream.edition += 1
        if stream.kind is not None:
            end = self.now + max(stream.left_us, 0.0) / self._speed(index)
            heapq.heappush(self._events, (end, next(self._ticket), index, stream.edition))
