"""Reads scheduled HLO text as a listing: blocks of lines in the order in which they run."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hlo_passes.errors import InputError

_HEAD = re.compile(r"(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*)?\{$")
_CUT_OFF = ("the text ends too early", "write the dump again")
_LEFT = re.compile(r"\s+(ROOT\s+)?%?([\w.\-]+) = ")
_TENSOR = re.compile(r"\b([a-z]\w*)\[([^\]]*)\]")
_QUOTED_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[()]')
_REFERENCE = re.compile(r"%([\w.\-]+)")
_COMMENT = re.compile(r"/\*.*?\*/")
_WIDTH = re.compile(r"[a-z]+(\d+)")
_LITERALS = ("constant", "parameter", "iota")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Element type, as HLO spells it, and sizes; a bounded size counts in full."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> float:
        """Bytes in memory; tokens and opaque handles have none."""
        if self.dtype == "pred":
            return float(self.elements)
        width = _WIDTH.match(self.dtype)
        return self.elements * int(width[1]) / 8 if width else 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction.

    Attributes:
        name: its name, without the percent sign.
        opcode: as printed.
        makes: the tensors of its result, tuples flattened.
        reads: names of its operands.
        text: all that stands behind the operands; of a literal, the operands too.
        number: line number in the module's text, from 1.
        is_root: whether it is the block's result.
    """

    name: str
    opcode: str
    makes: tuple[Tensor, ...]
    reads: tuple[str, ...]
    text: str
    number: int
    is_root: bool

    def value(self, key: str) -> str:
        """Return the name, number or list in braces that follows `key=`; "" if there is none."""
        at = re.search(rf"(?<![\w-]){re.escape(key)}=(\{{[^{{}}]*\}}|[\w.%\-]+)", self.text)
        return at[1].lstrip("%") if at else ""

    def names(self, *keys: str) -> tuple[str, ...]:
        """Return every name that follows one of `keys`."""
        return tuple(n for key in keys for n in re.findall(r"[\w.\-]+", self.value(key)))


@dataclass(frozen=True)
class ListedComputation:
    """A computation.

    Attributes:
        name: its name.
        lines: in the order of execution.
    """

    name: str
    lines: tuple[Line, ...]

    @property
    def root(self) -> Line:
        """Its result; the last line where none is marked."""
        return next((line for line in self.lines if line.is_root), self.lines[-1])


@dataclass(frozen=True)
class Listing:
    """A module.

    Attributes:
        path: where the text came from, for messages.
        devices: how many run it: replicas, of so many partitions each.
        replicas: how many replicas.
        entry: the block that runs.
        blocks: all of them by name.
    """

    path: str
    devices: int
    replicas: int
    entry: ListedComputation
    blocks: dict[str, ListedComputation]

    def block(self, name: str, line: Line) -> ListedComputation:
        """Return a block that a line calls.

        Raises:
            InputError: if the module has none of that name.
        """
        if name not in self.blocks:
            raise InputError(f"{self.path}:{line.number}", f"{line.name} calls {name!r}, which is "
                             "not there", "the dump is incomplete: write it again")  # fmt: skip
        return self.blocks[name]


def read_listing(text: str, path: str = "<module>") -> Listing:
    """Read a scheduled module.

    Raises:
        InputError: if the text is no HLO, is cut off, or its order is not a schedule.
    """
    header = re.search(r"^HloModule .*$", text, re.MULTILINE)
    if header is None:
        raise InputError(path, "no HloModule line", "pass HLO text as XLA prints or dumps it")
    if "is_scheduled=true" not in header[0]:
        raise InputError(path, "the module is not scheduled: its order says nothing",
                         "pass what XLA compiled: compiled.as_text()")  # fmt: skip
    replicas, partitions = (_count(header[0], n) for n in ("replica_count", "num_partitions"))
    found = list(_computations(text, path))
    entries = [block.name for is_entry, block in found if is_entry]
    if not entries:
        raise InputError(path, *_CUT_OFF)
    blocks = {block.name: block for _, block in found}
    return Listing(path, replicas * partitions, replicas, blocks[entries[-1]], blocks)


def _computations(text: str, path: str) -> Iterator[tuple[bool, ListedComputation]]:
    """Yield (whether it is the one that runs, computation)."""
    name, is_entry = "", False
    lines: list[Line] = []
    for number, row in enumerate(text.split("\n"), 1):
        if name and row.startswith("}"):
            yield is_entry, ListedComputation(name, tuple(lines))
            name = ""
        elif name:
            if left := _LEFT.match(row):
                lines.append(_line(row, left, number, path))
        elif row.endswith("{") and (head := _HEAD.match(row)):
            name, is_entry, lines = head[2], bool(head[1]), []
    if name:
        raise InputError(path, *_CUT_OFF)


def _count(header: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", header)
    return int(found[1]) if found else 1


def _line(row: str, left: re.Match[str], number: int, path: str) -> Line:
    """Read one instruction: type, opcode, operands in brackets, and the rest."""
    begin = left.end()
    after_type = _closing(row, begin) + 1 if row[begin] == "(" else row.find(" ", begin)
    opens = row.find("(", after_type)
    opcode = row[after_type:opens].strip()
    closes = _closing(row, opens) if opens > 0 else -1
    if closes < 0 or not re.fullmatch(r"[\w\-]+", opcode):
        raise InputError(f"{path}:{number}", f"cannot read instruction {left[2]}", "dump it again")
    inside = row[opens + 1 : closes]
    is_literal = opcode in _LITERALS
    return Line(
        left[2], opcode, _tensors(row[begin:after_type]), () if is_literal else _names(inside),
        (inside if is_literal else "") + row[closes + 1 :], number, bool(left[1]),
    )  # fmt: skip


def _closing(row: str, at: int) -> int:
    """Return where the bracket at `at` closes; -1 if it never does."""
    depth = 0
    for token in _QUOTED_OR_BRACKET.finditer(row, at):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0:
            return token.start()
    return -1


@lru_cache(maxsize=8192)
def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(dtype, tuple(int(n) for n in re.findall(r"\d+", sizes)))
        for dtype, sizes in _TENSOR.findall(_COMMENT.sub("", text))
    )


def _names(inside: str) -> tuple[str, ...]:
    """Return the operands, with percent signs or without."""
    if "%" in inside or not inside.strip():
        return tuple(_REFERENCE.findall(inside))
    bare = re.sub(r"\[[^\]]*\]|\{[^}]*\}", "", _COMMENT.sub("", inside))
    return tuple(word.split()[-1].strip("()") for word in bare.split(",") if word.strip("() "))
