"""Reads exchanges from HLO instructions: kind, half, who takes part, how many bytes.

XLA issues several as one (a group), wraps them into `async-start`, fuses them, and makes a pair of
`send` and `recv` of a permutation: the send is then the exchange, and both dones wait for it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from hlo_passes.ir.collectives import (
    CONFIG,
    FILL,
    KINDS,
    SKEW,
    Collective,
    as_one,
    expected_fill,
    from_config,
    parse_fill,
    parse_skew,
    payload,
)
from hlo_passes.ir.device_groups import device_groups, parse_hlo_groups
from hlo_passes.ir.hlo.text import Computation, HloText, Instruction
from hlo_passes.ir.types import TensorType

_GROUPS = re.compile(
    r"replica_groups=(mesh\w*\[[^\]]*\](?:,\s*device_ids=\(.*?\))?\s*\{[^}]*\}"
    r"|\{(?:\{[\d,\s]*\},?\s*)*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)"
)
_PAIRS = re.compile(r'source_target_pairs="?\{((?:\{\d+,\s*\d+\},?\s*)*)\}')
_FILL = re.compile(rf'\b{FILL}="([^"]*)"')
_SKEW = re.compile(rf'\b{SKEW}="([^"]*)"')
_DOMAIN = re.compile(r'"communication_domain":"COLLECTIVE_COMMUNICATION_DOMAIN_(\w+)"')
_DIMS = re.compile(r"dimensions=\{([\d,]*)\}")
_CONFIG = re.compile(rf'\b{CONFIG}=(?:"((?:[^"\\]|\\.)*)"|(\{{[^{{}}]*\}}))')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_TARGET = re.compile(r'custom_call_target="([\w.\-]*)"')

_WRAPPERS = ("fusion", "async-start", "fusion-start", "call-start", "custom-call-start")
"""Opcodes whose computations run as a part of them, on one stream."""

_DONES = ("async-done", "custom-call-done")


@dataclass(frozen=True)
class HloExchangeReader:
    """Reads the exchanges of one module."""

    module: HloText

    def kind_of(self, ins: Instruction) -> tuple[str, str]:
        """Return StableHLO's name for the op, and "start" or "done" for half an exchange.

        A custom call may be one that only its user knows (`OpaqueExchange`), so its done is one.
        """
        name, half = _half_of(ins)
        if half:
            return name, half
        if ins.opcode in _DONES:
            return name, "done"
        if ins.opcode in _WRAPPERS and ins.opcode != "fusion" and (found := self._inside(ins)):
            chief = as_one(found)
            assert chief is not None
            return f"{chief.kind}_start", "start"
        return name, ""

    def is_done(self, ins: Instruction, start: Instruction) -> bool:
        """Whether an op waits for the exchange that `start` starts."""
        if ins.opcode == "send-done":
            return start.opcode == "send"
        is_its = ins.opcode.removesuffix("-done") == start.opcode.removesuffix("-start")
        return self.kind_of(ins)[1] == "done" or (is_its and self.kind_of(start)[1] == "start")

    def of(self, ins: Instruction, operands: Sequence[TensorType]) -> Collective | None:
        """Return the exchange that an instruction does or starts, several as one; None for none.

        Args:
            ins: the instruction.
            operands: types of all that it reads.
        """
        if base := _base(ins):
            return self._read(ins, base, operands, "")
        return as_one(self._inside(ins)) if ins.opcode in _WRAPPERS else None

    def is_sync(self, ins: Instruction) -> bool:
        """Whether nothing runs beside an exchange: XLA has marked it, or one kernel does it all."""
        if ins.opcode == "fusion":
            return any(name in self._talking for name in _called(ins))
        return '"is_sync":true' in ins.attributes or (
            ins.opcode in _WRAPPERS
            and any('"is_sync":true' in inner.attributes for inner, _ in self._members(ins))
        )

    @cached_property
    def _talking(self) -> frozenset[str]:
        """Computations with an exchange in them, or in what they call on the same stream."""
        found: set[str] = set()
        computations = self.module.computations.values()
        while more := {
            c.name for c in computations if c.name not in found and self._talks(c, found)
        }:
            found |= more
        return frozenset(found)

    def _talks(self, computation: Computation, found: set[str]) -> bool:
        return any(
            _base(ins) or (ins.opcode in _WRAPPERS and not found.isdisjoint(_called(ins)))
            for ins in computation.instructions
        )

    def _inside(self, ins: Instruction) -> list[Collective]:
        """Return the exchanges in what an instruction calls."""
        return [
            self._read(inner, _base(inner), operands, ins.attributes)
            for inner, operands in self._members(ins)
        ]

    def _members(self, ins: Instruction) -> Iterator[tuple[Instruction, tuple[TensorType, ...]]]:
        """Yield the exchanges in what an instruction calls, with the types that they read."""
        for name in _called(ins):
            if name not in self._talking:
                continue
            lines = self.module.computations[name].instructions
            table = {line.name: line for line in lines}
            for line in lines:
                if _base(line):
                    yield line, tuple(
                        t for n, o in enumerate(line.operands)
                        for t in line.taken(n, table[o].leaves)
                    )  # fmt: skip
                elif line.opcode in _WRAPPERS:
                    yield from self._members(line)

    def _read(
        self, ins: Instruction, kind: str, operands: Sequence[TensorType], around: str
    ) -> Collective:
        """Read one exchange; `around` has the attributes of what wraps it."""
        text = ins.attributes
        counts = {
            "replicas": self._count("replica_count"),
            "partitions": self._count("num_partitions"),
        }
        if config := _CONFIG.search(text):
            plain = config[2] or re.sub(r"\\(.)", r"\1", config[1])
            return from_config(kind, plain, operands, ins.leaves, **counts)
        channel, dims = _CHANNEL.search(text), _DIMS.search(text)
        rows = device_groups(
            kind, _rows_in(text), has_channel=channel is not None and int(channel[1]) > 0,
            is_global="use_global_device_ids=true" in text, **counts,
        )  # fmt: skip
        text += around
        fill, skew, domain = _FILL.search(text), _SKEW.search(text), _DOMAIN.search(text)
        return Collective(
            kind, rows, payload(kind, operands, ins.leaves),
            int(channel[1]) if channel else -1, integers(dims[1]) if dims else (),
            parse_fill(fill[1] if fill else "", expected_fill(kind, operands)),
            parse_skew(skew[1] if skew else ""),
            domain=domain[1].lower() if domain and domain[1] != "UNSPECIFIED" else "",
        )  # fmt: skip

    def _count(self, name: str) -> int:
        match = re.search(rf"\b{name}=(\d+)", self.module.header)
        return int(match[1]) if match else 1


def _rows_in(text: str) -> tuple[tuple[int, ...], ...]:
    """Return the pairs (from, to), or the groups, that an instruction's attributes name."""
    if pairs := _PAIRS.search(text):
        return tuple(integers(pair) for pair in re.findall(r"\{([\d,\s]+)\}", pairs[1]))
    groups = _GROUPS.search(text)
    return parse_hlo_groups(groups[1]) if groups else ()


def send_of(ins: Instruction, computation: Computation) -> Instruction | None:
    """Return the send that a `recv-done` waits for: that of the same channel and devices."""
    made = {line.name: line for line in computation.instructions}
    receive = made.get(next(iter(ins.operands), ""))
    if receive is None or receive.opcode != "recv":
        return None
    for line in computation.instructions:
        if line.name == ins.name:
            break
        if line.opcode == "send" and _peers(line) == _peers(receive):
            return line
    return None


def integers(text: str) -> tuple[int, ...]:
    """Return the whole numbers in a text."""
    return tuple(int(x) for x in re.findall(r"\d+", text))


def _half_of(ins: Instruction) -> tuple[str, str]:
    """Return the kind, and "start" or "done" where the opcode alone says that it is half one."""
    kind = ins.opcode.replace("-", "_")
    if ins.opcode in ("send", "recv", "send-done", "recv-done") and not _is_to_host(ins):
        return kind, "done" if kind.endswith("_done") else "start"
    target = _TARGET.search(ins.attributes) if ins.opcode == "custom-call" else None
    name = target[1].replace("-", "_") if target else kind
    for half in ("start", "done"):
        base = name.removesuffix("_" + half)
        if base != name and base in KINDS:
            return name, half
    return kind, ""


def _base(ins: Instruction) -> str:
    """Return the kind of exchange that an instruction itself does or starts; "" if it does none."""
    name, half = _half_of(ins)
    if half == "done" or name == "recv":
        return ""
    if name == "send":
        return "" if _is_to_host(ins) else "collective_permute"
    if name in ("custom_call", "custom_call_start") and "ragged_all_to_all" in ins.attributes:
        return "ragged_all_to_all"
    base = name.removesuffix("_start")
    return base if base in KINDS else ""


def _is_to_host(ins: Instruction) -> bool:
    return "is_host_transfer=true" in ins.attributes


def _called(ins: Instruction) -> tuple[str, ...]:
    return ins.called("calls", "to_apply")


def _peers(ins: Instruction) -> tuple[str, str]:
    channel, pairs = _CHANNEL.search(ins.attributes), _PAIRS.search(ins.attributes)
    return channel[1] if channel else "", pairs[1] if pairs else ""
