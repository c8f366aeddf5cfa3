"""Compiles the program that was decided on, with its schedule edited on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hlo_passes.plans import Plan
from lancet_jax.audit.room import Memory
from lancet_jax.compile.candidate import Candidate
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.inside_xla import Scheduled, ScheduleEdit, Scheduler, room_note
from lancet_jax.compile.job import StepJob
from lancet_jax.compile.xla_program import XlaProgram, options_of
from lancet_jax.peers.agree import Peers, SharedPlans, exchange_order
from lancet_jax.peers.decided import Decided
from lancet_jax.seams.compiling import Xla, XlaOptions
from lancet_jax.seams.programs import hlo_of


@dataclass(frozen=True)
class Enacted:
    """A program that XLA has compiled.

    Attributes:
        candidate: what passes made of the step.
        program: what XLA was given.
        executable: what it made; None if it was stopped once it had scheduled.
        scheduled: the schedule before and after our passes; None where XLA did not call back.
        is_cached: whether it came out of JAX's persistent cache.
        error: what went wrong with the schedule, which then is XLA's own.
        notes: what a reader should know.
    """

    candidate: Candidate
    program: XlaProgram
    executable: Any = field(repr=False)
    scheduled: Scheduled | None
    is_cached: bool = False
    error: Exception | None = None
    notes: tuple[str, ...] = ()

    @property
    def memory(self) -> Memory | None:
        """What the executable needs of a device; None where XLA does not say."""
        return Memory.of(self.executable)

    def fits(self, memory_limit: int | None) -> bool:
        """Whether it needs no more of a device than so many bytes, as far as XLA says."""
        needed = self.memory if memory_limit is not None else None
        return needed is None or memory_limit is None or needed.total <= memory_limit

    def too_large(self, memory_limit: int | None) -> str:
        """Say that it needs more than there is."""
        needed = self.memory
        assert needed is not None
        assert memory_limit is not None
        return (
            f"{self.candidate.name} needs {needed.total / 1e6:,.1f} MB as compiled, more than the"
            f" limit of {memory_limit / 1e6:,.1f} MB (memory_limit)"
        )


@dataclass(frozen=True)
class Enactment:
    """How candidates are compiled in full.

    Attributes:
        job: for whom.
        xla: compiles.
        shared: what the first process decides for all.
        prices: name and fingerprint of the costs that it is planned with.
        clock: where the time goes.
    """

    job: StepJob
    xla: Xla
    shared: SharedPlans
    prices: str
    clock: Clock

    @property
    def scheduler(self) -> Scheduler:
        """What is done to schedules."""
        job = self.job
        passes, known = job.behind_scheduler, job.for_passes()
        return Scheduler(passes, known, len(job.devices), job.options.exchanges)

    @property
    def fellows(self) -> Peers | None:
        """The processes that decide, too; None if one decides for all, or there is but one."""
        return None if self.shared.is_used else self.job.peers

    def program(self, one: Candidate) -> XlaProgram:
        """Return a candidate as XLA gets it."""
        return XlaProgram.of(one, self.job, self.prices)

    def options(self, one: Candidate) -> XlaOptions:
        """Return the XLA options that a candidate is compiled with."""
        return options_of(one, self.job)

    def compile(
        self,
        one: Candidate,
        orders: Sequence[Plan] = (),
        accept: Callable[[Scheduled], None] = lambda found: None,
    ) -> Enacted:
        """Compile a candidate.

        Args:
            one: the candidate.
            orders: plans of the passes behind the scheduler, where they were made before.
            accept: looks at what was scheduled; raises `Stopped` to end the compile there.

        Raises:
            JaxRuntimeError: if XLA cannot compile it.
            PeerError: if another process has another order, or does not come.
        """
        program = self.program(one)
        topic = f"order-plan/{program.salt}"

        def known() -> Sequence[Plan]:
            theirs = self.shared.made(topic)
            return orders if theirs is None else theirs.orders

        edit = ScheduleEdit(self.scheduler, program.salt, known, accept)
        is_ordered = bool(self.scheduler.passes.passes)
        executable = None
        with self.clock.phase(f"XLA compiles {one.name!r}", by_xla=True):
            try:
                executable = self.xla.compile(
                    program.module, program.options, edit.callbacks if is_ordered else ()
                )
            except Exception:
                if not edit.stopped:
                    raise
        self.clock.add(f"XLA compiles {one.name!r}", -edit.seconds, by_xla=True)
        self.clock.add(f"order {one.name!r}", edit.seconds)
        found, is_cached = edit.found, is_ordered and edit.found is None and edit.error is None
        plans = found.plans if found is not None else tuple(orders) if is_cached else ()
        self.shared.leave(topic, Decided(orders=plans, error=str(edit.error or "")))
        if executable is not None and is_ordered:
            self._agree_on_order(program.salt, plans, executable, edit.error)
        return Enacted(
            one, program, executable, found, is_cached, edit.error, self._notes(edit, is_cached)
        )

    def _agree_on_order(
        self, salt: str, plans: Sequence[Plan], executable: Any, error: Exception | None
    ) -> None:
        """Make sure that all processes have the same order, a cached executable's included."""
        if self.job.peers is None:
            return
        self.job.peers.agree(f"order/{salt}", {
            "plan": "left as it was" if error else ",".join(plan.hash for plan in plans),
            "exchanges": exchange_order(hlo_of(executable), self.job.options.exchanges),
            "why": str(error or ""),
        })  # fmt: skip

    def _notes(self, edit: ScheduleEdit, is_cached: bool) -> tuple[str, ...]:
        """Say what became of the schedule."""
        notes = list(edit.notes)
        if edit.found is not None:
            notes[:0] = edit.found.notes
            if self.job.options.limit is not None and self.job.memory_limit is not None:
                notes.append(room_note(edit.found, self.job.memory_limit))
        if is_cached:
            notes.append("from JAX's persistent compilation cache")
        return tuple(notes)
