"""The contract of a pass.

A pass decides and edits in two steps: `plan` looks at a graph and returns a `Plan`, which is data;
`apply` gives a module that follows a plan. A pass is a frozen dataclass whose fields are its
options: the constructor, the text form `schedule-dw{strategy=greedy}` and the command line's help
all come from them.
"""

import dataclasses
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from hlo_passes.cost.model import CostModel
from hlo_passes.errors import OptionError
from hlo_passes.facts.footprint import footprint_of
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Plan
from hlo_passes.verify import Check, exchanges_paired, no_deadlock

type AnyModule = Module | ScheduledModule


class Tier(StrEnum):
    """What a pass may do to numbers."""

    EXACT = "exact"
    """Bit-identical results."""
    REASSOCIATES = "reassociates"
    """Routing and drops identical, values within a stated bound."""


class Stage(StrEnum):
    """Where a pass works."""

    BEFORE_XLA = "before XLA"
    """On the step's StableHLO."""
    BEHIND_SCHEDULER = "behind XLA's scheduler"
    """On what XLA has fused and scheduled, where XLA hands that out; on StableHLO elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is known of a compile whatever the module.

    Attributes:
        costs: prices for the target.
        ragged: whether the backend can send rows of different number to every peer.
        memory_limit: bytes of one device that the step may need in all: arguments, results and
            temporaries; None for no limit.
        uncut_bytes: temporaries that XLA's schedule of the same step needs if it is not cut; 0 if
            that is not known, or it is not cut.
        checked: whether XLA's own modules decide between programs, so that a cut which is predicted
            to be about as good may be tried, and memory counts then, not now.
    """

    costs: CostModel
    ragged: bool = False
    memory_limit: int | None = None
    uncut_bytes: int = 0
    checked: bool = False

    def context(self, module: AnyModule, graph: Graph) -> "Context":
        """Return what a pass may know of one module.

        A limit of memory does not count for a step that XLA has yet to partition: what one device
        will hold of it is not known.

        Args:
            module: the module.
            graph: read from it.
        """
        is_local = not isinstance(module, Module) or module.is_local
        return Context(
            costs=self.costs.for_graph(graph),
            ragged=self.ragged,
            memory_limit=self.memory_limit if is_local else None,
            uncut_bytes=self.uncut_bytes,
            checked=self.checked,
            fingerprint=module.fingerprint,
            module=module if isinstance(module, Module) else None,
        )


@dataclass(frozen=True, kw_only=True)
class Context(Job):
    """What a pass may know besides the graph.

    Attributes:
        fingerprint: of the module that the graph was read from.
        module: that module, for passes that try an edit on a copy before they decide; None for
            HLO.
    """

    fingerprint: str = ""
    module: Module | None = None

    def room(self, graph: Graph) -> int | None:
        """Return the bytes that the limit leaves for temporaries of a step; None for no limit."""
        if self.memory_limit is None:
            return None
        return footprint_of(graph).room(self.memory_limit)


@dataclass(frozen=True, slots=True)
class PassResult:
    """What applying a plan gave.

    Attributes:
        module: the module to go on with.
        changed: whether it differs from the one that went in.
    """

    module: AnyModule
    changed: bool


class Pass(ABC):
    """One optimisation. Subclasses are frozen dataclasses and final."""

    tier: ClassVar[Tier]

    stage: ClassVar[Stage] = Stage.BEFORE_XLA

    answers: ClassVar[frozenset[str]] = frozenset()
    """Questions that it settles, as `order`: no two passes of a pipeline settle the same one."""

    per_device: ClassVar[bool] = False
    """Whether it needs the ops of one device: a step that XLA would partition is, first."""

    checks: ClassVar[tuple[Check, ...]] = (no_deadlock, exchanges_paired)
    """What has to hold of the module that it is given, and of the one that it leaves."""

    @classmethod
    def pass_name(cls) -> str:
        """Return the name on the command line: `ScheduleDw` is `schedule-dw`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @property
    def spec(self) -> str:
        """Return the text form, options that are not at their default included."""
        changed = [
            f"{field.name.replace('_', '-')}={print_value(getattr(self, field.name))}"
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        ]
        return self.pass_name() + (f"{{{','.join(changed)}}}" if changed else "")

    @abstractmethod
    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide, changing nothing. Deterministic: equal arguments give equal bytes."""

    @property
    def is_settled(self) -> bool:
        """Whether what it plans is done; else XLA's own modules may decide that it is not."""
        return True

    def rivals(self, graph: Graph, context: Context) -> Iterator[Plan]:
        """Yield the plans that are worth compiling, where XLA's own modules decide between them.

        To change nothing is always one more.

        Args:
            graph: what is planned on.
            context: what it may know besides.
        """
        yield self.plan(graph, context)

    def smaller(self, plan: Plan) -> "Pass | None":
        """Return the pass that wants less memory than one of its plans does; None if none does."""
        return None

    def memory_bound(self, graph: Graph, context: Context, plan: Plan) -> int | None:
        """Return the bytes of temporaries that a planned order may need; None if it made none."""
        return None

    @abstractmethod
    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Return a module that follows `plan`; the one passed in stays as it is."""


def parse_pass(text: str, known: tuple[type[Pass], ...]) -> Pass:
    """Read one pass from its text form, `name` or `name{option=value,...}`.

    Raises:
        OptionError: if the pass or an option does not exist, or a value does not fit.
    """
    match = re.fullmatch(r"([\w-]+)(?:\{(.*)\})?", text.strip())
    names = {cls.pass_name(): cls for cls in known}
    if match is None or match[1] not in names:
        name = match[1] if match else text
        raise OptionError(f"pass {name!r}", "there is no such pass",
                          f"use one of {', '.join(sorted(names))}")  # fmt: skip
    cls = names[match[1]]
    options = dict(_option(cls, item) for item in (match[2] or "").split(",") if item.strip())
    return cls(**options)


def split_passes(text: str) -> list[str]:
    """Cut `a{x=1,y=2},b` at the commas between passes."""
    return [part for part in re.split(r",(?![^{]*\})", text) if part.strip()]


def _option(cls: type[Pass], item: str) -> tuple[str, object]:
    """Read `name=value` into a constructor argument."""
    name, _, value = (part.strip() for part in item.partition("="))
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    key = name.replace("-", "_")
    if key not in fields:
        known = ", ".join(f.replace("_", "-") for f in fields) or "none"
        raise OptionError(f"pass {cls.pass_name()!r}", f"has no option {name!r}",
                          f"its options: {known}")  # fmt: skip
    kind = typing.get_type_hints(cls)[key]
    try:
        return key, _read_value(value, kind)
    except ValueError:
        what, default = f"{value!r} is no {print_kind(kind)}", print_value(fields[key].default)
        where = f"{cls.pass_name()}.{name}"
        raise OptionError(where, what, f"write {name}={default}, say") from None


def _read_value(text: str, kind: object) -> object:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if text == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    return typing.cast(typing.Callable[[str], object], kind)(text)


def print_value(value: object) -> str:
    """Write an option's value as it is read."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def print_kind(kind: object) -> str:
    """Say in words what values an option takes."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return f"{' or '.join(map(print_kind, inner))} or none"
    choices = typing.get_args(kind)
    return (
        f"one of {', '.join(map(str, choices))}" if choices else getattr(kind, "__name__", "value")
    )
