"""Compares what XLA made of several programs of one step, by its final schedules."""

from dataclasses import dataclass, field
from typing import Any

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.facts.footprint import footprint_of
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.schedule.simulate import simulate
from hlo_passes.schedule.timeline import prediction_of
from lancet_jax.peers.agree import Peers
from lancet_jax.seams import programs


@dataclass(frozen=True, order=True)
class Result:
    """How a program does; the largest wins.

    Attributes:
        fits: whether it fits into memory.
        negative_us: minus the us that a step takes.
        peak_bytes: the most temporary memory that it holds.
    """

    fits: bool
    negative_us: float
    peak_bytes: int = field(compare=False)

    @property
    def step_us(self) -> float:
        """How long a step takes, in us."""
        return -self.negative_us


@dataclass(frozen=True)
class Contest:
    """By what programs are compared. All processes of a job decide alike, and make sure of it.

    Attributes:
        devices: how many run the step.
        costs: prices for the target.
        peers: who else compiles it.
        opaque: custom calls that are exchanges.
        memory_limit: bytes of a device for arguments, results and temporaries; None for no limit.
    """

    devices: int
    costs: TargetCosts
    peers: Peers | None = None
    opaque: tuple[OpaqueExchange, ...] = ()
    memory_limit: int | None = None

    def enter(self, executable: Any) -> Result:
        """Return how an executable does."""
        return self.result_of(self.module_of(executable))

    def module_of(self, executable: Any) -> ScheduledModule:
        """Return what will run."""
        return ScheduledModule(
            programs.hlo_of(executable), devices=self.devices, opaque=self.opaque
        )

    def result_of(self, module: ScheduledModule) -> Result:
        """Return how a program does."""
        graph = module.snapshot()
        found = prediction_of(simulate(graph, self.costs.for_graph(graph)))
        limit = self.memory_limit
        fits = limit is None or found.peak_bytes <= footprint_of(graph).room(limit)
        return Result(fits, -found.step_us, found.peak_bytes)

    def agree_on_compiling(self, topic: str, executable: Any | None) -> None:
        """Make sure that a program compiles on all processes, or on none.

        Raises:
            PeerError: if it does not, or another process does not come.
        """
        self.agree(topic, "compiles" if executable is not None else "does not compile")

    def agree(self, topic: str, found: str) -> None:
        """Make sure that all processes find the same, and so go on with the same program.

        Raises:
            PeerError: if another process finds something else, or does not come.
        """
        if self.peers is not None:
            self.peers.agree(topic, {"found": found})
