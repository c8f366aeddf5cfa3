"""Reads exchanges from HLO instructions: kind, half, who takes part, how many bytes."""

import re

from hlo_passes.ir.collectives import (
    FILL,
    KINDS,
    SKEW,
    Collective,
    expected_fill,
    parse_fill,
    parse_hlo_groups,
    parse_skew,
)
from hlo_passes.ir.hlo_text import HloText, Instruction
from hlo_passes.ir.types import TensorType

_GROUPS = re.compile(
    r"replica_groups=(mesh\w*\[[^\]]*\](?:,\s*device_ids=\(.*?\))?\s*\{[^}]*\}"
    r"|\{(?:\{[\d,\s]*\},?\s*)*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)"
)
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_FILL = re.compile(rf'\b{FILL}="([^"]*)"')
_SKEW = re.compile(rf'\b{SKEW}="([^"]*)"')
_DOMAIN = re.compile(r'"communication_domain":"COLLECTIVE_COMMUNICATION_DOMAIN_(\w+)"')
_DIMS = re.compile(r"dimensions=\{([\d,]*)\}")


def kind_of(ins: Instruction, module: HloText) -> tuple[str, str]:
    """Return StableHLO's name for the op, and "start" or "done" for half an exchange."""
    kind = ins.opcode.replace("-", "_")
    for half in ("start", "done"):
        base = kind.removesuffix("_" + half)
        if base != kind and base in KINDS:
            return kind, half
    if kind == "custom_call_done":
        return kind, "done"
    if kind in ("async_start", "async_done"):
        wrapped = ins.called("calls", "to_apply")
        inside = module.computations.get(wrapped[0]) if wrapped else None
        names = {i.opcode.replace("-", "_") for i in inside.instructions} if inside else set()
        if kind == "async_done" or names & KINDS or "ragged" in ins.attributes:
            return kind, kind.removeprefix("async_")
    return kind, ""


def wrapped_exchange(ins: Instruction, module: HloText) -> Instruction | None:
    """Return the exchange inside an `async-start`, as dumps spell some all-to-alls."""
    wrapped = module.computations.get(next(iter(ins.called("calls", "to_apply")), ""))
    inside = wrapped.instructions if wrapped else []
    return next((i for i in inside if i.opcode.replace("-", "_") in KINDS), None)


def collective_of(
    ins: Instruction, kind: str, operands: tuple[TensorType, ...]
) -> Collective | None:
    """Read the exchange that an instruction does or starts, if it is one."""
    base = kind.removesuffix("_start")
    if base == "custom_call" and "ragged_all_to_all" in ins.attributes:
        base = "ragged_all_to_all"
    if base not in KINDS:
        return None
    groups = _GROUPS.search(ins.attributes)
    pairs = _PAIRS.search(ins.attributes)
    channel = re.search(r"channel_id=(\d+)", ins.attributes)
    payload = operands[:1] if base == "ragged_all_to_all" else operands
    size = sum(t.bytes for t in payload)
    if base == "all_gather":
        # A start has its operands in its shape too, before what it gathers.
        size = max(size, sum(t.bytes for t in ins.leaves[-len(payload) :]))
    if pairs:
        rows = tuple(integers(p) for p in re.findall(r"\{([\d,]+)\}", pairs[1]))
    else:
        rows = parse_hlo_groups(groups[1]) if groups else ()
    dims = _DIMS.search(ins.attributes)
    fill, skew = _FILL.search(ins.attributes), _SKEW.search(ins.attributes)
    domain = _DOMAIN.search(ins.attributes)
    return Collective(
        base, rows, size, int(channel[1]) if channel else -1, integers(dims[1]) if dims else (),
        parse_fill(fill[1] if fill else "", expected_fill(base, operands)),
        parse_skew(skew[1] if skew else ""),
        domain=domain[1].lower() if domain and domain[1] != "UNSPECIFIED" else "",
    )  # fmt: skip


def integers(text: str) -> tuple[int, ...]:
    """Return the whole numbers in a text."""
    return tuple(int(x) for x in re.findall(r"\d+", text))
