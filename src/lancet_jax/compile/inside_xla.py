"""Plans and edits the schedule that XLA made for one step, from inside its compile."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hlo_passes.base import Job
from hlo_passes.cost.model import CostModel
from hlo_passes.facts.footprint import describe_room, footprint_of
from hlo_passes.facts.ties import tied_in
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.stack_frames import ROUNDS, keep_frames
from hlo_passes.ir.opaque import OpaqueExchange, opaque_notes
from hlo_passes.plans import Plan, Prediction
from hlo_passes.run import Pipeline
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule.timeline import prediction_of
from lancet_jax.compile.collector import no_collection
from lancet_jax.seams.compiling import OnScheduled

WORTH = 0.01
"""What is put together matters only if this share of a step or more is exposed."""


@dataclass(frozen=True)
class Scheduled:
    """A step that XLA has fused and scheduled, and what passes made of the schedule.

    Attributes:
        stock: as XLA left it.
        module: as the passes left it.
        plans: of all passes behind the scheduler, in order.
        costs: prices that it was planned with.
        notes: what a reader should know.
    """

    stock: ScheduledModule = field(repr=False)
    module: ScheduledModule = field(repr=False)
    plans: tuple[Plan, ...]
    costs: CostModel
    notes: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        """The program that was planned on, in XLA's order."""
        return self.stock.snapshot()

    @property
    def order(self) -> Plan | None:
        """The plan that ordered it; None if no pass does that."""
        return next((plan for plan in reversed(self.plans) if plan.after is not None), None)

    @cached_property
    def before(self) -> Prediction:
        """What XLA's order gives."""
        if self.order is not None and self.order.before is not None:
            return self.order.before
        return prediction_of(Simulator(self.graph, self.costs.for_graph(self.graph)).timeline())

    @property
    def after(self) -> Prediction:
        """What the planned order gives."""
        found = self.order.after if self.order is not None else None
        return self.before if found is None else found

    @property
    def device_bytes(self) -> int:
        """Arguments, results and temporaries of a device, in bytes; temporaries are estimated."""
        return footprint_of(self.graph).resident + self.after.peak_bytes

    def fits(self, memory_limit: int | None) -> bool:
        """Whether it needs no more of a device than so many bytes; None for any number."""
        return memory_limit is None or self.device_bytes <= memory_limit

    @cached_property
    def tied(self) -> dict[str, tuple[str, ...]]:
        """What XLA has put together that need not wait together, and that costs; see `facts.ties`.

        Combined exchanges cost where others than all-to-alls are exposed.
        """
        found, after = tied_in(self.stock), self.after
        if after.exposed_us - after.exposed_all_to_all_us < WORTH * after.step_us:
            found.pop("exchanges", None)
        return found if after.exposed_us >= WORTH * after.step_us else {}


@dataclass(frozen=True)
class Scheduler:
    """What is done to schedules.

    Attributes:
        passes: in order.
        job: what they may know.
        devices: how many run the step.
        opaque: custom calls that are exchanges.
    """

    passes: Pipeline
    job: Job
    devices: int
    opaque: tuple[OpaqueExchange, ...] = ()

    def plan(self, proto: bytes, known: Sequence[Plan] = ()) -> Scheduled:
        """Plan, check and edit a serialized HloModuleProto.

        Args:
            proto: what XLA has scheduled.
            known: plans made before; they count if they are of this very module.

        Raises:
            LancetError: if the module cannot be read, or a check fails.
        """
        with no_collection():
            stock = ScheduledModule.from_proto(proto, devices=self.devices, opaque=self.opaque)
            fits = bool(known) and known[0].module == stock.fingerprint
            made, plans = self.passes.run(stock, self.job, plans=known if fits else None)
            assert isinstance(made, ScheduledModule)
            graph = stock.snapshot()
            notes = opaque_notes(graph, self.opaque)
            return Scheduled(stock, made, plans, self.job.costs, tuple(notes))


def room_note(found: Scheduled, limit: int) -> str:
    """Say what a limit of memory leaves for a step's temporaries, and what fits."""
    held = footprint_of(found.graph)
    return describe_room(held, limit, found.before.peak_bytes, found.after.peak_bytes)


class Stopped(Exception):
    """XLA is stopped once it has scheduled: the step is to be compiled another way."""


@dataclass
class ScheduleEdit:
    """Edits one step's schedule while XLA compiles it. XLA must not see exceptions.

    Attributes:
        scheduler: what is done.
        salt: marks the module.
        known: returns plans made before, or none.
        accept: looks at what was planned; raises `Stopped` to end the compile there.
        found: what was planned; None if XLA did not call, or something went wrong.
        error: what went wrong.
        stopped: whether the compile was ended.
        seconds: how long it took.
        notes: what a reader should know besides.
    """

    scheduler: Scheduler
    salt: str
    known: Callable[[], Sequence[Plan]] = tuple
    accept: Callable[[Scheduled], None] = lambda found: None
    found: Scheduled | None = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)
    stopped: bool = field(default=False, init=False)
    seconds: float = field(default=0.0, init=False)
    notes: list[str] = field(default_factory=list, init=False)
    _frames: Generator[bytes, bytes, None] | None = field(default=None, init=False)

    @property
    def callbacks(self) -> tuple[OnScheduled, ...]:
        """What XLA is to call, in turn, once it has scheduled the module."""
        return (self._on_scheduled, *[self._on_taken_back] * ROUNDS)

    def _on_scheduled(self, proto: bytes) -> bytes | None:
        """Return the module with another schedule; None for other modules, or if none is better."""
        if self.salt.encode() not in proto:
            return None
        started, self._frames = time.perf_counter(), None
        try:
            self.found = self.scheduler.plan(proto, self.known())
            self.accept(self.found)
        except Stopped:
            self.stopped = True
            raise
        except Exception as error:
            self.error = error
            return None
        finally:
            self.seconds += time.perf_counter() - started
        changed = self.found.module
        if changed is self.found.stock or changed.proto is None:
            return None
        self._frames = keep_frames(changed.proto)
        return next(self._frames)

    def _on_taken_back(self, proto: bytes) -> bytes | None:
        """Give the ops of the module that XLA took back their source lines; None if they have."""
        if self._frames is None or self.salt.encode() not in proto:
            return None
        started = time.perf_counter()
        try:
            return self._frames.send(proto)
        except StopIteration:
            return None
        except Exception as error:
            self.notes.append(f"source lines of the compiled module are wrong: {error}")
            return None
        finally:
            self.seconds += time.perf_counter() - started
