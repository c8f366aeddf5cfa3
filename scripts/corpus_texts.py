"""Finds the HLO and MLIR texts that stand in a checkout: whole files, and literals of C++ tests."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|(?<!\w)'(?:\\.|[^'\\\n])+'"""
    r"""|\bu?8?R"(?P<mark>[^()\\\s]{0,16})\((?P<raw>.*?)\)(?P=mark)\""""
    r"""|"(?P<plain>(?:[^"\\\n]|\\.)*)\"""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]+|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\n": ""}
_HLO_FILES, _SOURCES = (".hlo", ".txt", ".hlotxt"), (".cc", ".h")


@dataclass(frozen=True, slots=True)
class Text:
    """A text and where it stands: a file, and its line in it."""

    place: str
    text: str


def hlo_texts(root: Path) -> list[Text]:
    """Return every different HLO module of a checkout, in the order of paths."""
    found: dict[str, Text] = {}
    for path in _files(root, (*_HLO_FILES, *_SOURCES)):
        source = path.read_text("utf-8", "replace")
        if "HloModule " not in source:
            continue
        name = str(path.relative_to(root))
        for line, text in (literals if path.suffix in _SOURCES else _pieces)(source):
            if "HloModule " in text:
                found.setdefault(text, Text(f"{name}:{line}", text))
    return list(found.values())


def mlir_texts(root: Path) -> list[Text]:
    """Return every different piece of the `.mlir` files of a checkout, cut at `// -----`."""
    found: dict[str, Text] = {}
    for path in _files(root, (".mlir",)):
        for line, text in _pieces(path.read_text("utf-8", "replace")):
            if "func" in text or "module" in text:
                found.setdefault(text, Text(f"{path.relative_to(root)}:{line}", text))
    return list(found.values())


def _pieces(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what stands between lines of dashes, as MLIR's tools cut files."""
    line = 1
    for piece in re.split(r"(?m)^// -----.*$", source):
        yield line, piece
        line += piece.count("\n")


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, value) of the string literals of C++, neighbours joined as a compiler does."""
    held, since, end = "", 0, 0
    for match in _TOKEN.finditer(source):
        value = match["raw"] if match["raw"] is not None else match["plain"]
        is_comment = match[0].startswith(("//", "/*"))
        if source[end : match.start()].strip() or (value is None and not is_comment):
            if held:
                yield source.count("\n", 0, since) + 1, held
            held = ""
        end = match.end()
        if value is not None:
            since = since if held else match.start()
            held += value if match["raw"] is not None else _unescape(value)
    if held:
        yield source.count("\n", 0, since) + 1, held


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x":
            return chr(int(code[1:], 16) & 0xFF)
        return chr(int(code, 8) & 0xFF) if code[0].isdigit() else _ESCAPED.get(code, code)

    return _ESCAPE.sub(one, text)


def _files(root: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix in endings and p.is_file())
