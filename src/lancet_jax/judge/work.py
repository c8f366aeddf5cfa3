"""Counts what a line of HLO computes and moves, from its result back to what it reads.

Of a fusion, every inner line is charged for the share of its result that is asked for: a slice
asks for a part of what it cuts, an update in place for nothing of what it writes into, everything
else for all. Shares spread from the result to the parameters, and those are what is read.

Source: the utilisation of XLA's `HloCostAnalysis`, re-told; the roofline is Williams et al. (2009).
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, combinations

from lancet_jax.judge.listing import Line, ListedComputation, Listing, Tensor

_TAKES_PART = {"slice", "dynamic-slice", "gather"}
_IN_PLACE = {"dynamic-update-slice", "scatter"}
_MOVES = {"copy", "transpose", "reverse", "concatenate", "pad", "broadcast", "convert", "iota"}
NAMES = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "reshape", "after-all",
    "opt-barrier", "optimization-barrier", "add-dependency", "partition-id", "replica-id", "iota",
    "domain", "create-token", "send", "recv", "send-done", "recv-done",
}  # fmt: skip
"""Opcodes that name memory, or numbers that their readers know, or that only exchange: no kernel of
their own runs on the stream that computes."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What one execution takes.

    Attributes:
        flops: floating point operations.
        bytes: device memory read and written.
        product: operand type of its largest matrix product; "" if there is none.
        dtype: element type of its result.
    """

    flops: float
    bytes: float
    product: str
    dtype: str


class LineWork:
    """Counts the work of a module's lines.

    Args:
        listing: the module.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._fused: dict[str, Effort] = {}
        self._tables = {
            block.name: {line.name: line for line in block.lines}
            for block in listing.blocks.values()
        }

    def of(self, line: Line, block: ListedComputation) -> Effort:
        """Return the work of one line of a block, what it calls included."""
        if line.opcode in ("fusion", "fusion-start", "async-start", "call-start"):
            name = line.names("calls", "to_apply")[0]
            if name not in self._fused:
                self._fused[name] = self._fusion(self._listing.block(name, line))
            return self._fused[name]
        operands = self._operands(line, block)
        flops, product = _operations(line, operands)
        read = sum(
            _share(line, place, operands) * tensor.bytes
            for place, tensor in _by_place(line, operands)
        )
        moved = read + self._written(line, operands)
        return Effort(flops, moved, product, _dtype(line))

    def _operands(self, line: Line, block: ListedComputation) -> tuple[tuple[Tensor, ...], ...]:
        table = self._tables[block.name]
        return tuple(table[name].makes for name in line.reads)

    def _fusion(self, block: ListedComputation) -> Effort:
        """Spread shares from the root to the parameters and add up."""
        table = self._tables[block.name]
        wanted = dict.fromkeys(table, 0.0)
        wanted[block.root.name] = 1.0
        flops = moved = largest = 0.0
        product = ""
        for line in reversed(block.lines):
            share = min(1.0, wanted[line.name])
            operands = self._operands(line, block)
            if line.opcode == "parameter":
                moved += share * sum(t.bytes for t in line.makes)
            done, dtype = self._inner(line, block, operands)
            flops += share * done
            if dtype and done > largest:
                largest, product = done, dtype
            for place, name in enumerate(line.reads):
                wanted[name] += share * _share(line, place, operands)
        outputs = block.root.reads if block.root.opcode == "tuple" else (block.root.name,)
        moved += sum(
            self._written(table[name], self._operands(table[name], block)) for name in outputs
        )
        return Effort(flops, moved, product, _dtype(block.root))

    def _written(self, line: Line, operands: tuple[tuple[Tensor, ...], ...]) -> float:
        """Return the bytes that a line writes, and reads where it adds to what lies there."""
        if _has_scratch(line) and operands:
            return line.makes[0].bytes
        if line.opcode in NAMES and line.opcode not in ("parameter", "iota"):
            return 0.0
        if line.opcode == "dynamic-update-slice":
            return bytes_of(operands[1])
        if line.opcode == "scatter":
            rule = self._listing.block(line.value("to_apply"), line)
            times = 1 if rule.root.opcode == "parameter" else 2
            return times * sum(map(bytes_of, operands[_targets(line) + 1 :]))
        if line.opcode == "copy-start":
            return bytes_of(operands[0])
        return bytes_of(line.makes)

    def _inner(
        self, line: Line, block: ListedComputation, operands: tuple[tuple[Tensor, ...], ...]
    ) -> tuple[float, str]:
        if line.opcode in ("fusion", "call"):
            effort = self._fusion(self._listing.block(line.names("calls", "to_apply")[0], line))
            return effort.flops, effort.product
        return _operations(line, operands)


def _by_place(line: Line, operands: tuple[tuple[Tensor, ...], ...]) -> list[tuple[int, Tensor]]:
    return [(place, tensor) for place, made in enumerate(operands) for tensor in made]


def _share(line: Line, place: int, operands: tuple[tuple[Tensor, ...], ...]) -> float:
    """Return the share of an operand that a line asks for."""
    if line.opcode in NAMES and line.opcode not in ("tuple", "bitcast", "reshape",
                                                    "get-tuple-element"):  # fmt: skip
        return 0.0
    if line.opcode in _IN_PLACE and place < _targets(line):
        return 0.0
    if line.opcode in _TAKES_PART and place == 0:
        whole = sum(t.elements for t in operands[0])
        return min(1.0, sum(t.elements for t in line.makes) / whole) if whole else 0.0
    return 1.0


def _targets(line: Line) -> int:
    """Return how many first operands a line writes into: a scatter may have several."""
    return len(line.reads) // 2 if line.opcode == "scatter" else 1


def _operations(line: Line, operands: tuple[tuple[Tensor, ...], ...]) -> tuple[float, str]:
    """Return the operations of a line, and the operand type if it is a matrix product."""
    made = _elements(line.makes)
    is_call = line.opcode == "custom-call"
    if line.opcode == "dot" or (is_call and _is_product(line)):
        left = operands[0][0]
        inner = math.prod(left.sizes[dim] for dim in _contracted(line))
        return 2.0 * line.makes[0].elements * inner, left.dtype
    if is_call:
        return _grouped(line, operands) or (0.0, "")
    if line.opcode == "convolution":
        labels = re.split(r"_|->", line.value("dim_labels"))
        kernel = operands[1][0]
        features = kernel.sizes[labels[1].index("o")]
        return 2.0 * made * kernel.elements / max(features, 1), operands[0][0].dtype
    if line.opcode in ("reduce", "reduce-window", "sort"):
        return float(max(made, _elements(chain(*operands)))), ""
    idle = line.opcode in NAMES | _MOVES | _TAKES_PART | _IN_PLACE
    return (0.0 if idle else float(made)), ""


def _grouped(line: Line, operands: tuple[tuple[Tensor, ...], ...]) -> tuple[float, str] | None:
    """Return the operations of a product of rows in groups, if the shapes are those of one.

    Three tensors share three sizes, each in two of them: rows `[m, k]`, a matrix of every group
    `[g, k, n]` (or transposed), and `[m, n]`; the one with a third dim is read, or made.
    """
    matrices = [t for group in operands for t in group if len(t.sizes) in (2, 3)]
    for made in line.makes:
        for pair in combinations(matrices, 2):
            first, second, stack = sorted((*pair, made), key=lambda t: len(t.sizes))
            if [len(t.sizes) for t in (first, second, stack)] != [2, 2, 3]:
                continue
            (m, k), (rows, n) = first.sizes, second.sizes
            if m == rows and sorted(stack.sizes[1:]) == sorted((k, n)):
                return 2.0 * m * k * n, first.dtype
    return None


def _has_scratch(line: Line) -> bool:
    """Whether the first of what a line makes is a product, and the rest its scratch memory."""
    if line.opcode == "get-tuple-element":
        return line.value("index") == "0"
    return line.opcode == "custom-call" and _is_product(line)


def bytes_of(tensors: Iterable[Tensor]) -> float:
    """Return the bytes of tensors together."""
    return sum(t.bytes for t in tensors)


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(t.elements for t in tensors)


def _is_product(line: Line) -> bool:
    """Whether a custom call is XLA's for a product of a library: cuBLAS, oneDNN."""
    target = re.search(r'custom_call_target="(__[^"]*)"', line.text)
    return target is not None and ("gemm" in target[1] or "matmul" in target[1])


def _contracted(line: Line) -> tuple[int, ...]:
    """Return the dims of the left operand that a product sums over."""
    if dims := line.value("lhs_contracting_dims"):
        return tuple(int(n) for n in re.findall(r"\d+", dims))
    found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', line.text)
    return tuple(int(n) for n in re.findall(r"\d+", found[1])) if found else ()


def _dtype(line: Line) -> str:
    return line.makes[0].dtype if line.makes else "f32"
