"""The words of HLO text: brackets, strings, shapes and operand lists, each understood whole.

Everything here takes a piece of a line and either knows all of it or raises a `ValueError` that
says what it does not know.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from hlo_passes.ir.types import TensorType, from_hlo_dtype, is_hlo_dtype

INSTRUCTION = re.compile(r"^\s*(?P<root>ROOT )?%?(?P<name>[\w.\-]+)\s*=\s*(?P<rest>.*)$")
COMPUTATION = re.compile(r"^\s*(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+)\s*(?:\(.*\)\s*->.*)?\{$")
END = re.compile(r'^\s*\}(?:, execution_thread="[^"]*")?$')
_DIMS = r"\[([\d,\s<=?]*)\]"
_SHAPE = re.compile(rf"(\w+){_DIMS}(?:\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}})?")
_FRAME = re.compile(r"[\s(),]|\bb(?=\()")
"""What stands around the tensors of a tuple or a buffer."""
_OPERAND = re.compile(r"%([\w.\-]+)(?:#(\d+))?")
_WORD = re.compile(r"%?([\w.\-]+)(?:#(\d+))?")
_PLAIN_OPERANDS = re.compile(r"\s*%[\w.\-]+(?:#\d+)?(?:\s*,\s*%[\w.\-]+(?:#\d+)?)*\s*")
_NAME_OF_ATTRIBUTE = re.compile(r"([a-z][\w.\-]*)=")
_SECOND_HALF = "device_ids="
"""Goes on with the replica groups before it, behind a comma."""
_COMMENT = re.compile(r"/\*.*?\*/")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LISTED = r"\{[\d,]*\}|\{(?:\{[\d,]*\},?)*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?"
_NAMED = r"\{[^{}]*\}|%?[\w.\-]+"
_LOOKED_UP = rf"""
    (?:replica_groups|source_target_pairs|dimensions) (?:[ ]=|=(?!(?:{_LISTED})(?:,[ ]|$)|@?mesh))
    |(?:channel_id|index) (?:[ ]=|=(?!"|\d+(?:,[ ]|$)))
    |use_global_device_ids (?:[ ]=|=(?!(?:true|false)(?:,[ ]|$)))
    |(?:to_apply|calls|body|condition|\w+_computations?) (?:[ ]=|=(?!(?:{_NAMED})(?:,[ ]|$)))
"""
_UNLIKE_XLA = re.compile(rf"//|,[ ](?:{_LOOKED_UP})", re.VERBOSE)
"""A comment, or an attribute that is looked up by how XLA spells it and is spelled otherwise."""
_SUSPECT = (
    "//", " =", "= ", "=/", "\t", "replica_groups", "source_target", "dimensions", "channel_id",
    ", index=",
)  # fmt: skip
_INNERMOST = re.compile(r"\[[^\[\](){}]*\]|\{[^\[\](){}]*\}|\([^\[\](){}]*\)")
_BRACKETS = {"(": re.compile(r"[()]"), "{": re.compile(r"[{}]"), "[": re.compile(r"[\[\]]")}


class UnboundedError(ValueError):
    """A dimension that may have any size."""


def statements(text: str, first: int) -> Iterator[tuple[int, int, str]]:
    """Yield (number of its first line, how many lines, what stands there) of every statement.

    A statement is a line, or several where XLA prints line ends inside a bracket: configs of
    kernels, tables in the header. The last one has 0 lines if it is never closed.

    Args:
        text: HLO from its `HloModule` on.
        first: number of its first line.
    """
    unclosed: str = ""
    since, is_quoted = first, False
    for number, line in enumerate(map(str.rstrip, text.split("\n")), first):
        if not unclosed:
            if _is_whole(line):
                yield number, 1, line
                continue
            since = number
        elif not is_quoted and _is_instruction(line):
            break
        unclosed = f"{unclosed} {line.lstrip()}" if unclosed else line
        is_quoted ^= (line.count('"') - line.count('\\"')) % 2 == 1
        if not is_quoted and is_closed(unclosed):
            yield since, number - since + 1, unclosed
            unclosed = ""
    if unclosed:
        yield since, 0, unclosed


def _is_whole(line: str) -> bool:
    """Whether a line is a statement by itself."""
    is_frame = END.match(line) or COMPUTATION.match(line)
    return is_closed(line) or bool(is_frame) or _is_comment(line)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("//")


def _is_instruction(line: str) -> bool:
    """Whether a line is an instruction, and no setting in a kernel's config."""
    match = INSTRUCTION.match(line)
    return match is not None and bool(shape_at_start(match["rest"]))


def shape_at_start(text: str) -> str:
    """Return the shape that a text begins with, "" where it begins with none."""
    opened = text.find("(", 0, 2)
    if opened >= 0 and text[:opened] in ("", "b"):
        return text[: close(text, opened) + 1]
    match = _SHAPE.match(text)
    return match[0] if match else ""


@lru_cache(maxsize=4096)
def leaves_of(shape: str) -> tuple[TensorType, ...]:
    """Read every tensor of a shape; a dynamic dimension counts at its bound.

    Raises:
        ValueError: if a part of it is no shape.
        UnboundedError: if a dimension has no bound.
    """
    bare = _COMMENT.sub("", shape)
    if rest := _FRAME.sub("", _SHAPE.sub("", bare)):
        raise ValueError(f"{rest!r} is no part of a shape")
    leaves = []
    for dtype, dims in _SHAPE.findall(bare):
        if not is_hlo_dtype(dtype):
            raise ValueError(f"{dtype!r} is no element type of HLO")
        if "?" in dims:
            raise UnboundedError(
                f"{dtype}[{dims}] has an unbounded dimension: its size is not known"
            )
        sizes = (int(d.strip("<= ")) for d in dims.split(",") if dims.strip())
        leaves.append(TensorType(tuple(sizes), from_hlo_dtype(dtype)))
    return tuple(leaves)


def operands_of(inside: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read an operand list: names, and which leaf of a tuple each takes.

    Args:
        inside: what stands between the brackets, with or without percent signs, shapes and
            comments.

    Returns:
        The names, and the leaves as in `Instruction.picks`.

    Raises:
        ValueError: if a part of it is no operand.
    """
    bare = _COMMENT.sub("", inside) if "/*" in inside else inside
    if _PLAIN_OPERANDS.fullmatch(bare):
        found = _OPERAND.findall(bare)
    elif not bare.strip():
        return (), ()
    else:
        found = [_operand(part) for part in without_brackets(bare).split(",")]
    picks = tuple(int(pick) if pick else -1 for _, pick in found) if "#" in bare else ()
    return tuple(name for name, _ in found), picks


def _operand(part: str) -> tuple[str, str]:
    """Read one operand whose shape has lost its brackets."""
    *before, last = part.split() or [""]
    match = _WORD.fullmatch(last)
    is_typed = len(before) == 1 and (is_hlo_dtype(before[0]) or before[0] == "b")
    if match is None or (before and not is_typed):
        raise ValueError(f"{part.strip()!r} is no operand")
    return match[1], match[2] or ""


def without_brackets(text: str) -> str:
    """Leave out what stands in brackets of any kind, and the brackets."""
    shorter = _INNERMOST.sub("", text)
    while shorter != text:
        text, shorter = shorter, _INNERMOST.sub("", shorter)
    return text


def check_tail(tail: str) -> None:
    """Check that what follows an operand list is attributes, to their end.

    Raises:
        ValueError: if it goes on in another line, or is something else.
    """
    if not tail:
        return
    if tail[0] != ",":
        raise ValueError(f"{tail.strip()[:40]!r} behind its operands is no attribute")
    if tail[-1] == ",":
        raise ValueError("it goes on in the next line")
    for mark in _SUSPECT:
        if mark in tail:
            break
    else:
        return
    if _UNLIKE_XLA.search(tail) and (found := _UNLIKE_XLA.search(_STRING.sub('""', tail))):
        raise ValueError(f"{found[0]!r} is a comment, or spaced otherwise than XLA does")


def is_closed(text: str) -> bool:
    """Whether no bracket and no string is open at the end."""
    return _is_even(text) or _is_even(_STRING.sub('""', text))


def _is_even(text: str) -> bool:
    count = text.count
    return (
        count("{") == count("}")
        and count("(") == count(")")
        and count("[") == count("]")
        and (count('"') - count('\\"')) % 2 == 0
    )


def is_outside(text: str, at: int) -> bool:
    """Whether position `at` is in no bracket and no string."""
    return is_closed(text[:at])


def close(text: str, start: int) -> int:
    """Return the index of the bracket that closes the one at `start`; the end if none does."""
    depth, opened = 0, text[start]
    for match in _BRACKETS[opened].finditer(text, start):
        depth += 1 if match[0] == opened else -1
        if depth == 0:
            return match.start()
    return len(text)


def balanced(text: str, start: int) -> str:
    """Return the bracketed, quoted or plain word at `start`, what follows a `]` included."""
    if start >= len(text):
        return ""
    if text[start] == '"':
        return text[start + 1 : text.find('"', start + 1)]
    if text[start] in "({":
        return text[start : close(text, start) + 1]
    end = start
    while end < len(text) and text[end] not in ", ":
        if text[end] in "[{(":
            end = close(text, end)
        end += 1
    return text[start:end]


def attributes_in(attributes: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of attributes with commas between them, values as printed.

    A literal, and what else has no name, has the name "".
    """
    depth, quoted, start = 0, False, 0
    text = f"{attributes}, "
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
