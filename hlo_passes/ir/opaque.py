"""Exchanges that hide in custom calls, as their user names them.

A library of its own (DeepEP, NVSHMEM, an FFI target) moves tokens in custom calls, of which XLA
knows neither the bytes nor the stream. Whoever calls them says which they are; then other work can
be placed beside them as beside XLA's own.

XLA:GPU launches a custom call on the stream that computes, and every later kernel waits. Nothing
runs beside one unless XLA splits it (`async-start` and `async-done` around it), or its library
does: one target that starts the exchange on a stream of its own, another that waits for it. A start
that nothing waits for, or whose operands XLA may overwrite before the done, counts as blocking.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hlo_passes.errors import OptionError
from hlo_passes.ir.collectives import KINDS, Collective
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.traits import RENAMES

type OpaqueKind = Literal[
    "all_to_all", "ragged_all_to_all", "all_reduce", "all_gather", "reduce_scatter",
    "collective_permute", "collective_broadcast",
]  # fmt: skip

SYNCHRONOUS = (
    "a synchronous custom call holds the stream that computes: nothing runs beside it until it is"
    " split into a start and a done"
)
UNPAIRED = "no custom call waits for it: its done is missing, or does not read what it makes"
UNKEPT = (
    "its done does not read all that it reads, so XLA may reuse that memory while it is sent:"
    " pass the start's operands to the done as well"
)


@dataclass(frozen=True)
class OpaqueExchange:
    """A custom call that is an exchange between devices.

    Attributes:
        target: its `custom_call_target`, the name that `jax.ffi.ffi_call` was given; of a pair,
            that of the half that starts.
        done: target of the half that waits; "" if one call does it all.
        us: its time in us, from then on a price `given` by the user; None to price it as an
            exchange of `kind` that sends the bytes of its operands.
        kind: which of XLA's exchanges it does the work of.
        group_size: devices that take part, neighbours by id; 0 for all of the program.

    Raises:
        OptionError: if a target is missing, the time is none, or the kind is unknown.
    """

    target: str
    done: str = ""
    us: float | None = None
    kind: OpaqueKind = "all_to_all"
    group_size: int = 0

    def __post_init__(self) -> None:
        where = f"opaque exchange {self.target!r}"
        if not self.target or self.target == self.done:
            raise OptionError(where, "needs a target, and a done of another name",
                              "give the custom_call_target")  # fmt: skip
        if self.us is not None and not 0 <= self.us < float("inf"):
            raise OptionError(where, f"{self.us} us is no time", "give microseconds, 0 or more")
        if self.kind not in KINDS:
            raise OptionError(where, f"no exchange is of kind {self.kind!r}",
                              f"use one of {', '.join(sorted(KINDS))}")  # fmt: skip
        if self.group_size < 0 or self.group_size == 1:
            raise OptionError(where, f"no group has {self.group_size} devices",
                              "give 2 or more, or 0 for all")  # fmt: skip

    @property
    def spec(self) -> str:
        """As on the command line: `TARGET=US`, `START+DONE=US`, `TARGET`."""
        name = f"{self.target}+{self.done}" if self.done else self.target
        return name if self.us is None else f"{name}={self.us:g}"


def parse_opaque(text: str) -> OpaqueExchange:
    """Read `TARGET`, `TARGET=US` or `START+DONE=US`.

    Raises:
        OptionError: if it is none of them.
    """
    name, has_price, price = text.strip().partition("=")
    start, is_pair, done = name.partition("+")
    try:
        us = float(price) if has_price else None
    except ValueError:
        us = -1.0
    if not start or (is_pair and not done) or (us is not None and not us >= 0):
        raise OptionError(f"opaque exchange {text!r}", "cannot be read",
                          "write TARGET=US or START+DONE=US, in us")  # fmt: skip
    return OpaqueExchange(start, done, us)


def recognised(graph: Graph, opaque: Sequence[OpaqueExchange]) -> Graph:
    """Return a graph whose named custom calls are exchanges, in loops as well."""
    if not opaque:
        return graph
    dones = {o.done: o for o in opaque if o.done}
    return _Recogniser(graph, {o.target: o for o in opaque}, dones).graph()


def unmatched(graph: Graph, opaque: Sequence[OpaqueExchange]) -> tuple[str, ...]:
    """Return the targets that no custom call of a graph has."""
    found = {op.target for inside, _ in graph.walk() for op in inside.ops}
    return tuple(name for o in opaque for name in (o.target, o.done) if name and name not in found)


def opaque_notes(graph: Graph, opaque: Sequence[OpaqueExchange]) -> tuple[str, ...]:
    """Say which opaque exchanges a graph lacks, and which nothing can run beside, and why."""
    lines = [f"no custom call has the target {name}" for name in unmatched(graph, opaque)]
    for inside, _ in graph.walk():
        for op in inside.ops:
            if op.why_blocking:
                lines.append(f"{op.target} ({op.name}): {op.why_blocking}")
    return tuple(lines)


@dataclass(frozen=True)
class _Recogniser:
    """Rebuilds one computation."""

    source: Graph
    starts: dict[str, OpaqueExchange]
    dones: dict[str, OpaqueExchange]

    def graph(self) -> Graph:
        pairs = dict(self._pairs())
        start_of = {done: start for start, done in pairs.items()}
        ops = tuple(self._op(op, pairs, start_of) for op in self.source.ops)
        return replace(self.source, ops=ops)

    def _op(self, op: Op, pairs: dict[int, int], start_of: dict[int, int]) -> Op:
        if op.inner:
            inner = tuple(replace(self, source=body).graph() for body in op.inner)
            return replace(op, inner=inner)
        if op.id in start_of:
            return replace(op, start=start_of[op.id], flops=0.0, bytes=0.0)
        facts = self.starts.get(op.target)
        if facts is None or op.is_done or op.collective is not None:
            return op
        why = self._why_blocking(op, facts, pairs)
        sent = self._collective(op, facts)
        return replace(op, collective=sent, flops=0.0, bytes=0.0, xla_us=None,
                       blocking=bool(why) or op.blocking, why_blocking=why)  # fmt: skip

    def _collective(self, op: Op, facts: OpaqueExchange) -> Collective:
        devices, size = self.source.devices, facts.group_size
        is_part = 0 < size < devices
        groups = tuple(
            tuple(range(first, min(first + size, devices))) for first in range(0, devices, size)
        ) if is_part and devices % size == 0 else ()  # fmt: skip
        sent = sum(self.source.values[v].bytes for v in dict.fromkeys(op.operands))
        return Collective(facts.kind, groups, sent, opaque=facts.target, us=facts.us)

    def _why_blocking(self, op: Op, facts: OpaqueExchange, pairs: dict[int, int]) -> str:
        if op.kind.endswith("_start"):
            return "" if op.id in self.source.done_of else UNPAIRED
        if not facts.done:
            return SYNCHRONOUS
        if op.id not in pairs:
            return UNPAIRED
        kept = {self._root(v) for v in (*self.source.ops[pairs[op.id]].operands, *op.overwrites)}
        return "" if {self._root(v) for v in op.operands} <= kept else UNKEPT

    def _root(self, value: int) -> int:
        """Return the value whose memory a value is, under another shape."""
        maker = self.source.values[value].op
        while maker >= 0 and self.source.ops[maker].kind in ("bitcast", "reshape"):
            value = self.source.ops[maker].operands[0]
            maker = self.source.values[value].op
        return value

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """Yield (start, done) of every pair of targets: the first done that reads what it makes."""
        taken: set[int] = set()
        for op in self.source.ops:
            facts = self.dones.get(op.target)
            if facts is None or op.is_done:
                continue
            starts = [s for s in self._makers(op) if self.source.ops[s].target == facts.target]
            if len(starts) == 1 and starts[0] not in taken:
                taken.add(starts[0])
                yield starts[0], op.id

    def _makers(self, op: Op) -> list[int]:
        """Return the ops that make what an op reads, behind ops that only rename memory."""
        found: dict[int, None] = {}
        values = list(reversed(op.operands))
        while values:
            maker = self.source.values[values.pop()].op
            if maker < 0:
                continue
            if self.source.ops[maker].kind in RENAMES:
                values += reversed(self.source.ops[maker].operands)
            else:
                found[maker] = None
        return list(found)
