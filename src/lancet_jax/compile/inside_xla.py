"""Plans and edits the schedule that XLA made for one step, from inside its compile."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.facts.footprint import describe_room, footprint_of
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.stack_frames import ROUNDS, keep_frames
from hlo_passes.ir.opaque import OpaqueExchange, opaque_notes
from hlo_passes.plans import Plan
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.verify import verify_exchange_pairs, verify_reordering
from lancet_jax.compile.collector import no_collection
from lancet_jax.compile.outcome import Outcome, recall, remember
from lancet_jax.peers.agree import Decision, SharedPlans, exchange_order
from lancet_jax.seams import programs


@dataclass
class ScheduleEdit:
    """One step's schedule, planned and edited while XLA compiles it.

    Attributes:
        schedule: how the order is decided.
        devices: how many run it.
        costs: prices for the target.
        outcome: where to leave the plan; its salt marks the module.
        shared: plans of the first process, where it plans for all.
        opaque: custom calls that are exchanges.
        memory_limit: bytes of a device for arguments, results and temporaries.
        uncut_bytes: temporaries that the step needs if it is not cut; 0 if that is not known.
    """

    schedule: ScheduleDw
    devices: int
    costs: TargetCosts
    outcome: Outcome
    shared: SharedPlans
    opaque: tuple[OpaqueExchange, ...] = ()
    memory_limit: int | None = None
    uncut_bytes: int = 0
    _frames: Generator[bytes, bytes, None] | None = field(default=None, init=False)

    @property
    def callbacks(self) -> tuple[Callable[[bytes], bytes | None], ...]:
        """What XLA is to call, in turn, once it has scheduled the module."""
        return (self.on_scheduled, *[self.on_taken_back] * ROUNDS)

    def on_scheduled(self, proto: bytes) -> bytes | None:
        """Return the module with another schedule; None for other modules, or if none is better.

        XLA must not see exceptions: they are kept in the outcome.
        """
        if self.outcome.salt.encode() not in proto:
            return None
        started, self._frames = time.perf_counter(), None
        try:
            with no_collection():
                changed = self._reorder(proto)
        except Exception as error:
            self.outcome.error = error
            self.shared.leave(self._topic, Decision(error=str(error)))
            return None
        finally:
            self.outcome.seconds += time.perf_counter() - started
        if self.outcome.plan is not None:
            remember(self.outcome.plan, self.outcome.salt)
        return changed

    def on_taken_back(self, proto: bytes) -> bytes | None:
        """Give the ops of the module that XLA took back their source lines; None if they have."""
        if self._frames is None or self.outcome.salt.encode() not in proto:
            return None
        started = time.perf_counter()
        try:
            return self._frames.send(proto)
        except StopIteration:
            return None
        except Exception as error:
            self.outcome.notes.append(f"source lines of the compiled module are wrong: {error}")
            return None
        finally:
            self.outcome.seconds += time.perf_counter() - started

    def on_finished(self, executable: Any) -> None:
        """Make sure that all processes have the same order, a cached executable's included.

        Raises:
            PeerError: if another process has another order, or does not come.
        """
        outcome = self.outcome
        if outcome.error is None and outcome.plan is None:
            outcome.plan = recall(outcome.salt)
            outcome.notes.append("from JAX's persistent compilation cache")
            self.shared.leave(self._topic, Decision((outcome.plan,) if outcome.plan else ()))
        peers = self.shared.peers
        if peers is None:
            return
        known = outcome.plan.hash if outcome.plan else ""
        peers.agree(f"order/{outcome.salt}", {
            "plan": "left as it was" if outcome.error else known,
            "exchanges": exchange_order(programs.hlo_of(executable), self.opaque),
            "why": str(outcome.error or ""),
        })  # fmt: skip

    @property
    def _topic(self) -> str:
        return f"order-plan/{self.outcome.salt}"

    def _reorder(self, proto: bytes) -> bytes | None:
        """Plan, check and edit a serialized HloModuleProto."""
        module = ScheduledModule.from_proto(proto, devices=self.devices, opaque=self.opaque)
        graph = module.snapshot()
        self.outcome.notes += opaque_notes(graph, self.opaque)
        verify_exchange_pairs(graph)
        step = ReorderScheduled(self.schedule)
        made = self.shared.made(self._topic)
        context = Context(costs=self.costs, fingerprint=module.fingerprint,
                          memory_limit=self.memory_limit,
                          uncut_bytes=self.uncut_bytes)  # fmt: skip
        plan: Plan = (
            made.plans[0] if made is not None and made.plans
            else step.plan(graph, context)
        )  # fmt: skip
        plan.check(module.fingerprint)
        self.shared.leave(self._topic, Decision((plan,)))
        stock_bytes = plan.before.peak_bytes if plan.before else 0
        room = context.room(graph)
        limit = self.schedule.limit(stock_bytes, room, self.uncut_bytes)
        verify_reordering(graph, plan.orders, limit)
        verify_no_deadlock(graph, plan.orders)
        if self.memory_limit is not None:
            planned = plan.after.peak_bytes if plan.after else 0
            held = footprint_of(graph)
            note = describe_room(held, self.memory_limit, stock_bytes, planned)
            self.outcome.notes.append(note)
        self.outcome.plan, self.outcome.graph, self.outcome.costs = plan, graph, self.costs
        result = step.apply(module, plan)
        assert isinstance(result.module, ScheduledModule)
        if not result.changed or result.module.proto is None:
            return None
        self._frames = keep_frames(result.module.proto)
        return next(self._frames)
