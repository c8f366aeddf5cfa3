"""What all processes of a job can write to and read from."""

import functools
import time
from dataclasses import dataclass, field
from typing import Any

import jax

from lancet_jax.errors import PeerError
from lancet_jax.seams import backends

_SLICE_S = 1.0
"""Seconds of one wait in XLA's client, which Ctrl-C does not interrupt."""


@dataclass(frozen=True, eq=False)
class JobStore:
    """What every process of a job can write to and read from; its coordinator keeps it.

    Attributes:
        client: of the coordination service that `jax.distributed.initialize` connected to.
        rank: this process.
        agreed: what was settled with the others, by place, in order.
        gathered: what all had to say where it is asked once, by place.
    """

    client: Any
    rank: int
    agreed: dict[str, list[bytes]] = field(default_factory=dict)
    gathered: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    def set(self, key: str, value: bytes) -> None:
        """Write a value, over an older one if need be.

        Raises:
            PeerError: if the coordinator does not answer.
        """
        try:
            self.client.key_value_set_bytes(key, value, True)
        except jax.errors.JaxRuntimeError as error:
            raise _lost_coordinator(error) from None

    def get(self, key: str, seconds: float) -> bytes | None:
        """Return a value, waiting for it if need be; None if nobody writes it in time.

        Raises:
            PeerError: if the coordinator does not answer.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = min(max(deadline - time.monotonic(), 0.001), _SLICE_S)
            try:
                return self.client.blocking_key_value_get_bytes(key, int(left * 1e3) or 1)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise _lost_coordinator(error) from None
            if time.monotonic() >= deadline:
                return None


def _lost_coordinator(error: Exception) -> PeerError:
    return PeerError("jax.distributed", f"the coordinator does not answer: {error}",
                     "see whether the first process still runs")  # fmt: skip


def job_store() -> JobStore | None:
    """Return the store of the job; None if `jax.distributed` was not initialized."""
    found = backends.job_client()
    return None if found is None else _job_store(*found)


@functools.cache
def _job_store(client: Any, rank: int) -> JobStore:
    return JobStore(client, rank)
