"""The options of `lancet_jax.jit`, declared once.

Signature, documentation, what is salted into a compiled program and what the processes of a job
compare follow from the fields below. A new option is in all of them, unless its field is marked.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import parse_target
from hlo_passes.facts.footprint import parse_limit
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.pipelines import DEFAULT, parse_pipeline
from hlo_passes.run import Pipeline
from lancet_jax.aot import Target
from lancet_jax.errors import OptionError

type OnUnsupported = Literal["warn", "raise", "ignore"]
type PlanOn = Literal["every", "first"]
type AuditWhen = Literal["first", False]
type Search = Literal["quick", "thorough"] | float

_LOCAL = {"is_local": True}
"""Marks an option that processes may differ in, and that no program depends on."""

_SHARED = {"is_shared": True}
"""Marks an option that processes may not differ in, but that no program depends on."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a step is compiled.

    Attributes:
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
        memory_limit: what the step may need of a device, arguments and results included (`70GiB`);
            by default what JAX may use of the device's memory.
        check_cuts: on GPUs, whether XLA's own modules decide between the programs that passes offer
            and the step as it is; else predictions do, and XLA compiles once.
        search: how long to look for the shortest program: `thorough` has XLA try up to `entrants`,
            `quick` the likeliest beside the step as it is; a number is the seconds after which no
            other one is begun.
        entrants: how many programs compete at most, the step as it is included.
        audit: whether the `first` call of a step that passes cut runs it uncut as well, compares
            every output, and keeps it uncut if one differs (`docs/audit.md`); False if not.
    """

    pipeline: str | Pipeline = DEFAULT
    target: str | Target | None = None
    costs: str | Path | None = field(default=None, metadata=_LOCAL)
    on_unsupported: OnUnsupported = field(default="warn", metadata=_LOCAL)
    plan_on: PlanOn = field(default="every", metadata=_SHARED)
    peer_timeout_s: float = field(default=600.0, metadata=_LOCAL)
    opaque: Sequence[OpaqueExchange] = ()
    memory_limit: int | str | None = None
    check_cuts: bool = True
    search: Search = "thorough"
    entrants: int = 4
    audit: AuditWhen = field(default="first", metadata=_SHARED)

    def __post_init__(self) -> None:
        _check_choice("audit", self.audit, ("first", False), "choice")
        _check_choice("plan_on", self.plan_on, ("every", "first"), "choice")
        _check_choice("on_unsupported", self.on_unsupported, ("warn", "raise", "ignore"), "policy")
        if isinstance(self.search, str) or not self.search >= 0:
            _check_choice("search", self.search, ("quick", "thorough"), "choice")
        if self.entrants < 1:
            raise OptionError("entrants", f"{self.entrants} programs cannot compete", "use 4, say")
        if isinstance(self.pipeline, str):
            object.__setattr__(self, "pipeline", parse_pipeline(self.pipeline))
        name = self.target.name if isinstance(self.target, Target) else self.target
        object.__setattr__(self, "target", name)
        if name is not None:
            parse_target(name)
        if self.costs is not None:
            CostTable.load(self.costs)
        object.__setattr__(self, "opaque", tuple(self.opaque))
        object.__setattr__(self, "memory_limit", parse_limit(self.memory_limit))

    @property
    def passes(self) -> Pipeline:
        """The passes to run."""
        assert isinstance(self.pipeline, Pipeline)
        return self.pipeline

    @property
    def exchanges(self) -> tuple[OpaqueExchange, ...]:
        """Custom calls that are exchanges."""
        return tuple(self.opaque)

    @property
    def limit(self) -> int | None:
        """The limit of memory that was given, in bytes; None if none was."""
        assert not isinstance(self.memory_limit, str)
        return self.memory_limit

    def compared(self) -> dict[str, str]:
        """Return every option that all processes of a job have to have alike, as text, by name."""
        return self._texts("is_local")

    def salted(self) -> dict[str, str]:
        """Return every option that the program depends on, as text, by name."""
        return self._texts("is_local", "is_shared")

    def _texts(self, *marks: str) -> dict[str, str]:
        """Return all options but those with certain marks."""
        return {
            option.name.replace("_", " "): _text(getattr(self, option.name))
            for option in dataclasses.fields(self)
            if not any(mark in option.metadata for mark in marks)
        }


def declared[F: Callable[..., Any]](function: F) -> F:
    """Give a function that takes options as `**options` their signature and documentation.

    Its docstring says with `{options}` where they belong.
    """
    own = inspect.signature(function)
    given = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in own.parameters.values() if p.kind is p.VAR_KEYWORD]
    options = [
        inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default,
                          annotation=o.type)
        for o in dataclasses.fields(Options)
    ]  # fmt: skip
    function.__signature__ = own.replace(parameters=[*given, *options, *rest])  # type: ignore[attr-defined]
    _, _, said = (Options.__doc__ or "").partition("Attributes:\n")
    function.__doc__ = (function.__doc__ or "").replace("{options}", said.strip())
    return function


OPTIONS = frozenset(option.name for option in dataclasses.fields(Options))
"""Names of all options."""


def _check_choice(name: str, value: Any, choices: tuple[Any, ...], what: str) -> None:
    if value not in choices:
        said = " or ".join([", ".join(repr(c) for c in choices[:-1]), f"{choices[-1]!r}"])
        raise OptionError(name, f"{value!r} is no {what}", f"use {said}")


def _text(value: Any) -> str:
    if isinstance(value, Pipeline):
        return value.spec or "off"
    return "none" if value is None else value if isinstance(value, str) else repr(value)
