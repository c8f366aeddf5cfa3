"""A module whose computations have an order of execution, and how to give them another.

Only the order changes. Of a proto it is field 7, of a text the order of lines; every op, shape,
layout, alias and cost stays as XLA left it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain

from jaxlib import _hlo

from hlo_passes.errors import InputError, PlanError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.text import HloText, read_hlo
from hlo_passes.ir.hlo.to_graph import graph_of
from hlo_passes.ir.hlo.wire import LENGTH, VARINT, fields, message, packed, varint
from hlo_passes.ir.opaque import OpaqueExchange, recognised

_COMPUTATIONS, _SCHEDULE = 3, 7
_METADATA = re.compile(r', metadata=\{(?:[^{}"]|"(?:[^"\\]|\\.)*"|\{[^{}]*\})*\}')
_TABLES = re.compile(r'^\d+ ["{].*\n', re.MULTILINE)
"""Lines of the tables of file names, functions and stack frames."""
_LEFT_OUT = "{...}"
_SYNTAX = re.compile(r"was parsing (\d+):\d+: error: (.*)")


@dataclass(frozen=True)
class ScheduledModule:
    """HLO of any stage; scheduled if its header says so.

    Attributes:
        text: the module as XLA prints it.
        proto: the HloModuleProto that `text` was printed from; None if only the text is known.
        path: where it came from, for messages.
        devices: how many devices run it, where the caller knows better than the module.
        opaque: custom calls in it that are exchanges.
    """

    text: str
    proto: bytes | None = None
    path: str = "<module>"
    devices: int = 0
    opaque: tuple[OpaqueExchange, ...] = ()

    @staticmethod
    def from_proto(
        proto: bytes,
        path: str = "<module>",
        devices: int = 0,
        opaque: tuple[OpaqueExchange, ...] = (),
    ) -> "ScheduledModule":
        """Take a serialized HloModuleProto.

        Args:
            proto: as XLA serializes it.
            path: where it came from, for messages.
            devices: how many run it, where the caller knows better than the module.
            opaque: custom calls that the user says are exchanges.

        Raises:
            InputError: if the bytes are none.
        """
        try:
            module = _hlo.HloModule.from_serialized_hlo_module_proto(proto)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InputError(path, f"no HloModuleProto: {reason}", "dump it again") from None
        return ScheduledModule(module.to_string(), proto, path, devices, opaque)

    @cached_property
    def parsed(self) -> HloText:
        """The module's text, read."""
        return read_hlo(self.text, self.path)

    @property
    def name(self) -> str:
        """The module's name, `jit_step` for a jitted `step`."""
        return self.parsed.name

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over every op and their order; not over what line they come from.

        The same step called from two places in a program is the same module.
        """
        bare = _TABLES.sub("", _METADATA.sub("", self.text)) + "".join(map(repr, self.opaque))
        return sha256(bare.encode()).hexdigest()[:16]

    def snapshot(self) -> Graph:
        """Return the graph of its entry, loops inside it."""
        return self._graph

    @cached_property
    def _graph(self) -> Graph:
        return recognised(graph_of(self.parsed, self.devices), self.opaque)

    def reordered(self, orders: Mapping[str, Sequence[int]]) -> "ScheduledModule":
        """Return the module with another order of execution.

        Args:
            orders: per computation, the op at every new place, as its place in the old order.

        Raises:
            PlanError: if an order names a computation that has none, or is no permutation.
        """
        for name, order in orders.items():
            computation = self.parsed.computations.get(name)
            if computation is None or sorted(order) != list(range(len(computation.instructions))):
                raise PlanError(name, "the plan's order does not fit this computation",
                                "plan this module again")  # fmt: skip
        text = _reorder_text(self.text, self.parsed, orders)
        proto = self.proto and _reorder_proto(self.proto, self.parsed, orders)
        return ScheduledModule(text, proto, self.path, self.devices, self.opaque)


def printed(text: str, path: str = "<text>") -> str:
    """Return HLO text as jaxlib prints it after its own parser has read it.

    Constants are printed in full, unless the text itself leaves some out: nobody knows those. Names
    that several computations use are made different, as XLA does before it compiles.

    Raises:
        InputError: if the parser refuses it. It may also end the process: see `guard`.
    """
    options = _hlo.HloPrintOptions()
    options.print_large_constants = _LEFT_OUT not in text
    try:
        return _hlo.hlo_module_from_text(text).to_string(options)
    except Exception as error:
        found = _SYNTAX.search(str(error))
        where = f"{path}:{found[1]}" if found else path
        what = found[2] if found else str(error).splitlines()[0]
        raise InputError(where, f"jaxlib's parser: {what}", "write the module again") from None


def _reorder_text(text: str, parsed: HloText, orders: Mapping[str, Sequence[int]]) -> str:
    """Exchange the lines of every computation in `orders`; an instruction may take several."""
    lines = text.split("\n")
    out = [[line] for line in lines]
    for name, order in orders.items():
        instructions = parsed.computations[name].instructions
        blocks = [lines[i.line - 1 : i.line - 1 + i.lines] for i in instructions]
        for ins, old in zip(instructions, order, strict=True):
            out[ins.line - 1 : ins.line - 1 + ins.lines] = [blocks[old], *[[]] * (ins.lines - 1)]
    return "\n".join(chain.from_iterable(out))


def _reorder_proto(proto: bytes, parsed: HloText, orders: Mapping[str, Sequence[int]]) -> bytes:
    """Replace the schedule field."""
    computations = dict(_computations(proto))
    sequences = b""
    for computation_id, ids in _sequences(proto):
        name, data = computations[computation_id]
        if name in orders:
            ids = _permuted(ids, orders[name], dict(_instructions(data)), parsed, name)
        entry = varint(1 << 3 | VARINT) + varint(computation_id)
        entry += message(2, message(1, b"".join(map(varint, ids))))
        sequences += message(1, entry)
    kept = [proto[start:end] for number, _, _, start, end in fields(proto) if number != _SCHEDULE]
    return b"".join(kept) + message(_SCHEDULE, sequences)


def _permuted(
    ids: list[int], order: Sequence[int], names: dict[int, str], parsed: HloText, where: str
) -> list[int]:
    """Permute a sequence after making sure that it is the one that was planned on."""
    printed = [ins.name for ins in parsed.computations[where].instructions]
    if [names[i] for i in ids] != printed:
        raise PlanError(where, "the printed order is not the module's schedule",
                        "plan the module at XLA's post-scheduler stage")  # fmt: skip
    return [ids[old] for old in order]


def _computations(proto: bytes) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Yield the id of every computation with its name and its message."""
    for number, _, value, _, _ in fields(proto):
        if number == _COMPUTATIONS and isinstance(value, bytes):
            computation_id, name = _identity(value, 5)
            yield computation_id, (name, value)


def _instructions(computation: bytes) -> Iterator[tuple[int, str]]:
    """Yield (id, name) of every instruction of a computation."""
    for number, _, value, _, _ in fields(computation):
        if number == 2 and isinstance(value, bytes):
            yield _identity(value, 35)


def _identity(data: bytes, id_field: int) -> tuple[int, str]:
    """Return (id, name) of a message whose name is field 1; serialized fields ascend."""
    name = ""
    for number, _, value, _, _ in fields(data):
        if number == 1 and isinstance(value, bytes):
            name = value.decode()
        elif number == id_field and isinstance(value, int):
            return value, name
    return 0, name


def _sequences(proto: bytes) -> Iterator[tuple[int, list[int]]]:
    """Yield (computation id, ids of its instructions in order)."""
    for number, kind, value, _, _ in fields(proto):
        if number == _SCHEDULE and kind == LENGTH and isinstance(value, bytes):
            for _, _, entry, _, _ in fields(value):
                assert isinstance(entry, bytes)
                yield _sequence(entry)


def _sequence(entry: bytes) -> tuple[int, list[int]]:
    """Read one entry of the schedule."""
    computation_id, ids = 0, []
    for number, _, item, _, _ in fields(entry):
        if number == 1 and isinstance(item, int):
            computation_id = item
        elif number == 2 and isinstance(item, bytes):
            ids = [i for _, kind, value, _, _ in fields(item) for i in _numbers(kind, value)]
    return computation_id, ids


def _numbers(kind: int, value: bytes | int) -> list[int]:
    return [value] if isinstance(value, int) else packed(value) if kind == LENGTH else []
