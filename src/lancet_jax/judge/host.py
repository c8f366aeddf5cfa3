"""What the host queues on the streams as it walks through a schedule, line by line.

An exchange's start raises a flag on the compute stream, for what it sends must be there, and the
exchange stream waits for it; the done makes the compute stream wait for the exchange. Exchanges
that are issued as one follow each other. A send is an exchange, and what it brings is there when
the `recv-done` of its channel is through. Loops are queued trip by trip. An exchange that XLA was
told stays on the links inside a node has a stream of its own. What may not be is refused: a line
that reads what is not made yet, or what an exchange in flight has not delivered, and an exchange
that starts while one on the other stream is in flight and two devices are in both: they could wait
for each other for ever.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from hlo_passes.errors import InputError
from lancet_jax.judge.listing import Line, ListedComputation, Listing
from lancet_jax.judge.prices import Prices, exchange_kind, peers
from lancet_jax.judge.streams import Await, Command, Raise, Task, TaskKind

_INSIDE = "COLLECTIVE_COMMUNICATION_DOMAIN_SCALE_UP_FABRIC"
"""How XLA says that an exchange stays on the fast links inside a node."""

_WRAPPERS = ("async-start", "fusion", "fusion-start", "call-start", "custom-call-start")
"""Opcodes that run what they call as a part of themselves: also exchanges, several as one."""

_MOST_TRIPS = 64
"""Trips that are queued one by one; of a longer loop each of these stands for several."""


@dataclass(frozen=True, slots=True)
class Load:
    """How the routing loads the busiest device, over a balanced routing.

    Attributes:
        fill: rows that it receives in a ragged exchange.
        trips: trips of loops whose number the data decides; windows of experts, say.
    """

    fill: float = 1.0
    trips: int = 1


@dataclass
class Host:
    """Queues a module.

    Attributes:
        listing: the module.
        prices: what its lines cost.
        decide_us: us that the device idles while the host learns how a loop goes on.
        load: of the busiest device.
        overlaps: whether exchanges run beside compute; if not, each is waited for at once.
        compute, exchange, fabric: the queues; `fabric` is that of the links inside a node.
        sources: lines of the text by where their price is from.
    """

    listing: Listing
    prices: Prices
    decide_us: float = 0.0
    load: Load = field(default_factory=Load)
    overlaps: bool = True
    compute: list[Command] = field(default_factory=list)
    exchange: list[Command] = field(default_factory=list)
    fabric: list[Command] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    _flags: count = field(default_factory=count)
    _memo: dict[str, tuple[float, TaskKind]] = field(default_factory=dict)
    _inside: dict[str, list[tuple[Line, ListedComputation]]] = field(default_factory=dict)
    _flying: dict[int, tuple[Line, ListedComputation]] = field(default_factory=dict)

    def queue(self) -> None:
        """Queue the whole step.

        Raises:
            InputError: if the schedule is illegal, naming the line.
        """
        self._block(self.listing.entry, 1.0)

    def _block(self, block: ListedComputation, weight: float) -> None:
        made: dict[str, Line] = {}
        flights: dict[str, int] = {}
        for line in block.lines:
            self._check(line, made, flights)
            if line.opcode == "recv-done":
                self._receive(line, made, flights)
            else:
                self._line(line, block, weight, flights)
            made[line.name] = line
        for line in block.lines:
            if line.name in flights and line.opcode != "send":
                raise self._illegal(line, "is an exchange that nothing waits for")

    def _receive(self, line: Line, made: dict[str, Line], flights: dict[str, int]) -> None:
        """Let compute wait for the send that brings what a line receives."""
        receive = made[line.reads[0]]
        for name, flag in flights.items():
            if receive.opcode == "recv" and peers(made[name]) == peers(receive):
                self.compute.append(Await(flag))

    def _check(self, line: Line, made: dict[str, Line], flights: dict[str, int]) -> None:
        """Raise if a line reads what is not there."""
        ends = line.opcode.endswith("-done")
        for name in line.reads:
            if name not in made:
                raise self._illegal(line, f"reads {name}, which no line before it makes")
            if name in flights and not ends:
                raise self._illegal(line, f"reads {name}, an exchange that is still in flight")

    def _illegal(self, line: Line, what: str) -> InputError:
        return InputError(f"{self.listing.path}:{line.number}", f"{line.name} {what}",
                          "the schedule is illegal: do not run it")  # fmt: skip

    def _line(
        self, line: Line, block: ListedComputation, weight: float, flights: dict[str, int]
    ) -> None:
        if line.opcode == "while":
            self._loop(line, weight)
        elif line.opcode == "call":
            self._block(self.listing.block(line.names("to_apply", "calls")[0], line), weight)
        elif line.opcode == "conditional":
            self._branch(line, weight)
        elif line.opcode.endswith("-done"):
            if (flag := flights.pop(line.reads[0], None)) is not None:
                self._flying.pop(flag, None)
                self.compute.append(Await(flag))
        else:
            self._work(line, block, weight, flights)

    def _work(
        self, line: Line, block: ListedComputation, weight: float, flights: dict[str, int]
    ) -> None:
        """Queue a line that computes or exchanges."""
        issued = self._issued(line, block)
        if not issued:
            us, kind = self._priced(line, block)
            if us > 0:
                self.compute.append(Task(kind, us * weight))
            return
        ready, done = next(self._flags), next(self._flags)
        self._check_streams(line, block)
        self.compute.append(Raise(ready))
        queue = self.fabric if self._is_inside(line, block) else self.exchange
        queue.append(Await(ready))
        for each, where in issued:
            us, kind = self._priced(each, where)
            queue.append(Task(kind, us * weight))
        queue.append(Raise(done))
        is_async = line.opcode.endswith("-start") or line.opcode == "send"
        if is_async:
            flights[line.name] = done
            self._flying[done] = line, block
        is_sync = any('"is_sync":true' in each.text for each in (line, *(e for e, _ in issued)))
        if is_sync or not is_async or not self.overlaps:
            self.compute.append(Await(done))

    def _issued(self, line: Line, block: ListedComputation) -> list[tuple[Line, ListedComputation]]:
        """Return the exchanges that a line does or starts, and where they stand."""
        if exchange_kind(line) and not line.opcode.endswith("-done"):
            return [(line, block)]
        if line.opcode not in _WRAPPERS:
            return []
        called = [self.listing.block(name, line) for name in line.names("calls", "to_apply")]
        return [
            found for each in called for inner in each.lines for found in self._issued(inner, each)
        ]

    def _is_inside(self, line: Line, block: ListedComputation) -> bool:
        issued = (each for each, _ in self._issued(line, block))
        return any(_INSIDE in each.text for each in (line, *issued))

    def _check_streams(self, line: Line, block: ListedComputation) -> None:
        """Raise if an exchange crosses one in flight on the other stream."""
        for other, where in self._flying.values():
            if self._is_inside(line, block) == self._is_inside(other, where):
                continue
            ours, theirs = (list(self._members(*each)) for each in ((line, block), (other, where)))
            if any(len(a & b) > 1 for a in ours for b in theirs):
                raise self._illegal(line, f"starts while {other.name} is in flight on another "
                                    "stream, and two devices are in both")  # fmt: skip

    def _members(self, line: Line, block: ListedComputation) -> Iterator[set[int]]:
        for each, _ in self._issued(line, block):
            rows = self.prices.groups(each) or (tuple(range(self.listing.devices)),)
            if exchange_kind(each) == "collective-permute":
                rows = (tuple(device for row in rows for device in row),)
            yield from map(set, rows)

    def _priced(self, line: Line, block: ListedComputation) -> tuple[float, TaskKind]:
        """Price a line once, however often it runs."""
        key = f"{block.name}/{line.name}"
        if key not in self._memo:
            us, source, kind = self._price(line, block)
            self.sources[source] += 1
            self._memo[key] = us, kind
        return self._memo[key]

    def _price(self, line: Line, block: ListedComputation) -> tuple[float, str, TaskKind]:
        if kind := exchange_kind(line):
            us, source = self.prices.exchange(line, block, self.load.fill)
            is_tokens = kind in ("all-to-all", "ragged-all-to-all")
            return us, source, TaskKind.ALL_TO_ALL if is_tokens else TaskKind.OTHER_EXCHANGE
        us, source = self.prices.compute(line, block)
        return us, source, TaskKind.COMPUTE

    def _loop(self, line: Line, weight: float) -> None:
        """Queue a loop's trips; if their number is not known, the host asks before each."""
        body = self.listing.block(line.value("body"), line)
        trips = _known_trips(line)
        asks = trips is None
        trips = self.load.trips if trips is None else trips
        queued = min(trips, _MOST_TRIPS)
        for _ in range(queued):
            if asks:
                self._decide(weight)
            self._block(body, weight * trips / queued)
        if asks:
            self._decide(weight)

    def _branch(self, line: Line, weight: float) -> None:
        """Queue the longest branch, once the host knows that it is to be taken."""
        names = line.names("branch_computations", "true_computation", "false_computation")
        blocks = [self.listing.block(name, line) for name in names]
        self._decide(weight)
        self._block(max(blocks, key=self._serial_us), weight)

    def _serial_us(self, block: ListedComputation) -> float:
        inner = Host(self.listing, self.prices, self.decide_us, self.load)
        inner._block(block, 1.0)
        queued = [*inner.compute, *inner.exchange, *inner.fabric]
        return sum(command.us for command in queued if isinstance(command, Task))

    def _decide(self, weight: float) -> None:
        self.compute.append(Task(TaskKind.HOST, self.decide_us * weight))


def _known_trips(line: Line) -> int | None:
    """Return how often a loop runs, None if the data decides."""
    _, found, rest = line.text.partition("known_trip_count")
    digits = "".join(ch for ch in rest[:20] if ch.isdigit()) if found else ""
    return int(digits) if digits else None
