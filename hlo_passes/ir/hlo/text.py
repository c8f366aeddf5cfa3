"""Reads HLO text as XLA prints it, of any pass stage, of XLA old and new, without asking XLA.

jaxlib's own parser refuses some of what XLA prints (a collective-start with operand aliasing), and
tells nothing of metadata. The printed form is regular enough to be read line by line. A line is
understood to its end or it is an error: `dumps.load` has jaxlib print such a text in this form.
"""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from hlo_passes.errors import InputError
from hlo_passes.ir.hlo.syntax import (
    COMPUTATION,
    END,
    INSTRUCTION,
    UnboundedError,
    attributes_in,
    balanced,
    check_tail,
    close,
    is_outside,
    leaves_of,
    operands_of,
    shape_at_start,
    statements,
)
from hlo_passes.ir.types import TensorType

_HEADER = re.compile(r"^[ \t]*HloModule (?P<name>[\w.\-]+)(?:,.*)?$", re.MULTILINE)
_MORE_HEADER = re.compile(r"^\s*(?:,|\w+=\{.*\})$")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_TARGET = re.compile(r'custom_call_target="((?:[^"\\]|\\.)*)"')
_NAME = re.compile(r"[\w.\-]+")
_CALLS = re.compile(r"\b(?:calls|body)=%?([\w.\-]+)")
"""What runs as a part of the step, where reducers and conditions hardly take time."""
_SENT = ("send", "recv")
_LITERALS = ("constant", "parameter", "iota")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_AGAIN = "write it as XLA prints it, or dump it again"
_CYCLIC = "the module is malformed or cyclic: dump it again from XLA"
_BOUND = "give every dimension a size, or a bound as in f32[<=128]"
_FRAME = re.compile(r"^\s*(\d+) \{((?:\w+=\d+ ?)*)\}$")
_NAMED = re.compile(r'^\s*(\d+) "(.*)"$')


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
        lines: how many lines of the text it takes.
    """

    name: str
    opcode: str
    leaves: tuple[TensorType, ...]
    operands: tuple[str, ...]
    attributes: str
    line: int
    is_root: bool = False
    picks: tuple[int, ...] = ()
    lines: int = 1

    def taken(self, place: int, leaves: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
        """Return which of the leaves of operand `place` the instruction reads."""
        pick = self.picks[place] if place < len(self.picks) else -1
        return leaves[pick : pick + 1] if 0 <= pick < len(leaves) else leaves

    def attribute(self, name: str) -> str:
        """Return the value of `name=...` as printed, or "" where it has none."""
        if name not in self.attributes:
            return ""
        for match in re.finditer(rf"(?:^|[,\s]){re.escape(name)}=", self.attributes):
            if is_outside(self.attributes, match.start()):
                return balanced(self.attributes, match.end())
        return ""

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
        """Number of devices that the module was compiled for: replicas of so many partitions."""
        counts = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", self.header)
        return math.prod(map(int, counts))

    @property
    def is_as_printed(self) -> bool:
        """Whether names, shapes and operands are as XLA leaves them, whatever a text may say.

        XLA counts `add` and `add.0` as the same name, gives a `send` three results, and makes an
        instruction of its own of `%x#1`.
        """
        names = [i.name for i in self._instructions()]
        return (
            _are_as_printed(self.computations)
            and _are_as_printed(names)
            and not any(
                i.picks or (i.opcode in _SENT and len(i.leaves) < 3) for i in self._instructions()
            )
        )

    def _instructions(self) -> Iterator[Instruction]:
        return chain.from_iterable(c.instructions for c in self.computations.values())

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


def _are_as_printed(names: Collection[str]) -> bool:
    """Whether XLA would leave names as they are: none alike for it, none like a number."""
    parts = [name.rpartition(".") for name in names]
    keys = {(a, int(b)) if a and b.isdecimal() else (a + dot + b, 0) for a, dot, b in parts}
    return len(keys) == len(parts) and not any(name[0] in "0123456789.-" for name in names)


def read_hlo(text: str, path: str = "<text>") -> HloText:
    """Read a module.

    Args:
        text: what XLA printed.
        path: where it came from, for messages.

    Raises:
        InputError: if it is no HLO, has a line that is not understood, ends early, defines a value
            twice, or reads or calls what nothing defines.
    """
    start = _HEADER.search(text)
    if start is None:
        raise InputError(path, "no HloModule line", "pass HLO text as XLA prints or dumps it")
    reader = _Reader(HloText(start["name"], "", {}, {}, {}, {}), path)
    number = first = text.count("\n", 0, start.start()) + 1
    for number, lines, line in statements(text[start.start() :], first):
        reader.take(number, lines, line)
    _check(reader.module, reader.current, path, number)
    return reader.module


@dataclass
class _Reader:
    """Takes a module statement by statement.

    Attributes:
        module: what was read so far.
        path: where the text came from.
        current: the computation that is open.
        table: the table of stack frames that was begun last.
    """

    module: HloText
    path: str
    current: Computation | None = None
    table: str = ""

    def take(self, number: int, lines: int, line: str) -> None:
        """Read one statement.

        Args:
            number: of its first line.
            lines: how many it has; 0 if it is not closed.
            line: all of it.
        """
        where = f"{self.path}:{number}"
        if not lines:
            what = f"a bracket or a string is not closed: {line.strip()[:60]}"
            raise InputError(where, what, _AGAIN)
        if not self.module.header:
            self.module.header = line.strip()
            return
        inside = self.current is not None
        is_read = self._inside(number, lines, line) if inside else self._outside(line, where)
        if not is_read:
            raise InputError(where, f"not understood: {line.strip()[:60]}", _AGAIN)

    def _inside(self, number: int, lines: int, line: str) -> bool:
        """Take what stands in a computation; return whether it may."""
        assert self.current is not None
        if match := INSTRUCTION.match(line):
            self.current.instructions.append(_instruction(match, number, lines, self.path))
        elif END.match(line):
            self.current = None
        else:
            return _says_nothing(line)
        return True

    def _outside(self, line: str, where: str) -> bool:
        """Take what stands between computations; return whether it may."""
        if _says_nothing(line):
            return True
        if match := COMPUTATION.match(line):
            self.current = _computation(self.module, match, where)
        elif line.strip() in _TABLES:
            self.table = line.strip()
        elif not self.module.computations and _MORE_HEADER.match(line):
            self.module.header += f", {line.strip()}"
        else:
            return bool(self.table) and _read_table(self.module, self.table, line)
        return True


def _says_nothing(line: str) -> bool:
    return not line or line.lstrip().startswith("//")


def _computation(module: HloText, match: re.Match[str], where: str) -> Computation:
    """Begin a computation."""
    name = match["name"]
    if name in module.computations:
        raise InputError(where, f"computation {name} is defined a second time", _AGAIN)
    module.computations[name] = Computation(name, bool(match["entry"]))
    return module.computations[name]


def _check(module: HloText, open_one: Computation | None, path: str, lines: int) -> None:
    """Raise if the module was cut off or refers to what is not there."""
    if open_one is not None:
        raise InputError(
            f"{path}:{lines}",
            f"the text ends inside computation {open_one.name}",
            "the dump is truncated: write it again",
        )
    entries = sum(c.is_entry for c in module.computations.values())
    if entries != 1:
        what = "no ENTRY computation" if not entries else f"{entries} ENTRY computations"
        raise InputError(path, f"the module has {what}", "write the dump again")
    for computation in module.computations.values():
        _check_computation(module, computation, path)


def _check_computation(module: HloText, computation: Computation, path: str) -> None:
    """Raise if it is empty or ambiguous, or reads or calls what is not there; find its root."""
    _find_root(computation, path)
    known: set[str] = set()
    for instruction in computation.instructions:
        where, name = f"{path}:{instruction.line}", instruction.name
        unknown = next((o for o in instruction.operands if o not in known), None)
        if unknown is not None:
            raise InputError(where, f"{name} reads {unknown}, which no line before it defines",
                             _CYCLIC)  # fmt: skip
        if name in known:
            raise InputError(where, f"{name} is defined a second time in {computation.name}",
                             "the module is malformed: dump it again from XLA")  # fmt: skip
        absent = next((c for c in _run_by(instruction) if c not in module.computations), None)
        if absent is not None:
            raise InputError(where, f"{name} calls {absent}, which is not there", _AGAIN)
        known.add(name)


def _find_root(computation: Computation, path: str) -> None:
    """Raise if a computation has no one root; without a mark it is what stands last."""
    instructions = computation.instructions
    roots = sum(i.is_root for i in instructions)
    if not instructions or roots > 1:
        what = f"{roots} ROOT instructions" if instructions else "no instruction"
        raise InputError(path, f"computation {computation.name} has {what}", _AGAIN)
    if not roots:
        instructions[-1] = replace(instructions[-1], is_root=True)


def _run_by(instruction: Instruction) -> list[str]:
    """Return the computations that an instruction runs as a part of the step."""
    named = instruction.called("to_apply") if instruction.opcode == "call" else ()
    return [*named, *_CALLS.findall(instruction.attributes)]


def _instruction(match: re.Match[str], line: int, lines: int, path: str) -> Instruction:
    """Read what stands right of an instruction's name."""
    rest = match["rest"]
    try:
        shape = shape_at_start(rest)
        opcode = _OPCODE.match(rest, len(shape)) if shape else None
        if opcode is None:
            raise ValueError("no shape and opcode behind its name")
        end = rest.find(")", opcode.end())
        if "(" in rest[opcode.end() : end] or end < 0:
            end = close(rest, opcode.end() - 1)
        inside, tail = rest[opcode.end() : end], rest[end + 1 :]
        literal = opcode[1] in _LITERALS
        operands, picks = ((), ()) if literal else operands_of(inside)
        leaves = leaves_of(shape)
        if opcode[1] == "parameter" and not inside.isdecimal():
            raise ValueError(f"{inside!r} is no number of a parameter")
        if end == len(rest):
            raise ValueError("its operands do not end in its line")
        check_tail(tail)
    except ValueError as error:
        what = f"cannot read instruction {match['name']}: {error}"
        remedy = _BOUND if isinstance(error, UnboundedError) else _AGAIN
        raise InputError(f"{path}:{line}", what, remedy) from None
    return Instruction(
        name=match["name"],
        opcode=opcode[1],
        leaves=leaves,
        operands=operands,
        attributes=(inside if literal else "") + tail,
        line=line,
        lines=lines,
        is_root=bool(match["root"]),
        picks=picks,
    )


def attributes_of(instruction: Instruction) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of what stands behind an instruction's operands; see `attributes_in`."""
    return attributes_in(instruction.attributes)


def _read_table(module: HloText, table: str, line: str) -> bool:
    """Take one line of a stack-frame table; return whether it is one."""
    if match := _NAMED.match(line):
        if table == "FileNames":
            module.files[int(match[1])] = match[2]
        return table in _TABLES[:2]
    match = _FRAME.match(line)
    fields = dict(item.split("=") for item in match[2].split()) if match else {}
    if match and table == "FileLocations" and {"file_name_id", "line"} <= fields.keys():
        place = (int(fields["file_name_id"]), int(fields["line"]))
        module.locations[int(match[1])] = place
    elif match and table == "StackFrames" and "file_location_id" in fields:
        module.frames[int(match[1])] = int(fields["file_location_id"])
    else:
        return False
    return True
