"""Moves bytes between the processes of a replay: over TCP, each with each."""

import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lancet_jax.errors import PeerError

_RANK = struct.Struct("<Q")

_HEAD = struct.Struct("<Qd")
"""Of a message: its bytes, and when its sender began, by the clock that all processes share."""

_CHUNK = 1 << 20


class Link(Protocol):
    """A way to the other processes."""

    @property
    def rank(self) -> int:
        """This process."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def swap(self, parts: Mapping[int, memoryview]) -> dict[int, bytearray]:
        """Send a message to every other process, and return what they sent, by rank."""
        ...

    def settle(self, since: float) -> None:
        """End an exchange that began at `since` (`time.perf_counter`), whatever it swapped."""
        ...


@dataclass(frozen=True)
class Echo:
    """No link: every other process seems to send what it is sent, in no time.

    Attributes:
        rank: this process.
        size: how many there seem to be.
    """

    rank: int
    size: int

    def swap(self, parts: Mapping[int, memoryview]) -> dict[int, bytearray]:
        """Return what is sent."""
        return {peer: bytearray(part) for peer, part in parts.items()}

    def settle(self, since: float) -> None:
        """Do nothing: no exchange takes time."""


@dataclass
class SocketLink:
    """One TCP connection to every other process.

    Attributes:
        rank: this process.
        size: how many there are.
        ports: where each listens, on the loopback.
        bytes_per_s: rate that every process is held to; 0 for what the sockets give. Messages are
            packed and unpacked while the link is taken to be busy, as in pieces they would be.
        latency_us: us that every swap takes beside its bytes, where a rate is given.
        timeout_s: how long a silent peer is waited for.
    """

    rank: int
    size: int
    ports: Sequence[int]
    bytes_per_s: float = 0.0
    latency_us: float = 0.0
    timeout_s: float = 60.0
    _peers: dict[int, socket.socket] = field(default_factory=dict)
    _owed: float = 0.0
    _begun: float = 0.0

    def connect(self) -> None:
        """Connect to all others; those with a lower rank are called, the others call.

        Raises:
            PeerError: if one of them never comes.
        """
        with socket.create_server(("127.0.0.1", self.ports[self.rank])) as server:
            server.settimeout(self.timeout_s)
            for peer in range(self.rank):
                self._peers[peer] = self._call(peer)
            try:
                while len(self._peers) < self.size - 1:
                    caller, _ = server.accept()
                    self._peers[_RANK.unpack(_exactly(caller, _RANK.size))[0]] = caller
            except TimeoutError:
                missing = sorted({*range(self.size)} - {self.rank, *self._peers})
                raise self._lost(missing[0], "never came") from None
        for peer in self._peers.values():
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.setblocking(False)

    def swap(self, parts: Mapping[int, memoryview]) -> dict[int, bytearray]:
        """Send a message to every other process, and return what they sent, by rank.

        Raises:
            PeerError: if one of them is gone, or silent for too long.
        """
        started = time.perf_counter()
        sends = {
            peer: [memoryview(_HEAD.pack(part.nbytes, started)), part]
            for peer, part in parts.items()
        }
        heard = {peer: _Message() for peer in self._peers}
        with selectors.DefaultSelector() as ready:
            for peer, connection in self._peers.items():
                ready.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
            while open_ends := _unfinished(sends, heard):
                events = ready.select(self.timeout_s)
                if not events:
                    raise self._lost(open_ends[0], f"was silent for {self.timeout_s:.0f} s")
                for key, mask in events:
                    self._move(ready, key, mask, sends[key.data], heard[key.data])
        if not self._owed:
            self._begun = max([started, *(message.since for message in heard.values())])
        self._owe(sum(part.nbytes for part in parts.values()), sum(m.count for m in heard.values()))
        return {peer: message.data for peer, message in heard.items()}

    def close(self) -> None:
        """Close all connections."""
        for connection in self._peers.values():
            connection.close()

    def _move(
        self,
        ready: selectors.BaseSelector,
        key: selectors.SelectorKey,
        mask: int,
        send: list[memoryview],
        message: "_Message",
    ) -> None:
        """Move what one connection can take or give now."""
        connection, peer = self._peers[key.data], key.data
        try:
            if mask & selectors.EVENT_READ and not message.is_whole:
                message.read(connection)
                if message.is_closed:
                    raise self._lost(peer, "has closed its connection")
            if mask & selectors.EVENT_WRITE and send:
                _send_some(connection, send)
        except OSError as error:
            raise self._lost(peer, error.strerror or str(error)) from None
        wants = (0 if message.is_whole else selectors.EVENT_READ) | (
            selectors.EVENT_WRITE if send else 0
        )
        if not wants:
            ready.unregister(connection)
        elif wants != key.events:
            ready.modify(connection, wants, peer)

    def settle(self, since: float) -> None:
        """Sleep until a link of the given rate would have carried all since the last call.

        What a late process sends takes its time too, from when that began.
        """
        ends = max(since, self._begun) + self._owed
        self._owed = self._begun = 0.0
        if self.bytes_per_s and since:
            time.sleep(max(0.0, ends - time.perf_counter()))

    def _owe(self, sent: int, heard: int) -> None:
        """Enter what a swap would take; both ways are used at the same time."""
        if self.bytes_per_s:
            self._owed += self.latency_us * 1e-6 + max(sent, heard) / self.bytes_per_s

    def _call(self, peer: int) -> socket.socket:
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self.ports[peer]))
                connection.sendall(_RANK.pack(self.rank))
                return connection
            except OSError:
                if time.monotonic() > deadline:
                    raise self._lost(peer, "never came") from None
                time.sleep(0.05)

    def _lost(self, peer: int, what: str) -> PeerError:
        return PeerError(
            f"process {peer} (port {self.ports[peer]})", what,
            "see what it printed; all processes have to run the same step",
        )  # fmt: skip


@dataclass
class _Message:
    """A message while it comes in."""

    head: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    count: int = -1
    since: float = 0.0
    got: int = 0
    is_closed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing more belongs to it."""
        return self.got == self.count

    def read(self, connection: socket.socket) -> None:
        """Take what is there."""
        if self.count < 0:
            piece = connection.recv(_HEAD.size - len(self.head))
            self.is_closed = not piece
            self.head += piece
            if len(self.head) == _HEAD.size:
                self.count, self.since = _HEAD.unpack(self.head)
                self.data = bytearray(self.count)
            return
        got = connection.recv_into(memoryview(self.data)[self.got : self.got + _CHUNK])
        self.is_closed = not got
        self.got += got


def _unfinished(sends: Mapping[int, list[memoryview]], heard: Mapping[int, _Message]) -> list[int]:
    """Return the processes that something is still to go to, or to come from."""
    return [peer for peer, message in heard.items() if sends[peer] or not message.is_whole]


def _send_some(connection: socket.socket, send: list[memoryview]) -> None:
    """Send a piece of what is to be sent, and take it off."""
    sent = connection.send(send[0][:_CHUNK])
    send[0] = send[0][sent:]
    if not send[0].nbytes:
        del send[0]


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data
