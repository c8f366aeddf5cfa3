"""Where the time of one compile goes, told while it passes."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, Timer

logger = logging.getLogger("lancet_jax")

_LONG_S = 2.0
"""A phase that takes longer says that it goes on."""


@dataclass
class Clock:
    """Seconds by phase. INFO messages of the logger `lancet_jax` say what goes on.

    Attributes:
        step: name of the step, for messages.
        seconds: by phase; of phases in several threads at once, their sum.
        xla: phases in which XLA works, not us.
    """

    step: str
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    xla: set[str] = field(default_factory=set)
    _began: float = field(default_factory=time.perf_counter)
    _lock: Lock = field(default_factory=Lock)

    @property
    def age_s(self) -> float:
        """Seconds since the compile began."""
        return time.perf_counter() - self._began

    @contextmanager
    def phase(self, name: str, *, by_xla: bool = False) -> Iterator[None]:
        """Count the time inside as of a phase.

        Args:
            name: what is done, as `XLA schedules dw`.
            by_xla: whether XLA does it.
        """
        reminder = Timer(_LONG_S, logger.info, ("%s: %s ...", self.step, name))
        reminder.daemon = True
        reminder.start()
        started = time.perf_counter()
        try:
            yield
        finally:
            reminder.cancel()
            took = time.perf_counter() - started
            self.add(name, took, by_xla=by_xla)
            logger.info("%s: %s: %.2f s", self.step, name, took)

    def add(self, name: str, seconds: float, *, by_xla: bool = False) -> None:
        """Count seconds as of a phase.

        Args:
            name: what was done.
            seconds: how long it took; below 0 to take away what another phase counts.
            by_xla: whether XLA did it.
        """
        with self._lock:
            self.seconds[name] += seconds
            if by_xla:
                self.xla.add(name)

    @property
    def ours(self) -> float:
        """Seconds that XLA did not take."""
        return sum(s for name, s in self.seconds.items() if name not in self.xla)
