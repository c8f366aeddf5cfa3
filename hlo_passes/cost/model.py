"""What a cost is and who may be asked for one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op


class CostSource(StrEnum):
    """Where a cost comes from. Only `MEASURED` was ever read off a clock."""

    MEASURED = "measured"
    GIVEN = "given"
    """By the user, for an opaque exchange."""
    XLA = "xla"
    FITTED = "fitted"
    ROOFLINE = "roofline"
    LINK = "link"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Cost:
    """Time that one execution takes.

    Attributes:
        us: microseconds.
        source: where the figure comes from.
        error: relative error that the source is known to have; 0 where it is not known.
    """

    us: float
    source: CostSource
    error: float = 0.0


class CostModel(Protocol):
    """Prices ops and exchanges for one target."""

    @property
    def name(self) -> str:
        """The target that it prices for, as a user would write it."""
        ...

    @property
    def contention(self) -> float:
        """Fraction by which an exchange in flight slows compute beside it."""
        ...

    @property
    def decide_us(self) -> float:
        """Us that compute idles while the host finds out whether a loop goes on."""
        ...

    def for_graph(self, graph: Graph) -> "CostModel":
        """Return this model with knowledge of one graph, for prices that need its neighbours."""
        ...

    def compute(self, op: Op) -> Cost:
        """Price one execution of a compute op that is no loop."""
        ...

    def exchange(self, collective: Collective, fraction: float = 1.0) -> Cost:
        """Price one exchange of `fraction` of its bytes, nothing else on its links."""
        ...
