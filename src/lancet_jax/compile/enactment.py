"""Enacts what was decided: what to compile, and what to do while XLA compiles it and after."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxlib.mlir import ir

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.schedule_dw import ScheduleDw
from lancet_jax.compile.cut_memory import CutMemory
from lancet_jax.compile.inside_xla import ScheduleEdit
from lancet_jax.compile.outcome import Outcome
from lancet_jax.peers.agree import SharedPlans
from lancet_jax.seams import compiling
from lancet_jax.seams.step_module import copied, mark


@dataclass(frozen=True)
class Enactment:
    """A rewritten step, ready to be compiled, once or under several sets of XLA options.

    Attributes:
        module: the step; it is copied.
        schedule: how XLA's schedule is to be ordered; None where the order is pinned in `module`.
        devices: how many run it.
        costs: prices for the target.
        shared: plans of the first process, where it plans for all.
        opaque: custom calls that are exchanges.
        memory_limit: bytes of a device for arguments, results and temporaries.
        memory: what a cut step has to be held against.
        complain: told of every outcome in the end.
    """

    module: ir.Module
    schedule: ScheduleDw | None
    devices: int
    costs: TargetCosts
    shared: SharedPlans
    opaque: tuple[OpaqueExchange, ...]
    memory_limit: int | None
    memory: CutMemory | None
    complain: Callable[[Outcome], None]

    def prepared(
        self, outcome: Outcome, options: Mapping[str, Any], uncut_bytes: int = 0
    ) -> compiling.Prepared:
        """Return what to compile.

        Args:
            outcome: where what becomes of it is noted.
            options: XLA options.
            uncut_bytes: temporaries of the same step uncut, as compiled; 0 if that is not known.
        """
        module = copied(self.module)
        mark(module, outcome.salt)
        edit = None
        if self.schedule is not None:
            edit = ScheduleEdit(
                self.schedule, self.devices, self.costs, outcome, self.shared, self.opaque,
                self.memory_limit, uncut_bytes,
            )  # fmt: skip

        def finish(executable: Any) -> None:
            if edit is not None:
                edit.on_finished(executable)
            if self.memory is not None:
                outcome.notes += self.memory.notes(executable, self.memory_limit, uncut_bytes)
            self.complain(outcome)

        on_scheduled = edit.callbacks if edit is not None else ()
        return compiling.Prepared(module, dict(options), on_scheduled, finish)
