"""What happens to one step between lowering and running: plan, rewrite, read back.

The order is enforced where it is exact. If XLA calls back after scheduling (CUDA and CPU, jax
0.12), the schedule itself is planned and edited there, on the ops that will run and at XLA's own
costs. Elsewhere the order is planned on StableHLO and pinned with barriers.
"""

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Literal

from jaxlib.mlir import ir

from hlo_passes.base import Pass, Pipeline
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import Target, parse_target, target_of_devices
from hlo_passes.errors import LancetError
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pin_order import PinOrder
from hlo_passes.schedule_dw import ScheduleDw
from lancet_jax.audit.first_call import Audit, AuditWhen, check_not_dropped
from lancet_jax.audit.step_facts import StepFacts
from lancet_jax.compile.before_xla import notes_of, run_on_stablehlo
from lancet_jax.compile.collector import no_collection
from lancet_jax.compile.contest import Contest
from lancet_jax.compile.cut_memory import CutMemory
from lancet_jax.compile.enactment import Enactment
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.partition import source_of
from lancet_jax.compile.rivals import Rivals, uncut
from lancet_jax.compile.untied import Untied
from lancet_jax.errors import LancetWarning, PeerError, UnsupportedError
from lancet_jax.peers.agree import Decision, Peers, SharedPlans
from lancet_jax.seams import backends, compiling
from lancet_jax.seams.step_module import copied, fingerprint
from lancet_jax.seams.xla_options import compile_only_options, cost_options, split_options

type OnUnsupported = Literal["warn", "raise", "ignore"]
type PlanOn = Literal["every", "first"]

DISABLE = "LANCET_JAX_DISABLE"
"""Environment variable that turns `lancet_jax.jit` into plain `jax.jit`; read at every call."""

_CONTROL = ("stablehlo.case", "stablehlo.if", "stablehlo.while")
"""Ops that devices can decide differently; XLA's schedule does not say what they were given."""


def is_disabled() -> bool:
    """Whether the user asked for plain jit."""
    return os.environ.get(DISABLE, "") not in ("", "0")


@dataclass(frozen=True)
class StepRewriter:
    """Rewrites the modules of one wrapped function. Equal if it would do the same.

    Attributes:
        passes: what to run, in this order.
        target: what to plan for; None to look at the devices.
        on_unsupported: what to do about a step that cannot be optimised.
        plan_on: which processes of a job plan: `every` one, or the `first` for all.
        peer_timeout_s: seconds that the first process waits for the others.
        table: file of measured costs; None for the target's own.
        opaque: custom calls that are exchanges.
        memory_limit: bytes of a device for arguments, results and temporaries; None for no limit.
        check_cuts: whether XLA compiles a step that passes chose to cut uncut as well, on GPUs.
        audit: when a cut step is held against the uncut one on the user's own data, if ever.
        outcomes: what became of every compile, newest last.
    """

    passes: Pipeline
    target: str | None = None
    on_unsupported: OnUnsupported = "warn"
    plan_on: PlanOn = "every"
    peer_timeout_s: float = 600.0
    table: str | None = None
    opaque: tuple[OpaqueExchange, ...] = ()
    memory_limit: int | None = None
    check_cuts: bool = True
    audit: AuditWhen = "first"
    outcomes: list[Outcome] = field(default_factory=list, compare=False, repr=False)

    def costs(self, devices: Sequence[Any]) -> TargetCosts:
        """Return prices for the given target, or for the one that `devices` are.

        XLA's own costs count only if it compiles for the target.

        Raises:
            OptionError: if the devices are of a kind that no profile describes, or not of the kind
                that the table was measured on.
            InputError: if the table cannot be read.
        """
        target = resolve_target(self.target, devices)
        is_same = devices[0].device_kind in target.profile.device_kinds
        table = CostTable.load(self.table) if self.table is not None else None
        if table is not None:
            table.check_device(target)
        return TargetCosts(
            target, table, xla_compute=is_same, program_devices=len(devices),
            places=_places(devices),
        )  # fmt: skip

    def checks(self, devices: Sequence[Any]) -> bool:
        """Whether a step that is cut for `devices` has to compete with the uncut one."""
        platform = devices[0].platform
        is_open = uncut(self.passes.passes) is not None
        is_shown = platform == "gpu" and backends.has_post_scheduler(platform)
        return self.check_cuts and is_open and is_shown

    # ------------------------------------------------------------------ around one compile

    def prepare(self, request: compiling.Request) -> compiling.Prepared | None:
        """Return what to compile instead of what jit lowered; None to leave it alone.

        Raises:
            PeerError: if another process would compile something else, or does not come.
        """
        module, devices = request.module, request.devices
        outcome = Outcome(devices=len(devices))
        self.outcomes.append(outcome)
        peers = Peers.of(module, devices, self.peer_timeout_s)
        shared = SharedPlans(peers, self.plan_on == "first")
        if peers is not None and shared.is_used:
            peers.agree("question", self._question(module))
        prepared, started = None, time.perf_counter()
        try:
            with no_collection():
                prepared = self._prepare(request, outcome, shared)
        except PeerError:
            raise
        except Exception as error:
            outcome.error = error
            shared.leave(self._topic(module), Decision(error=str(error)))
        finally:
            outcome.seconds += time.perf_counter() - started
        if peers is not None:
            peers.agree("program", self._question(module) | outcome.facts())
        self._complain(outcome)
        return prepared

    def _question(self, module: ir.Module) -> dict[str, str]:
        """Return what a plan depends on, prices aside."""
        return {
            "lancet-jax": version("lancet-jax"),
            "jaxlib": version("jaxlib"),
            "pipeline": self.passes.spec or "off",
            "target option": self.target or "none",
            "plan_on": self.plan_on,
            "opaque": repr(self.opaque),
            "memory limit": repr(self.memory_limit),
            "check_cuts": repr(self.check_cuts),
            "audit": repr(self.audit),
            "module": fingerprint(module),
        }

    def _topic(self, module: ir.Module) -> str:
        """Return where the first process leaves its plans for a module."""
        return f"plans/{self.passes.spec}/{self.target}/{fingerprint(module)}"

    def _prepare(
        self, request: compiling.Request, outcome: Outcome, shared: SharedPlans
    ) -> compiling.Prepared | None:
        module, devices = request.module, request.devices
        options = compile_only_options(devices)
        if len(devices) == 1:
            outcome.notes.append("one device: there is nothing to exchange")
        elif not self.passes.passes:
            outcome.notes.append("pipeline off: the module was left as it is")
        else:
            return self._rewrite(request, options, outcome, shared)
        return compiling.Prepared(module, options) if options else None

    def _rewrite(
        self,
        request: compiling.Request,
        options: dict[str, Any],
        outcome: Outcome,
        shared: SharedPlans,
    ) -> compiling.Prepared:
        """Run what edits StableHLO now, and prepare what edits the schedule."""
        module, devices = request.module, request.devices
        costs = self.costs(devices)
        first = shared.made(self._topic(module))
        prices = first.prices if first else f"{costs.name} {costs.fingerprint}"
        now, schedule = self._split(backends.has_post_scheduler(devices[0].platform))
        memory: CutMemory | None = None
        if now:
            clone, memory = self._edited(request, now, costs, first, outcome)
            options |= split_options(devices, bool(outcome.cuts))
        else:
            clone = self._checked(module)
        if schedule is None:
            outcome.plan, outcome.pins = outcome.made[0], sum(len(p.pins) for p in outcome.made)
            outcome.notes.append("the order is pinned by barriers in StableHLO")
        shared.leave(self._topic(module), Decision(outcome.made, prices))
        outcome.salt = self.salt(prices, clone)
        check_not_dropped(outcome)
        audit = self._audit(request, clone, outcome, shared.peers)
        first_call = audit.due if audit is not None else compiling.nobody
        if schedule is not None:
            options |= cost_options(devices)
        enactment = Enactment(
            clone, schedule, len(devices), costs, shared, self.opaque, self.memory_limit, memory,
            self._complain,
        )  # fmt: skip
        if not outcome.cuts or devices[0].platform != "gpu":
            return replace(enactment.prepared(outcome, options), first_call=first_call)
        contest = Contest(len(devices), costs, shared.peers, self.opaque, self.memory_limit)
        cut = Untied(enactment, outcome, options, contest)
        if not self.checks(devices):
            return compiling.Prepared(
                clone, options, compile_with=cut.compile, first_call=first_call
            )
        rivals = self._rivals(request, cut, contest, audit)
        return compiling.Prepared(
            clone, options, compile_with=rivals.compile, first_call=first_call
        )

    def _edited(
        self,
        request: compiling.Request,
        passes: Sequence[Pass],
        costs: TargetCosts,
        first: Decision | None,
        outcome: Outcome,
    ) -> tuple[ir.Module, CutMemory | None]:
        """Return what passes make of a step, and what a cut one has to be held against."""
        devices = request.devices
        step = Module.copy_of(request.module, opaque=self.opaque)
        source = source_of(step, passes, len(devices), request.partition)
        outcome.partition_seconds = source.seconds
        ours, plans = run_on_stablehlo(
            source.module, passes, costs,
            ragged=devices[0].platform == "gpu", made=first.plans if first else None,
            memory_limit=self.memory_limit, checked=self.checks(devices),
        )  # fmt: skip
        outcome.made, outcome.cuts = plans, tuple(plan for plan in plans if plan.splits)
        outcome.notes += [*source.notes, *(note for plan in plans for note in notes_of(plan))]
        is_kept = source.is_partitioned and ours is source.module
        memory = None
        if outcome.cuts:
            memory = CutMemory.of(source.module.snapshot(), passes, plans)
        return (copied(request.module) if is_kept else ours.ir), memory

    def _checked(self, module: ir.Module) -> ir.Module:
        """Return a copy of a step that is only to be ordered.

        Raises:
            DeadlockError: if an exchange of it could be waited for for ever.
        """
        clone = copied(module)
        text = clone.operation.get_asm(enable_debug_info=False)
        if any(kind in text for kind in _CONTROL):
            step = Module.copy_of(module, opaque=self.opaque)
            verify_no_deadlock(step.snapshot(), is_local=step.is_local)
        return clone

    def _audit(
        self, request: compiling.Request, cut: ir.Module, outcome: Outcome, peers: Peers | None
    ) -> Audit | None:
        """Return what makes the first call of a step, if it is cut in the end; None for jit."""
        if not self.audit or not outcome.cuts or backends.is_compile_only(request.devices[0]):
            return None
        options = self._question(request.module) | {"program": outcome.salt}
        return Audit(StepFacts.of(request.module), cut, outcome, peers, options)

    def _rivals(
        self, request: compiling.Request, cut: Untied, contest: Contest, audit: Audit | None
    ) -> Rivals:
        """Return what a cut step has to compete with."""
        passes = uncut(self.passes.passes)
        assert passes is not None
        whole = replace(self, passes=passes, outcomes=[])
        memory = cut.enactment.memory
        slack = memory.slack if memory is not None else None
        return Rivals(request, whole, cut, self.outcomes, contest, slack, audit)

    def _split(self, has_post_scheduler: bool) -> tuple[tuple[Pass, ...], ScheduleDw | None]:
        """Return the passes to run on StableHLO, and the decision to enact on XLA's schedule."""
        passes = self.passes.passes
        if not has_post_scheduler:
            return (*passes, *(() if PinOrder() in passes else (PinOrder(),))), None
        schedules = [p for p in passes if isinstance(p, ScheduleDw)]
        others = tuple(p for p in passes if not isinstance(p, ScheduleDw))
        return others, schedules[-1] if schedules else None

    def salt(self, prices: str, module: ir.Module) -> str:
        """Return 16 hex digits over everything that the rewritten program depends on."""
        parts = [
            version("lancet-jax"),
            version("jaxlib"),
            self.passes.spec,
            prices,
            repr((self.opaque, self.memory_limit, self.check_cuts)),
            module.operation.get_asm(enable_debug_info=False),
        ]
        return sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _complain(self, outcome: Outcome) -> None:
        """Say why the step runs as it is, if something went wrong; raise if the user wants that."""
        error = outcome.error
        if error is None:
            return
        outcome.plan = None
        outcome.notes.append(f"left as it was: {error}")
        if self.on_unsupported == "raise":
            if isinstance(error, LancetError):
                raise error
            what = f"{type(error).__name__}: {error}"
            raise UnsupportedError("lancet_jax.jit", what, "report this") from error
        if self.on_unsupported == "warn":
            warnings.warn(f"lancet-jax runs this step as it is: {error}", LancetWarning, 2)


def resolve_target(target: str | None, devices: Sequence[Any]) -> Target:
    """Return the named target, or the one that `devices` are.

    Raises:
        OptionError: if the name or the kind of device is not known.
    """
    if target is not None:
        return parse_target(target)
    return target_of_devices(devices[0].device_kind, len(devices), _devices_per_node(devices))


def _places(devices: Sequence[Any]) -> tuple[int, ...]:
    """Return the place of every partition's device among all, by their ids; () if it is its own.

    Groups of exchanges name partitions, and a mesh says in which order devices run those.
    """
    by_id = sorted(range(len(devices)), key=lambda partition: devices[partition].id)
    place = {partition: i for i, partition in enumerate(by_id)}
    places = tuple(place[partition] for partition in range(len(devices)))
    return () if places == tuple(range(len(devices))) else places


def _devices_per_node(devices: Sequence[Any]) -> int | None:
    """Devices that share a process, where that tells nodes apart; one process a GPU does not."""
    per_process = len(devices) // len({device.process_index for device in devices})
    return per_process if per_process > 1 else None
