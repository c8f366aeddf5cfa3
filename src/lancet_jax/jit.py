"""`lancet_jax.jit`: the one line that a user changes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import jax

from hlo_passes.base import Pipeline
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import parse_target
from hlo_passes.facts.footprint import parse_limit
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.pipelines import DEFAULT, parse_pipeline
from lancet_jax.aot import Target
from lancet_jax.audit.first_call import AuditWhen
from lancet_jax.compile.outcome import Outcome
from lancet_jax.compile.rewriter import OnUnsupported, PlanOn, StepRewriter, is_disabled
from lancet_jax.errors import OptionError
from lancet_jax.seams import compiling, programs
from lancet_jax.stages import Lowered


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    pipeline: str | Pipeline = DEFAULT,
    target: str | Target | None = None,
    costs: str | Path | None = None,
    on_unsupported: OnUnsupported = "warn",
    plan_on: PlanOn = "every",
    peer_timeout_s: float = 600.0,
    opaque: Sequence[OpaqueExchange] = (),
    memory_limit: int | str | None = None,
    check_cuts: bool = True,
    audit: AuditWhen = "first",
    **jit_kwargs: Any,
) -> Any:
    """Compile `fun` as `jax.jit` does, with its exchanges hidden behind its compute.

    The step gives the same outputs, bit for bit unless a pass of the pipeline says otherwise. One
    that XLA would partition is partitioned first where the pipeline cuts (`exchange`, `lancet`,
    `full`, `best`): XLA runs up to its partitioner once more.

    Args:
        fun: a function, or what `jax.jit` or `nnx.jit` made of one. Without it: a decorator.
        pipeline: a preset (`dw`, `off`), the text form of passes
            (`schedule-dw{strategy=greedy}`), or a `Pipeline`, of passes of your own too.
        target: what to plan for (`h100:1x8`); by default the devices that the arguments live on.
        costs: a table of measured times, as `lancet-jax calibrate` writes it, for devices of the
            target's kind; by default the target's own figures.
        on_unsupported: `warn`, `raise` or `ignore` if the step can only run as it is.
        plan_on: of many processes, whether `every` one plans (and plans are compared) or the
            `first` for all, which saves CPU time and allows for machines that differ.
        peer_timeout_s: seconds that the first process waits for the others; they wait twice that.
        opaque: custom calls (FFI targets) that are exchanges; see `OpaqueExchange`.
        memory_limit: what the step may need of a device, arguments and results included (`70GiB`).
        check_cuts: on GPUs, whether XLA compiles a step that passes chose to cut uncut as well, to
            keep the program whose final schedule is shorter; costs such steps a second compile.
        audit: whether the `first` call of a step that passes cut runs it uncut as well, compares
            every output, and keeps it uncut if one differs (`docs/audit.md`); False if not.
        **jit_kwargs: passed on to `jax.jit`. Not allowed around a function that is jitted already.

    Returns:
        A function like that of `jax.jit`, whose `lower(...)` gives a `lancet_jax.Lowered`.

    Raises:
        OptionError: if an option makes no sense. Calling the step raises `PeerError` if another
            process would run another program, or does not come.
        InputError: if the table of costs cannot be read.
    """
    if fun is None:
        return functools.partial(
            jit, pipeline=pipeline, target=target, costs=costs, on_unsupported=on_unsupported,
            plan_on=plan_on, peer_timeout_s=peer_timeout_s, opaque=opaque,
            memory_limit=memory_limit, check_cuts=check_cuts, audit=audit, **jit_kwargs,
        )  # fmt: skip
    _check_choices(on_unsupported, plan_on, audit, jit_kwargs if programs.is_jitted(fun) else {})
    passes = parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
    jitted = fun if programs.is_jitted(fun) else jax.jit(fun, **jit_kwargs)
    name, table, limit = _checked(target, costs, memory_limit)
    known = table, tuple(opaque), limit, check_cuts, audit
    return Step(jitted, StepRewriter(passes, name, on_unsupported, plan_on, peer_timeout_s, *known))


def _checked(
    target: str | Target | None, costs: str | Path | None, memory_limit: int | str | None
) -> tuple[str | None, str | None, int | None]:
    """Return a target's name, a table's path and a limit in bytes, after making sure of them."""
    name = target.name if isinstance(target, Target) else target
    if name is not None:
        parse_target(name)
    if costs is not None:
        CostTable.load(costs)
    limit = parse_limit(memory_limit)
    return name, str(costs) if costs is not None else None, limit


def _check_choices(
    on_unsupported: str, plan_on: str, audit: AuditWhen, too_late: Mapping[str, Any]
) -> None:
    if too_late:
        raise OptionError("lancet_jax.jit", f"{sorted(too_late)} given for a jitted function",
                          "give them to the inner jit, or pass the plain function")  # fmt: skip
    if audit not in ("first", False):
        raise OptionError("audit", f"{audit!r} is no choice", "use 'first' or False")
    if plan_on not in ("every", "first"):
        raise OptionError("plan_on", f"{plan_on!r} is no choice", "use 'every' or 'first'")
    if on_unsupported not in ("warn", "raise", "ignore"):
        raise OptionError("on_unsupported", f"{on_unsupported!r} is no policy",
                          "use 'warn', 'raise' or 'ignore'")  # fmt: skip


_TRACED = (
    "called while JAX traces another function: it is compiled as a part of that, and planned and "
    "audited only if that one is wrapped itself"
)


class Step:
    """A function wrapped by `lancet_jax.jit`.

    Args:
        jitted: what `jax.jit` made of it.
        rewriter: what to do when it is compiled.
    """

    def __init__(self, jitted: Any, rewriter: StepRewriter) -> None:
        self._jitted = jitted
        self._rewriter = rewriter
        self._traced: tuple[Outcome, ...] = ()
        functools.update_wrapper(self, jitted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step, compiling it for new shapes."""
        if is_disabled():
            return self._jitted(*args, **kwargs)
        with compiling.rewriting(self._rewriter):
            results = self._jitted(*args, **kwargs)
        if not self._rewriter.outcomes and _is_traced(results):
            self._traced = (Outcome(notes=[_TRACED]),)
        return results

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Lower for arguments or `jax.ShapeDtypeStruct`s, and plan."""
        if is_disabled():
            return Lowered(self._jitted.lower(*args, **kwargs), self._rewriter)
        with compiling.rewriting(self._rewriter):
            return Lowered(self._jitted.lower(*args, **kwargs), self._rewriter)

    @property
    def plain(self) -> Any:
        """The function as `jax.jit` made it, untouched."""
        return self._jitted

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of every compile that calling the step caused, oldest first.

        Helpers that JAX compiles on one device meanwhile are left out, unless there is nothing
        else. A step wrapped twice alike shares JAX's caches, and is compiled once.
        """
        found = tuple(self._rewriter.outcomes) or self._traced
        return tuple(o for o in found if o.devices > 1) or found

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._jitted, name)


def _is_traced(results: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(results))
