"""Reads HLO text of any pass stage, of XLA old and new, without asking XLA.

jaxlib's own parser refuses some of what XLA prints (a collective-start with operand aliasing), and
tells nothing of metadata. The printed form is regular enough to be read line by line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from hlo_passes.errors import InputError
from hlo_passes.ir.types import TensorType, from_hlo_dtype

_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+)\s*(?:\(.*\)\s*->.*)?\{\s*$")
_SHAPE = re.compile(r"(\w+)\[([\d,\s<=?]*)\](?:\{[^{}]*\})?")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_TARGET = re.compile(r'custom_call_target="((?:[^"\\]|\\.)*)"')
_OPERAND = re.compile(r"%([\w.\-]+)(?:#(\d+))?")
_NAME = re.compile(r"[\w.\-]+")
_NAME_OF_ATTRIBUTE = re.compile(r"([a-z][\w.\-]*)=")
_SECOND_HALF = "device_ids="
"""Goes on with the replica groups before it, behind a comma."""
_COMMENT = re.compile(r"/\*.*?\*/")
_BRACKETS = {"(": re.compile(r"[()]"), "{": re.compile(r"[{}]"), "[": re.compile(r"[\[\]]")}
_FRAME = re.compile(r"^(\d+) \{(.*)\}$")
_NAMED = re.compile(r'^(\d+) "(.*)"$')


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of HLO.

    Attributes:
        name: without the percent sign.
        opcode: as printed (`all-to-all-start`).
        leaves: the tensors of its shape, tuples flattened.
        operands: names of the instructions that it reads.
        picks: per operand, which element of a tuple it takes (`%x#1`, as dumps spell it); -1 for
            all of it. Empty if it takes all of every operand.
        attributes: everything after the operand list, or a constant's or parameter's literal.
        line: line number in the text, from 1.
        is_root: whether it is what its computation returns.
    """

    name: str
    opcode: str
    leaves: tuple[TensorType, ...]
    operands: tuple[str, ...]
    attributes: str
    line: int
    is_root: bool = False
    picks: tuple[int, ...] = ()

    def taken(self, place: int, leaves: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
        """Return which of the leaves of operand `place` the instruction reads."""
        pick = self.picks[place] if place < len(self.picks) else -1
        return leaves[pick : pick + 1] if 0 <= pick < len(leaves) else leaves

    def attribute(self, name: str) -> str:
        """Return the value of `name=...` as printed, or "" where it has none."""
        if name not in self.attributes:
            return ""
        match = re.search(rf"(?:^|[,\s]){re.escape(name)}=", self.attributes)
        return _balanced(self.attributes, match.end()) if match else ""

    def called(self, *names: str) -> tuple[str, ...]:
        """Return the computations that the attributes `names` refer to."""
        return tuple(c for n in names for c in _NAME.findall(self.attribute(n)))


@dataclass(slots=True)
class Computation:
    """A named list of instructions, in printed order."""

    name: str
    is_entry: bool
    instructions: list[Instruction] = field(default_factory=list)


@dataclass(slots=True)
class HloText:
    """A whole module as read.

    Attributes:
        name: the module's name.
        header: its first line.
        computations: by name, in printed order.
        files, locations, frames: the stack-frame tables, where printed.
    """

    name: str
    header: str
    computations: dict[str, Computation]
    files: dict[int, str]
    locations: dict[int, tuple[int, int]]
    frames: dict[int, int]

    @property
    def entry(self) -> Computation:
        """The computation that runs."""
        return next(c for c in self.computations.values() if c.is_entry)

    @property
    def is_scheduled(self) -> bool:
        """Whether the printed order is the order of execution."""
        return "is_scheduled=true" in self.header

    @property
    def devices(self) -> int:
        """Number of devices that the module was compiled for."""
        counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", self.header)
        return max([int(c) for c in counts], default=1)

    def source_of(self, instruction: Instruction) -> str:
        """Return `file:line` of the user's code that an instruction comes from, or ""."""
        text = instruction.attributes
        if match := re.search(r'source_file="([^"]*)"(?: source_line=(\d+))?', text):
            return f"{match[1]}:{match[2] or 0}"
        if match := re.search(r"stack_frame_id=(\d+)", text):
            place = self.locations.get(self.frames.get(int(match[1]), -1))
            if place:
                return f"{self.files.get(place[0], '?')}:{place[1]}"
        return ""

    def target_of(self, instruction: Instruction) -> str:
        """Return what a custom call calls, spelled out or inside an `async-start`; else ""."""
        if instruction.opcode == "async-start":
            wrapped = self.computations.get(next(iter(instruction.called("calls")), ""))
            calls = wrapped.instructions if wrapped else []
            instruction = next((i for i in calls if i.opcode == "custom-call"), instruction)
        if instruction.opcode not in ("custom-call", "custom-call-start"):
            return ""
        match = _TARGET.search(instruction.attributes)
        return match[1] if match else ""


def read_hlo(text: str, path: str = "<text>") -> HloText:
    """Read a module.

    Args:
        text: what XLA printed.
        path: where it came from, for messages.

    Raises:
        InputError: if it is no HLO, ends early, defines a value twice, or reads one that
            nothing defines.
    """
    start = text.find("HloModule ")
    if start < 0:
        raise InputError(path, "no HloModule line", "pass HLO text as XLA prints or dumps it")
    header = text[start : text.find("\n", start) if "\n" in text[start:] else len(text)]
    name = re.split(r"[,\s]", header[len("HloModule ") :], maxsplit=1)[0]
    module = HloText(name, header, {}, {}, {}, {})
    current: Computation | None = None
    table = ""
    for number, line in enumerate(text[start:].split("\n"), 1 + text[:start].count("\n")):
        if current is not None:
            if line.startswith("}"):
                current = None
            elif match := _INSTRUCTION.match(line):
                current.instructions.append(_instruction(match, number, path))
        elif match := _COMPUTATION.match(line):
            current = Computation(match["name"], bool(match["entry"]))
            module.computations[current.name] = current
        elif line in ("FileNames", "FileLocations", "StackFrames", "FunctionNames"):
            table = line
        elif table:
            _read_table(module, table, line)
    _check(module, current, path, text.count("\n") + 1)
    return module


def _check(module: HloText, open_one: Computation | None, path: str, lines: int) -> None:
    """Raise if the module was cut off or refers to what is not there."""
    if open_one is not None:
        raise InputError(
            f"{path}:{lines}",
            f"the text ends inside computation {open_one.name}",
            "the dump is truncated: write it again",
        )
    if not any(c.is_entry for c in module.computations.values()):
        raise InputError(path, "the module has no ENTRY computation", "write the dump again")
    for computation in module.computations.values():
        known: set[str] = set()
        for instruction in computation.instructions:
            for operand in instruction.operands:
                if operand not in known:
                    raise InputError(
                        f"{path}:{instruction.line}",
                        f"{instruction.name} reads {operand}, which no line before it defines",
                        "the module is malformed or cyclic: dump it again from XLA",
                    )
            if instruction.name in known:
                raise InputError(
                    f"{path}:{instruction.line}",
                    f"{instruction.name} is defined a second time in {computation.name}",
                    "the module is malformed: dump it again from XLA",
                )
            known.add(instruction.name)


def _instruction(match: re.Match[str], line: int, path: str) -> Instruction:
    """Read what stands right of an instruction's name."""
    rest = match["rest"]
    shape = _balanced(rest, 0) if rest.startswith("(") else _first_shape(rest)
    opcode = _OPCODE.match(rest, len(shape)) if shape else None
    if opcode is None:
        where = f"{path}:{line}"
        raise InputError(where, f"cannot read instruction {match['name']}", "dump it again")
    end = rest.find(")", opcode.end())
    if "(" in rest[opcode.end() : end] or end < 0:
        end = _close(rest, opcode.end() - 1)
    inside = rest[opcode.end() : end]
    literal = opcode[1] in ("constant", "parameter", "iota")
    picks = [int(k) if k else -1 for _, k in _OPERAND.findall(inside)] if "#" in inside else ()
    return Instruction(
        name=match["name"],
        opcode=opcode[1],
        leaves=_leaves(shape),
        operands=() if literal else tuple(_operands(inside)),
        attributes=(inside if literal else "") + rest[end + 1 :],
        line=line,
        is_root=bool(match["root"]),
        picks=() if literal else tuple(picks),
    )


def attributes_of(instruction: Instruction) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of what stands behind an instruction's operands, values as printed.

    A literal, and what else has no name, has the name "".
    """
    depth, quoted, start = 0, False, 0
    text = f"{instruction.attributes}, "
    for at, char in enumerate(text):
        if char == '"' and text[at - 1] != "\\":
            quoted = not quoted
        if quoted:
            continue
        depth += (char in "([{") - (char in ")]}")
        is_end = char == "," and depth == 0 and text[at + 1] == " "
        if is_end and not text.startswith(_SECOND_HALF, at + 2):
            part, start = text[start:at].strip(), at + 1
            match = _NAME_OF_ATTRIBUTE.match(part)
            yield (match[1], part[match.end() :]) if match else ("", part)


def _first_shape(text: str) -> str:
    match = _SHAPE.match(text)
    return match[0] if match else ""


@lru_cache(maxsize=4096)
def _leaves(shape: str) -> tuple[TensorType, ...]:
    """Read every tensor of a shape; a dynamic dimension counts at its bound."""
    return tuple(
        TensorType(
            tuple(int(d.strip("<= ") or 0) for d in dims.split(",") if d.strip()),
            from_hlo_dtype(dtype),
        )
        for dtype, dims in _SHAPE.findall(_COMMENT.sub("", shape))
    )


def _operands(inside: str) -> Iterator[str]:
    """Yield operand names, with or without percent signs and shapes before them."""
    if "%" in inside:
        yield from (name for name, _ in _OPERAND.findall(inside))
        return
    depth, word = 0, ""
    for char in _COMMENT.sub("", inside) + ",":
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            if word.strip():
                yield word.split()[-1]
            word = ""
        else:
            word += char


def _close(text: str, start: int) -> int:
    """Return the index of the bracket that closes the one at `start`; the end if none does."""
    depth, opened = 0, text[start]
    for match in _BRACKETS[opened].finditer(text, start):
        depth += 1 if match[0] == opened else -1
        if depth == 0:
            return match.start()
    return len(text)


def _balanced(text: str, start: int) -> str:
    """Return the bracketed, quoted or plain word at `start`, what follows a `]` included."""
    if start >= len(text):
        return ""
    if text[start] == '"':
        return text[start + 1 : text.find('"', start + 1)]
    if text[start] in "({":
        return text[start : _close(text, start) + 1]
    end = start
    while end < len(text) and text[end] not in ", ":
        if text[end] in "[{(":
            end = _close(text, end)
        end += 1
    return text[start:end]


def _read_table(module: HloText, table: str, line: str) -> None:
    """Take one line of a stack-frame table."""
    if match := _NAMED.match(line):
        if table == "FileNames":
            module.files[int(match[1])] = match[2]
    elif match := _FRAME.match(line):
        fields = dict(item.split("=") for item in match[2].split())
        if table == "FileLocations":
            place = (int(fields["file_name_id"]), int(fields["line"]))
            module.locations[int(match[1])] = place
        elif table == "StackFrames":
            module.frames[int(match[1])] = int(fields["file_location_id"])
