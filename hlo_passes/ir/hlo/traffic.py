"""Bytes that a fusion of HLO moves: its parameters as far as they are read, and what it writes."""

import re
from collections.abc import Sequence

from hlo_passes.ir.hlo.text import Instruction
from hlo_passes.ir.traits import SLICES, UPDATES

_TARGET = re.compile(r'custom_call_target="(__[^"]*)"')
"""Targets of XLA's own begin like this."""


def fusion_traffic(
    instructions: Sequence[Instruction], root: Instruction, table: dict[str, Instruction]
) -> float:
    """HBM bytes of a fusion: parameters as far as they are read, and what its root writes.

    Args:
        instructions: of the fused computation.
        root: what it returns.
        table: its instructions by name.
    """
    readers: dict[str, list[tuple[Instruction, str]]] = {}
    for ins in instructions:
        for operand in () if ins.opcode == "bitcast" else ins.operands:
            readers.setdefault(_behind_bitcasts(operand, table), []).append((ins, operand))
    total = 0.0
    for ins in instructions:
        if ins.opcode != "parameter":
            continue
        full = sum(t.bytes for t in ins.leaves)
        total += min(full, sum(_read_by(r, name, full) for r, name in readers.get(ins.name, [])))
    for out in outputs_of(root, table):
        if out.opcode.replace("-", "_") in UPDATES:
            total += sum(t.bytes for o in out.operands[1:] for t in table[o].leaves)
        else:
            total += _bytes_made(out, table)
    return total


def _bytes_made(out: Instruction, table: dict[str, Instruction]) -> float:
    """Bytes that a fusion's output writes; of a product, what is not its scratch memory."""
    maker = table[out.operands[0]] if out.opcode == "get-tuple-element" else out
    if maker.opcode != "custom-call" or not is_library_product(maker):
        return float(sum(t.bytes for t in out.leaves))
    is_scratch = maker is not out and out.attribute("index") != "0"
    return 0.0 if is_scratch else float(out.leaves[0].bytes)


def is_library_product(ins: Instruction) -> bool:
    """Whether a custom call is XLA's for a matrix product of a library: cuBLAS, oneDNN."""
    target = _TARGET.search(ins.attributes)
    return target is not None and ("matmul" in target[1] or "gemm" in target[1])


def outputs_of(root: Instruction, table: dict[str, Instruction]) -> list[Instruction]:
    """Return what a fusion hands out."""
    return [table[o] for o in root.operands] if root.opcode == "tuple" else [root]


def _behind_bitcasts(name: str, table: dict[str, Instruction]) -> str:
    """Return what a name is another shape of."""
    while table[name].opcode == "bitcast":
        name = table[name].operands[0]
    return name


def _read_by(reader: Instruction, name: str, full: float) -> float:
    """Bytes that one reader inside a fusion takes of parameter `name`."""
    kind = reader.opcode.replace("-", "_")
    if reader.operands and reader.operands[0] == name:
        if kind in SLICES:
            return sum(t.bytes for t in reader.leaves)
        if kind in UPDATES:
            return 0.0
    return full
