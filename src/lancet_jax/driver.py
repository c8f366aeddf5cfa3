"""What happens to one step between lowering and running: plan, rewrite, read back.

The order is enforced where it is exact. If XLA calls back after scheduling (CUDA and CPU, jax
0.12), the schedule itself is planned and edited there, on the ops that will run and at XLA's own
costs. Elsewhere the order is planned on StableHLO and pinned with barriers.
"""

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Literal

from jaxlib.mlir import ir

from hlo_passes.base import Context, Pass, Pipeline
from hlo_passes.choose_split import describe_race
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import Target, parse_target, target_of_devices
from hlo_passes.errors import LancetError
from hlo_passes.ir.module import Module
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.pin_order import PinOrder
from hlo_passes.plan.plan import Plan
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.verify import (
    rank_dependent_exchanges,
    verify_exchange_pairs,
    verify_reordering,
)
from lancet_jax import _jax
from lancet_jax.errors import LancetWarning, UnsupportedError
from lancet_jax.outcome import Outcome, recall, remember
from lancet_jax.partition import source_of

type OnUnsupported = Literal["warn", "raise", "ignore"]

DISABLE = "LANCET_JAX_DISABLE"
"""Environment variable that turns `lancet_jax.jit` into plain `jax.jit`; read at every call."""


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
        outcomes: what became of every compile, newest last.
    """

    passes: Pipeline
    target: str | None = None
    on_unsupported: OnUnsupported = "warn"
    outcomes: list[Outcome] = field(default_factory=list, compare=False, repr=False)

    def costs(self, devices: Sequence[Any]) -> TargetCosts:
        """Return prices for the given target, or for the one that `devices` are.

        XLA's own costs count only if it compiles for the target.

        Raises:
            OptionError: if the devices are of a kind that no profile describes.
        """
        target = resolve_target(self.target, devices)
        is_same = devices[0].device_kind in target.profile.device_kinds
        return TargetCosts(target, xla_compute=is_same, program_devices=len(devices))

    # ------------------------------------------------------------------ around one compile

    def prepare(
        self, module: ir.Module, devices: Sequence[Any], partition: Callable[[], bytes]
    ) -> _jax.Prepared | None:
        """Return what to compile instead of `module`; None to leave it alone."""
        outcome = Outcome(devices=len(devices))
        self.outcomes.append(outcome)
        started = time.perf_counter()
        try:
            return self._prepare(module, devices, partition, outcome)
        except Exception as error:
            outcome.error = error
            self._complain(outcome)
            return None
        finally:
            outcome.seconds += time.perf_counter() - started

    def _prepare(
        self,
        module: ir.Module,
        devices: Sequence[Any],
        partition: Callable[[], bytes],
        outcome: Outcome,
    ) -> _jax.Prepared | None:
        options = compile_only_options(devices)
        if len(devices) == 1:
            outcome.notes.append("one device: there is nothing to exchange")
        elif not self.passes.passes:
            outcome.notes.append("pipeline off: the module was left as it is")
        else:
            return self._rewrite(module, devices, partition, options, outcome)
        return _jax.Prepared(module, options) if options else None

    def _rewrite(
        self,
        module: ir.Module,
        devices: Sequence[Any],
        partition: Callable[[], bytes],
        options: dict[str, Any],
        outcome: Outcome,
    ) -> _jax.Prepared:
        """Run what edits StableHLO now, and prepare what edits the schedule."""
        costs = self.costs(devices)
        now, schedule = self._split(_jax.has_post_scheduler(devices[0].platform))
        if now:
            ragged = devices[0].platform == "gpu"
            source = source_of(Module.copy_of(module), now, len(devices), partition)
            outcome.partition_seconds = source.seconds
            ours, plans = run_on_stablehlo(source.module, now, costs, ragged=ragged)
            outcome.cuts = tuple(plan for plan in plans if plan.splits)
            outcome.notes += [*source.notes, *(note for plan in plans for note in _notes_of(plan))]
            options |= split_options(devices, bool(outcome.cuts))
            if schedule is None:
                outcome.plan, outcome.pins = plans[0], sum(len(p.pins) for p in plans)
                outcome.notes.append("the order is pinned by barriers in StableHLO")
            is_kept = source.is_partitioned and ours is source.module
            clone = _jax.clone(module) if is_kept else ours.ir
        else:
            clone = _jax.clone(module)
        salt = self.salt(costs, clone)
        _jax.mark(clone, salt)

        def finish() -> None:
            if schedule is not None and outcome.error is None and outcome.plan is None:
                outcome.plan = recall(salt)
                outcome.notes.append("from JAX's persistent compilation cache")
            self._complain(outcome)

        if schedule is None:
            return _jax.Prepared(clone, options, None, finish)

        def on_scheduled(proto: bytes) -> bytes | None:
            if salt.encode() not in proto:
                return None
            started = time.perf_counter()
            try:
                with _no_collection():
                    changed = reorder(proto, len(devices), schedule, costs, outcome)
            except Exception as error:
                outcome.error = error
                return None
            finally:
                outcome.seconds += time.perf_counter() - started
            if outcome.plan is not None:
                remember(outcome.plan, salt)
            return changed

        return _jax.Prepared(clone, options | cost_options(devices), on_scheduled, finish)

    def _split(self, has_post_scheduler: bool) -> tuple[tuple[Pass, ...], ScheduleDw | None]:
        """Return the passes to run on StableHLO, and the decision to enact on XLA's schedule."""
        passes = self.passes.passes
        if not has_post_scheduler:
            return (*passes, *(() if PinOrder() in passes else (PinOrder(),))), None
        schedules = [p for p in passes if isinstance(p, ScheduleDw)]
        others = tuple(p for p in passes if not isinstance(p, ScheduleDw))
        return others, schedules[-1] if schedules else None

    def salt(self, costs: TargetCosts, module: ir.Module) -> str:
        """Return 16 hex digits over everything that the rewritten program depends on."""
        parts = [
            version("lancet-jax"),
            version("jaxlib"),
            self.passes.spec,
            costs.name,
            costs.fingerprint,
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


def _devices_per_node(devices: Sequence[Any]) -> int | None:
    """Devices that share a process, where that tells nodes apart; one process a GPU does not."""
    per_process = len(devices) // len({device.process_index for device in devices})
    return per_process if per_process > 1 else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: planning makes many objects, hardly a cycle among them, and
    every collection would walk through all that JAX keeps besides.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def reorder(
    proto: bytes, devices: int, schedule: ScheduleDw, costs: TargetCosts, outcome: Outcome
) -> bytes | None:
    """Plan and edit a schedule that XLA made.

    Args:
        proto: the scheduled HloModuleProto.
        devices: how many run it.
        schedule: how the order is decided.
        costs: prices for the target.
        outcome: where to leave the plan.

    Returns:
        The proto with another schedule; None if no order is worth a change.
    """
    module = ScheduledModule.from_proto(proto, devices=devices)
    graph = module.snapshot()
    verify_exchange_pairs(graph)
    step = ReorderScheduled(schedule)
    plan = step.plan(graph, Context(costs=costs, fingerprint=module.fingerprint))
    stock_bytes = plan.before.peak_bytes if plan.before else 0
    verify_reordering(graph, plan.orders, int(stock_bytes * (1 + schedule.memory_slack)))
    for name in rank_dependent_exchanges(graph):
        outcome.notes.append(f"{name} runs on some ranks only: it can wait for ever, in any order")
    outcome.plan, outcome.graph, outcome.costs = plan, graph, costs
    result = step.apply(module, plan)
    assert isinstance(result.module, ScheduledModule)
    return result.module.proto if result.changed else None


def run_on_stablehlo(
    module: Module, passes: Sequence[Pass], costs: TargetCosts, *, ragged: bool = False
) -> tuple[Module, tuple[Plan, ...]]:
    """Run passes on StableHLO, each on what the one before left.

    Returns:
        The rewritten module and the plan of every pass.
    """
    plans = []
    for step in passes:
        graph = module.snapshot()
        context = Context(
            costs=costs.for_graph(graph),
            fingerprint=module.fingerprint,
            module=module,
            ragged=ragged,
        )
        plans.append(step.plan(graph, context))
        rewritten = step.apply(module, plans[-1]).module
        assert isinstance(rewritten, Module)
        module = rewritten
    return module, tuple(plans)


def _notes_of(plan: Plan) -> Iterator[str]:
    """Say what a splitting pass did, and what it left whole."""
    if plan.race:
        yield describe_race(plan)
    if plan.splits:
        yield f"{', '.join(plan.passes)}: cut into {plan.splits[0].k} parts"
    if not plan.orders and not plan.pins:
        for refusal in plan.refusals:
            yield f"{refusal.op} {refusal.reason} {refusal.source}".strip()


def split_options(devices: Sequence[Any], is_split: bool) -> dict[str, Any]:
    """XLA options that keep XLA:GPU from undoing a split.

    Its dot-merger would put the products of several parts that share a weight into one, which then
    waits for all exchanges. Its multi-output fusion puts ops of several parts that read the same
    value into one kernel, which ties the parts together. And a module with ragged exchanges is
    scheduled with no lookahead unless asked to.
    """
    if devices[0].platform != "gpu" or not is_split:
        return {}
    return {
        "xla_disable_hlo_passes": "multi_output_fusion",
        "xla_gpu_dot_merger_threshold_mb": 0,
        "xla_gpu_enable_latency_hiding_scheduler": True,
    }


def compile_only_options(devices: Sequence[Any]) -> dict[str, Any]:
    """XLA options without which nothing compiles, or toy kernels are chosen, without a GPU."""
    if devices[0].platform != "gpu" or not _jax.is_compile_only(devices[0]):
        return {}
    options: dict[str, Any] = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    if (directory := _jax.ptxas_directory()) is not None:
        options["xla_gpu_cuda_data_dir"] = str(directory)
    return options


def cost_options(devices: Sequence[Any]) -> dict[str, Any]:
    """XLA options that make it print its own costs, on the devices that it has costs for."""
    capability = getattr(devices[0], "compute_capability", "")
    kind = devices[0].device_kind
    modern = any(name in kind for name in ("H100", "H200", "B200", "GB200", "B300"))
    if devices[0].platform == "gpu" and (modern or str(capability) >= "9"):
        return {"xla_gpu_collect_cost_model_stats": True}
    return {}
