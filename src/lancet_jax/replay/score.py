"""Takes a module apart into stretches of compute and the exchanges between them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxlib.mlir import ir

from hlo_passes.errors import InputError
from hlo_passes.ir.collectives import KINDS
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import integer
from hlo_passes.split.program import program_of

type LaunchKind = Literal["all_to_all", "ragged_all_to_all", "all_reduce"]

_CARRIED_ALONG = ("constant", "iota", "broadcast_in_dim", "reshape")
"""Kinds that every segment does for itself, as XLA folds them into whoever reads their results.

Else a replay would write a scalar to memory as often as an array has elements, and copy what has
another shape, only because the reader stands behind an exchange."""

_BARRIER = "stablehlo.optimization_barrier"

_REMEDY = "replay steps that exchange by all-to-all and all-reduce over all devices at once"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of compute.

    Attributes:
        inputs, outputs: ids of the values that it reads and makes.
        spent: places of inputs that nobody reads afterwards.
        code: which of the score's programs it runs.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    spent: tuple[int, ...]
    code: int


@dataclass(frozen=True, slots=True)
class Launch:
    """An exchange, to be started.

    Attributes:
        kind: what is exchanged, how.
        inputs, outputs: ids of values.
        split, concat: for an all-to-all, its dims.
    """

    kind: LaunchKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    split: int = 0
    concat: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until an exchange has ended.

    Attributes:
        exchange: its place among all exchanges, in order of issue.
    """

    exchange: int


type ScoreStep = Segment | Launch | Wait


@dataclass(frozen=True)
class Score:
    """What to do, in order.

    Attributes:
        inputs, outputs: ids of the step's arguments and results.
        steps: what to do.
        programs: StableHLO text of every different segment.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[ScoreStep, ...]
    programs: tuple[str, ...]

    @property
    def exchanges(self) -> tuple[Launch, ...]:
        """The exchanges, in order of issue."""
        return tuple(step for step in self.steps if isinstance(step, Launch))


def score_of(module: Module) -> Score:
    """Take a module apart.

    Its text order is the order of execution; an exchange is waited for where an op that works reads
    its result. Barriers have nothing left to order and go.

    Raises:
        InputError: if an exchange is of another kind, among some of the devices, or in a loop.
    """
    module = module.copy()
    with module.ir.context, ir.Location.unknown():
        _drop_barriers(module.body)
        return _Scorer(module).run()


def _drop_barriers(block: ir.Block) -> None:
    """Let readers of barriers read what goes into them."""
    for op in [view.operation for view in block.operations]:
        if op.name == _BARRIER:
            for given, result in zip(op.operands, op.results, strict=True):
                result.replace_all_uses_with(given)
            op.erase()


@dataclass
class _Scorer:
    module: Module
    ids: dict[ir.Value, int] = field(default_factory=dict)
    steps: list[ScoreStep] = field(default_factory=list)
    programs: dict[str, int] = field(default_factory=dict)
    current: list[int] = field(default_factory=list)
    pending: dict[ir.Value, int] = field(default_factory=dict)
    roots: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)
    started: int = 0

    def run(self) -> Score:
        self.body, self.graph = Body(self.module.body), self.module.snapshot()
        block = self.body.block
        inputs = tuple(self._id(value) for value in block.arguments)
        *ops, end = range(len(self.body.ops))
        work = [p for p in ops if not self._is_carried_along(p) or self._leaves(p, end)]
        self.last = {value: p for p in [*work, end] for value in self._needs(p, end)}
        for place in work:
            self._wait_for(self._needs(place, end))
            if (kind := self._kind(place)) is not None:
                self._flush()
                self._start(place, kind)
            else:
                self.current.append(place)
        self._wait_for(self._needs(end, end))
        self._flush()
        outputs = tuple(self._id(value) for value in self.body.ops[end].operands)
        return Score(inputs, outputs, tuple(self.steps), tuple(self.programs))

    def _is_carried_along(self, place: int) -> bool:
        """Whether every segment that reads an op's result makes it for itself."""
        return self.body.kind(place) in _CARRIED_ALONG

    def _leaves(self, place: int, end: int) -> bool:
        """Whether an exchange, or the end, reads an op's result."""
        users = self.body.users.get(self.body.ops[place].results[0], [])
        return any(user == end or self._kind(user) is not None for user in users)

    def _needs(self, place: int, end: int) -> list[ir.Value]:
        """Return what has to be there before an op can run."""
        reads = self.body.reads[place]
        if place == end or self._kind(place) is not None:
            return reads
        return list(dict.fromkeys(root for value in reads for root in self._roots(value)))

    def _roots(self, value: ir.Value) -> tuple[ir.Value, ...]:
        """Return what a value is made of by ops that are carried along; mostly itself."""
        if value not in self.roots:
            place, _ = self.body.made_by(value)
            found = (value,)
            if place >= 0 and self._is_carried_along(place):
                operands = self.body.reads[place]
                found = tuple(dict.fromkeys(r for v in operands for r in self._roots(v)))
            self.roots[value] = found
        return self.roots[value]

    def _id(self, value: ir.Value) -> int:
        return self.ids.setdefault(value, len(self.ids))

    def _kind(self, place: int) -> LaunchKind | None:
        """Return how an op exchanges; None if it does not."""
        op, kind = self.body.ops[place], self.body.kind(place)
        if kind == "custom_call" and "ragged_all_to_all" in str(op.attributes["call_target_name"]):
            return "ragged_all_to_all"
        if kind in ("all_to_all", "all_reduce"):
            self._check_all(place)
            return kind
        inside = [inner for inner in _walk(op) if inner.removeprefix("stablehlo.") in KINDS]
        if kind in KINDS or inside or kind == "partition_id":
            raise InputError(self.body.where(place), "cannot be replayed", _REMEDY)
        return None

    def _check_all(self, place: int) -> None:
        """Check that an exchange is among all devices, and a sum if it reduces."""
        op = self.body.ops[place]
        collective = self.graph.ops[place].collective
        everybody = collective is None or collective.groups in (
            (), (tuple(range(self.module.devices)),)
        )  # fmt: skip
        adds = all(name.endswith(("return", "add")) for name in list(_walk(op))[1:])
        if not everybody or not adds:
            raise InputError(self.body.where(place), "is among some devices, or no sum", _REMEDY)

    def _start(self, place: int, kind: LaunchKind) -> None:
        op = self.body.ops[place]
        inputs, outputs = (tuple(map(self._id, values)) for values in (op.operands, op.results))
        dims = ()
        if kind == "all_to_all":
            dims = (integer(op, "split_dimension"), integer(op, "concat_dimension"))
        self.steps.append(Launch(kind, inputs, outputs, *dims))
        self.pending.update(dict.fromkeys(op.results, self.started))
        self.started += 1

    def _wait_for(self, values: Sequence[ir.Value]) -> None:
        for exchange in sorted({self.pending[v] for v in values if v in self.pending}):
            self._flush()
            self.steps.append(Wait(exchange))
            done = [value for value, number in self.pending.items() if number == exchange]
            for value in done:
                del self.pending[value]

    def _flush(self) -> None:
        """Make a segment of the ops so far."""
        if not self.current:
            return
        ops, self.current = self.current, []
        end = ops[-1]
        inside = {value for place in ops for value in self.body.ops[place].results}
        inputs = self._read_from_outside(ops, inside)
        outputs = [value for value in inside if self.last.get(value, -1) > end]
        outputs.sort(key=self._id)
        text = program_of(self.body, sorted({*self._along(ops), *ops}), inputs, outputs)
        spent = tuple(i for i, value in enumerate(inputs) if self._is_spent(value, end))
        code = self.programs.setdefault(text, len(self.programs))
        read, made = tuple(map(self._id, inputs)), tuple(map(self._id, outputs))
        self.steps.append(Segment(read, made, spent, code))

    def _read_from_outside(
        self, ops: Sequence[int], inside: Collection[ir.Value]
    ) -> list[ir.Value]:
        """Return what ops read and do not make, in the order in which they read it."""
        reads = (value for place in ops for value in self.body.reads[place])
        roots = dict.fromkeys(root for value in reads for root in self._roots(value))
        return [root for root in roots if root not in inside]

    def _is_spent(self, value: ir.Value, end: int) -> bool:
        """Whether nobody reads a value after `end`; the step's arguments are its caller's."""
        return self.last[value] <= end and not isinstance(value, ir.BlockArgument)

    def _along(self, ops: Sequence[int]) -> Iterator[int]:
        """Yield the ops that others read through: every segment has its own."""
        ahead = list(ops)
        seen: set[int] = set()
        while ahead:
            for value in self.body.reads[ahead.pop()]:
                place, _ = self.body.made_by(value)
                if place >= 0 and place not in seen and self._is_carried_along(place):
                    seen.add(place)
                    ahead.append(place)
                    yield place


def _walk(op: ir.Operation) -> Iterator[str]:
    """Yield the name of an op and of all inside it."""
    names: list[str] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        names.append(inner.name)
        return ir.WalkResult.ADVANCE

    op.walk(visit, ir.WalkOrder.PRE_ORDER)
    yield from names
