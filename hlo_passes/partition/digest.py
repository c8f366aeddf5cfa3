"""Whether two HLO modules compute the same, op for op.

The digest of an instruction stands for its opcode, shape and attributes and for the digests of all
that it reads, so equal digests of two roots mean equal programs. What does not bear on results is
left out: names, metadata, layouts, channel numbers, copies, and code that nothing reads. Calls
count as what they call. Reshapes of reshapes count as one, and so does what only moves dims of
size 1. What small constants lead to is computed, and the two sides of a sum are the same. Of a
loop's carried values, those that no trip changes count as what they were before the loop.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from hlo_passes.ir.device_groups import parse_hlo_groups
from hlo_passes.ir.hlo.text import HloText, Instruction, attributes_of
from hlo_passes.ir.types import TensorType
from hlo_passes.partition.fold import (
    LARGEST,
    bounds_of,
    broadcast,
    dims_of,
    fold,
    identity,
    read_literal,
)

type Digest = str | tuple[Digest, ...]
"""Of one tensor, or of the parts of a tuple."""

_IGNORED = frozenset({
    "metadata", "frontend_attributes", "sharding", "channel_id", "origin", "control-predecessors",
})  # fmt: skip
_GROUPS = "replica_groups"
_COMMUTE = frozenset({"add", "multiply", "and", "or", "xor", "maximum", "minimum"})
_BRANCHES = ("true_computation", "false_computation", "branch_computations")


def digest_of(module: HloText) -> str:
    """Return 64 hex digits that are equal for modules that compute the same.

    Raises:
        ValueError: if a constant is not printed whole, or replica groups are in a spelling that is
            not known.
    """
    return _flat(Digester(module).computation(module.entry.name))


def _hash(*parts: object) -> str:
    return sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _flat(digest: Digest) -> str:
    return digest if isinstance(digest, str) else _hash("tuple", *map(_flat, digest))


@dataclass
class Digester:
    """Digests of the computations of a module.

    Attributes:
        module: the module.
    """

    module: HloText
    _known: dict[tuple[str, tuple[Digest, ...] | None], Digest] = field(default_factory=dict)
    _reshaped: dict[str, tuple[str, TensorType]] = field(default_factory=dict)
    """From the digest of a reshape to digest and shape of what it reshapes."""
    _values: dict[str, np.ndarray] = field(default_factory=dict)
    """From the digest of a small constant to its value."""
    _filled: dict[str, np.ndarray] = field(default_factory=dict)
    """From the digest of a constant repeated to a larger one to what is repeated."""
    _parts: dict[str, tuple[int, list[tuple[str, TensorType]]]] = field(default_factory=dict)
    """From the digest of a concatenation to its dim and its parts."""

    def computation(self, name: str, given: tuple[Digest, ...] | None = None) -> Digest:
        """Return the digest of what a computation returns.

        Args:
            name: its name.
            given: digests of its parameters; by default they stand for themselves.
        """
        if (name, given) not in self._known:
            made: dict[str, Digest] = {}
            types: dict[str, tuple[TensorType, ...]] = {}
            instructions = self.module.computations[name].instructions
            for instruction in instructions:
                types[instruction.name] = instruction.leaves
                made[instruction.name] = self._instruction(instruction, made, types, given)
            root = next((i for i in instructions if i.is_root), instructions[-1])
            self._known[name, given] = made[root.name]
        return self._known[name, given]

    def _instruction(
        self,
        instruction: Instruction,
        made: dict[str, Digest],
        types: dict[str, tuple[TensorType, ...]],
        given: tuple[Digest, ...] | None,
    ) -> Digest:
        if instruction.opcode == "parameter" and given is not None:
            return given[int(instruction.attributes.split(",")[0])]
        operands = [made[name] for name in instruction.operands]
        sources = [types[name] for name in instruction.operands]
        found = self._handed_on(instruction, operands)
        if found is None:
            found = self._repeated(instruction, operands, sources)
        return self._computed(instruction, operands, sources) if found is None else found

    def _handed_on(self, instruction: Instruction, operands: list[Digest]) -> Digest | None:
        """Digest what computes nothing itself: copies, tuples, and calls; None for all else."""
        match instruction.opcode:
            case "copy":
                return operands[0]
            case "tuple":
                return tuple(operands)
            case "get-tuple-element" if isinstance(operands[0], tuple):
                return operands[0][int(instruction.attribute("index"))]
            case "call":
                (callee,) = instruction.called("to_apply")
                return self.computation(callee, tuple(operands))
            case "while":
                return self._loop(instruction, operands[0])
            case "conditional":
                return self._branches(instruction, operands)
        return None

    def _repeated(
        self,
        instruction: Instruction,
        operands: Sequence[Digest],
        sources: Sequence[tuple[TensorType, ...]],
    ) -> Digest | None:
        """Digest constants, and what has the elements of its operand in order; None for others."""
        if instruction.opcode == "constant":
            literal = next(text for name, text in attributes_of(instruction) if not name)
            return self._constant(instruction.leaves[0], literal)
        if instruction.opcode == "iota":
            return self._iota(instruction)
        if instruction.opcode == "broadcast":
            (source,) = sources[0]
            dims = dims_of(instruction)
            return self._broadcast(instruction.leaves[0], _flat(operands[0]), source, dims)
        if _keeps_order(instruction):
            (source,) = sources[0]
            return self._reshape(instruction.leaves[0], _flat(operands[0]), source)
        return None

    def _computed(
        self,
        instruction: Instruction,
        operands: Sequence[Digest],
        sources: Sequence[tuple[TensorType, ...]],
    ) -> str:
        """Digest what computes something: known values are worked out."""
        shape = " ".join(map(str, instruction.leaves))
        read = list(map(_flat, operands))
        kinds = [leaves[0] for leaves in sources if leaves]
        if len(instruction.leaves) == 1 and len(kinds) == len(read):
            digest = self._folded(instruction, read, kinds)
            if digest is not None:
                return digest
        attributes = sorted(self._attributes(instruction))
        if instruction.opcode in _COMMUTE:
            read.sort()
        digest = _hash(instruction.opcode, shape, attributes, *read)
        if instruction.opcode == "concatenate":
            self._parts[digest] = dims_of(instruction)[0], list(zip(read, kinds, strict=True))
        return digest

    def _iota(self, instruction: Instruction) -> str:
        """A table of places is the row of places, repeated."""
        (made,) = instruction.leaves
        along = int(instruction.attribute("iota_dimension"))
        row = TensorType((made.shape[along],), made.dtype)
        digest = self._constant(row, ",".join(map(str, range(row.elements))))
        return self._broadcast(made, digest, row, (along,))

    def _constant(self, made: TensorType, text: str) -> str:
        if "..." in text:
            raise ValueError("a constant that is not printed whole")
        value = read_literal(text, made)
        if value is not None:
            return self._value(value, made)
        dense = _without_ones(made)
        literal = re.sub(r"/\*.*?\*/|[{}\s]", "", text)
        return self._reshape(made, _hash("constant", literal, dense), dense)

    def _value(self, value: np.ndarray, made: TensorType) -> str:
        dense = _without_ones(made)
        digest = _hash("value", value.tobytes().hex(), dense)
        self._values[digest] = value.reshape(dense.shape)
        return self._reshape(made, digest, dense)

    def _broadcast(
        self, made: TensorType, operand: str, source: TensorType, dims: Sequence[int]
    ) -> str:
        """Digest a broadcast by those of its dims that are longer than 1."""
        value = self._known_value(operand, source)
        if value is not None and made.elements <= LARGEST:
            return self._value(broadcast(value, dims, made), made)
        place = {d: i for i, d in enumerate(d for d, n in enumerate(made.shape) if n != 1)}
        longer = [place[d] for d, size in zip(dims, source.shape, strict=True) if size != 1]
        small = self._reshape(_without_ones(source), operand, source)
        dense = _without_ones(made)
        if longer == list(range(len(dense.shape))):
            return self._reshape(made, small, dense)
        digest = _hash("broadcast", dense, longer, small)
        filled = value if value is not None else self._filled.get(self._base(operand))
        if filled is not None:
            self._filled[digest] = filled
        return self._reshape(made, digest, dense)

    def _known_value(self, digest: str, kind: TensorType) -> np.ndarray | None:
        value = self._values.get(self._base(digest))
        return None if value is None else value.reshape(kind.shape)

    def _uniform(self, digest: str) -> np.ndarray | None:
        """Return what every element of a tensor is, as a scalar; None if that is not known."""
        base = self._base(digest)
        value = self._values.get(base, self._filled.get(base))
        if value is None or not value.size or (value != value.flat[0]).any():
            return None
        return value.flat[0].reshape(())

    def _folded(
        self, instruction: Instruction, operands: Sequence[str], kinds: Sequence[TensorType]
    ) -> str | None:
        """Return the digest of what is known without running; None if nothing is."""
        made = instruction.leaves[0]
        values = [self._known_value(d, kind) for d, kind in zip(operands, kinds, strict=True)]
        known = [value for value in values if value is not None]
        if operands and len(known) == len(operands):
            value = fold(instruction, known)
            if value is not None:
                return self._value(value, made)
        plain = [
            self._uniform(d) if v is None else v for d, v in zip(operands, values, strict=True)
        ]
        if (kept := identity(instruction, plain)) is not None:
            return operands[kept]
        return self._simplified(instruction, operands, kinds)

    def _simplified(
        self, instruction: Instruction, operands: Sequence[str], kinds: Sequence[TensorType]
    ) -> str | None:
        """Return the digest of something plainer that is the same; None if there is nothing."""
        made = instruction.leaves[0]
        match instruction.opcode:
            case "select" if operands[1] == operands[2]:
                return operands[1]
            case "select" if (chosen := self._uniform(operands[0])) is not None:
                return operands[1 if chosen else 2]
            case "dynamic-slice" if (one := self._uniform(operands[0])) is not None:
                scalar = TensorType((), made.dtype)
                return self._broadcast(made, self._value(one, scalar), scalar, ())
            case "convert" if made.dtype == "i1":
                zero = self._constant(TensorType((), kinds[0].dtype), "0")
                zeros = self._broadcast(kinds[0], zero, TensorType((), kinds[0].dtype), ())
                return _hash("compare", str(made), ["direction=NE"], operands[0], zeros)
            case "subtract" if operands[0] == operands[1] and made.dtype[0] in "iu":
                return self._constant(made, ",".join("0" * made.elements))
            case "slice":
                return self._slice(instruction, operands[0])
        return None

    def _slice(self, instruction: Instruction, operand: str) -> str | None:
        """Return the digest of a part of a concatenation that is sliced out whole."""
        dim, parts = self._parts.get(operand, (0, []))
        start = 0
        for digest, kind in parts:
            first, limit, step = bounds_of(instruction)[dim]
            if (first, limit, step) == (start, start + kind.shape[dim], 1):
                return digest if kind == instruction.leaves[0] else None
            start += kind.shape[dim]
        return None

    def _base(self, digest: str) -> str:
        """Return the digest of what a reshape reshapes."""
        return self._reshaped[digest][0] if digest in self._reshaped else digest

    def _reshape(self, made: TensorType, operand: str, source: TensorType) -> str:
        base, shape = self._reshaped.get(operand, (operand, source))
        if made == shape:
            return base
        digest = _hash("reshape", made, base)
        self._reshaped[digest] = (base, shape)
        return digest

    def _loop(self, loop: Instruction, carried: Digest) -> Digest:
        """Return digests of what a loop hands out; what no trip changes is as it was before."""
        (condition,), (body,) = loop.called("condition"), loop.called("body")
        before = carried if isinstance(carried, tuple) else (carried,)

        def run(name: str, values: Sequence[Digest]) -> tuple[Digest, ...]:
            given = tuple(values) if isinstance(carried, tuple) else values[0]
            after = self.computation(name, (given,))
            return after if isinstance(after, tuple) else (after,)

        symbols: list[Digest] = [_hash("carried", i, _flat(v)) for i, v in enumerate(before)]
        steady = [a == b for a, b in zip(run(body, symbols), symbols, strict=True)]
        order = iter(range(len(before)))
        inside: list[Digest] = [
            value if same else _hash("carried", next(order), loop.leaves[i])
            for i, (value, same) in enumerate(zip(before, steady, strict=True))
        ]
        changed = [i for i, same in enumerate(steady) if not same]
        after = run(body, inside)
        whole = _hash(
            "while", _flat(run(condition, inside)),
            *(_flat(after[i]) for i in changed), *(_flat(before[i]) for i in changed),
        )  # fmt: skip
        results = list(before)
        for place, i in enumerate(changed):
            results[i] = _hash("after", place, whole)
        return tuple(results) if isinstance(carried, tuple) else results[0]

    def _branches(self, instruction: Instruction, operands: Sequence[Digest]) -> Digest:
        names = instruction.called(*_BRANCHES)
        pairs = zip(names, operands[1:], strict=True)
        made = [self.computation(name, (operand,)) for name, operand in pairs]
        return _hash("conditional", _flat(operands[0]), *map(_flat, made))

    def _attributes(self, instruction: Instruction) -> Iterator[str]:
        for name, value in attributes_of(instruction):
            callees = [part.strip(" %") for part in value.strip("{}").split(",")]
            if name in _IGNORED or not (name or value):
                continue
            if name == _GROUPS:
                yield f"{name}={parse_hlo_groups(value)}"
            elif name and all(callee in self.module.computations for callee in callees):
                yield f"{name}={[_flat(self.computation(callee)) for callee in callees]}"
            else:
                yield f"{name}={value}"


def _keeps_order(instruction: Instruction) -> bool:
    """Whether elements stay in their order: a reshape, or what only moves dims of size 1."""
    if instruction.opcode != "transpose":
        return instruction.opcode == "reshape"
    sizes = zip(dims_of(instruction), instruction.leaves[0].shape, strict=True)
    moved = [d for d, size in sizes if size > 1]
    return moved == sorted(moved)


def _without_ones(kind: TensorType) -> TensorType:
    return TensorType(tuple(size for size in kind.shape if size != 1), kind.dtype)
