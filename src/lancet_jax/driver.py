"""What happens to one step between lowering and running: plan, rewrite, read back.

The order is enforced where it is exact. If XLA calls back after scheduling (CUDA and CPU, jax
0.12), the schedule itself is planned and edited there, on the ops that will run and at XLA's own
costs.
Elsewhere the order is planned on StableHLO and pinned with barriers.
"""

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
from jaxlib.mlir import ir

from hlo_passes.base import Context, Pipeline
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import Target, parse_target, target_of_devices
from hlo_passes.errors import LancetError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.module import Module
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.pin_order import PinOrder
from hlo_passes.pipelines import parse_pipeline
from hlo_passes.plan.plan import Plan
from hlo_passes.plan.simulate import simulate
from hlo_passes.plan.timeline import Timeline
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.verify import verify_reordering
from lancet_jax import _jax
from lancet_jax.errors import LancetWarning, UnsupportedError

type OnUnsupported = Literal["warn", "raise", "ignore"]

DISABLE = "LANCET_JAX_DISABLE"
"""Environment variable that turns `lancet_jax.jit` into plain `jax.jit`; read at every call."""


def is_disabled() -> bool:
    """Whether the user asked for plain jit."""
    return os.environ.get(DISABLE, "") not in ("", "0")


@dataclass
class Outcome:
    """What became of one compile.

    Attributes:
        devices: how many devices the module is for.
        plan: what was decided; None if nothing was planned.
        graph, costs: what it was decided on.
        pins: exchanges that barriers tie to what stands beside them.
        planned: names of the ops that take time, in the order asked for, per computation.
        hlo: the module that will run, read back from XLA.
        seconds: time spent in Python, planning and editing.
        notes: what was left alone, and why.
        from_cache: whether the executable came from the persistent cache.
        error: what went wrong; the step then runs as it is.
    """

    devices: int = 0
    plan: Plan | None = None
    graph: Graph | None = None
    costs: TargetCosts | None = None
    pins: int = 0
    planned: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hlo: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    from_cache: bool = False
    error: Exception | None = None

    @cached_property
    def before(self) -> Timeline | None:
        """The schedule that XLA made, and would have run."""
        if self.graph is None or self.costs is None:
            return None
        return simulate(self.graph, self.costs, source="compiled")

    @cached_property
    def after(self) -> Timeline | None:
        """The planned order, by the planner's own simulation."""
        if self.graph is None or self.costs is None or self.plan is None:
            return None
        orders = self.plan.orders
        return simulate(self.graph, self.costs, orders.get(self.graph.name), orders=orders)


@dataclass(frozen=True)
class StepRewriter:
    """Rewrites the modules of one wrapped function. Equal if it would do the same.

    Attributes:
        pipeline: text form of the passes.
        target: what to plan for; None to look at the devices.
        on_unsupported: what to do about a step that cannot be optimised.
        outcomes: what became of every compile, newest last.
    """

    pipeline: str
    target: str | None = None
    on_unsupported: OnUnsupported = "warn"
    outcomes: list[Outcome] = field(default_factory=list, compare=False, repr=False)

    @cached_property
    def passes(self) -> Pipeline:
        """The passes, read."""
        return parse_pipeline(self.pipeline)

    def costs(self, devices: Sequence[Any]) -> TargetCosts:
        """Return prices for the given target, or for the one that `devices` are.

        Raises:
            OptionError: if the devices are of a kind that no profile describes.
        """
        return TargetCosts(target=resolve_target(self.target, devices))

    # ------------------------------------------------------------------ around one compile

    def prepare(self, module: ir.Module, devices: Sequence[Any]) -> _jax.Prepared | None:
        """Return what to compile instead of `module`; None to leave it alone."""
        outcome = Outcome(devices=len(devices))
        self.outcomes.append(outcome)
        started = time.perf_counter()
        try:
            return self._prepare(module, devices, outcome)
        except Exception as error:
            outcome.error = error
            self._complain(outcome)
            return None
        finally:
            outcome.seconds += time.perf_counter() - started

    def _prepare(
        self, module: ir.Module, devices: Sequence[Any], outcome: Outcome
    ) -> _jax.Prepared | None:
        options = compile_only_options(devices)
        if len(devices) == 1:
            outcome.notes.append("one device: there is nothing to exchange")
        elif not self.passes.passes:
            outcome.notes.append("pipeline off: the module was left as it is")
        else:
            costs = self.costs(devices)
            if _jax.has_post_scheduler(devices[0].platform):
                return self._at_post_scheduler(module, devices, costs, options, outcome)
            return self._with_barriers(module, costs, options, outcome)
        return _jax.Prepared(module, options, None) if options else None

    def _at_post_scheduler(
        self,
        module: ir.Module,
        devices: Sequence[Any],
        costs: TargetCosts,
        options: dict[str, Any],
        outcome: Outcome,
    ) -> _jax.Prepared:
        clone = _jax.clone(module)
        salt = self.salt(costs, clone)
        _jax.mark(clone, salt)

        def on_scheduled(proto: bytes) -> bytes | None:
            if salt.encode() not in proto:
                return None
            started = time.perf_counter()
            try:
                return self._reorder(proto, len(devices), costs, outcome)
            except Exception as error:
                outcome.error = error
                return None
            finally:
                outcome.seconds += time.perf_counter() - started

        return _jax.Prepared(clone, options | cost_options(devices), on_scheduled)

    def _reorder(
        self, proto: bytes, devices: int, costs: TargetCosts, outcome: Outcome
    ) -> bytes | None:
        """Plan and edit the schedule that XLA made."""
        module = ScheduledModule.from_proto(proto, devices=devices)
        graph = module.snapshot()
        schedule = next((p for p in self.passes.passes if isinstance(p, ScheduleDw)), ScheduleDw())
        reorder = ReorderScheduled(schedule)
        plan = reorder.plan(graph, Context(costs=costs, fingerprint=module.fingerprint))
        verify_reordering(graph, plan.orders)
        outcome.plan = plan
        outcome.graph, outcome.costs = graph, costs
        result = reorder.apply(module, plan)
        assert isinstance(result.module, ScheduledModule)
        outcome.planned = {
            inside.name: tuple(
                inside.ops[op].name for op in plan.orders[inside.name] if not inside.ops[op].is_free
            )
            for inside, _ in graph.walk()
            if inside.name in plan.orders
        }
        return result.module.proto if result.changed else None

    def _with_barriers(
        self, module: ir.Module, costs: TargetCosts, options: dict[str, Any], outcome: Outcome
    ) -> _jax.Prepared:
        ours, plans = pin_by_barriers(Module.copy_of(module), self.passes, costs)
        outcome.plan, outcome.pins = plans[0], len(plans[-1].pins)
        outcome.notes.append(
            "XLA has no post-scheduler stage here: the order is pinned by barriers"
        )
        _jax.mark(ours.ir, self.salt(costs, ours.ir))
        return _jax.Prepared(ours.ir, options, None)

    def finish(self, executable: Any) -> None:
        """Read back what came out of XLA."""
        outcome = self.outcomes[-1]
        outcome.hlo = _jax.executable_hlo(executable)
        self._complain(outcome)

    def salt(self, costs: TargetCosts, module: ir.Module) -> str:
        """Return 16 hex digits over everything that the rewritten program depends on."""
        parts = [
            version("lancet-jax"), version("jaxlib"), self.pipeline, costs.name, costs.fingerprint,
            module.operation.get_asm(enable_debug_info=False),
        ]  # fmt: skip
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


def pin_by_barriers(
    module: Module, pipeline: Pipeline, costs: TargetCosts
) -> tuple[Module, tuple[Plan, ...]]:
    """Run a pipeline on StableHLO, and then pin the order that it left.

    Returns:
        The rewritten module and the plan of every pass, that of the barriers last.
    """
    plans = []
    for step in (*pipeline.passes, PinOrder()):
        graph = module.snapshot()
        context = Context(costs=costs.for_graph(graph), fingerprint=module.fingerprint)
        plans.append(step.plan(graph, context))
        rewritten = step.apply(module, plans[-1]).module
        assert isinstance(rewritten, Module)
        module = rewritten
    return module, tuple(plans)


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


def cache_directory() -> Path | None:
    """Return JAX's persistent compilation cache, if it is a local directory."""
    place = jax.config.jax_compilation_cache_dir
    return Path(place) if place and "://" not in place else None
