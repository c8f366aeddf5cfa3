"""Reads whatever module file people have: StableHLO or HLO, text or bytes, one of a folder."""

import re
from pathlib import Path

from hlo_passes.errors import InputError, LancetError
from hlo_passes.files import read_file
from hlo_passes.ir.guard import parsed_apart
from hlo_passes.ir.hlo.dump_folder import choose_module
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.hlo.wire import LENGTH, fields
from hlo_passes.ir.stablehlo.module import Module

_IS_HLO = re.compile(r"^(?:[ \t]|/\*.*?\*/)*HloModule\b", re.MULTILINE)
_BYTECODE = b"ML\xefR"
_PORTABLE = b"StableHLO_v"
_REMEDY = "pass StableHLO text or bytecode, HLO text or .hlo.pb as XLA dumps it, or its dump folder"


def load(path: str | Path) -> Module | ScheduledModule:
    """Read a module.

    What native parsers read they read in a child process first, as they may die of it.

    Args:
        path: StableHLO text, MLIR bytecode or portable artifact; a serialized `jax.export`
            artifact; HLO text of any pass stage, scheduled or not; a serialized HloProto
            (`*.hlo.pb`) or HloModuleProto; or a dump folder, of which `choose_module` takes one.

    Raises:
        InputError: if the file cannot be read, is none of these, or is damaged; naming the line
            where that is known.
    """
    if Path(path).is_dir():
        path = choose_module(Path(path)).chosen.path
    return parse(read_file(path, "name a readable file"), str(path))


def parse(data: bytes, where: str) -> Module | ScheduledModule:
    """Read a module from the bytes of a file; see `load`."""
    try:
        module = _parse(data, where)
        module.snapshot()
    except LancetError:
        raise
    except RecursionError:
        raise InputError(where, "nested too deeply to be a module", _REMEDY) from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise InputError(where, f"malformed: {reason} ({type(error).__name__})",
                         "write the file again; if XLA or JAX wrote it as it is, report it") \
            from error  # fmt: skip
    return module


def _parse(data: bytes, where: str) -> Module | ScheduledModule:
    """Tell the form by its first bytes."""
    if not data.strip():
        raise InputError(where, "the file is empty", _REMEDY)
    if data.startswith(_BYTECODE):
        return _from_mlir(data, where)
    if (inner := _exported(data)) is not None:
        return _from_mlir(inner, where)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _from_proto(data, where)
    if _IS_HLO.search(text):
        return _from_text(text, where)
    if any(word in text for word in ("module", "func.func", "stablehlo")):
        return _from_mlir(data, where)
    raise InputError(where, "neither StableHLO nor HLO", _REMEDY)


def _from_text(text: str, where: str) -> ScheduledModule:
    """Take HLO text: as it stands if it is in XLA's form, else as jaxlib prints it.

    jaxlib's parser refuses some of what XLA itself prints, so that its refusal of a text whose
    every line is understood counts for nothing.

    Raises:
        InputError: if a line is not understood and jaxlib's parser refuses the text as well.
    """
    module = ScheduledModule(text, path=where)
    complaint = None
    try:
        if module.parsed.is_as_printed:
            return module
    except InputError as error:
        complaint = error
    try:
        other = parsed_apart(text.encode(), "text", where).decode()
    except InputError as error:
        if complaint is None:
            return module
        raise InputError(complaint.where, f"{complaint.what} ({error.what})", complaint.remedy) \
            from None  # fmt: skip
    module = ScheduledModule(other, path=where)
    try:
        module.snapshot()
    except InputError as error:
        if complaint is not None and complaint.what == error.what:
            raise complaint from None
        raise InputError(where, f"as jaxlib prints it, {error.what}", error.remedy) from None
    return module


def _from_mlir(data: bytes, where: str) -> Module:
    parsed_apart(data, "mlir", where)
    return Module.parse(data, where)


def _exported(data: bytes) -> bytes | None:
    """Return the module inside a `jax.export` artifact: a byte vector of a flatbuffer.

    Flatbuffers write the length of a vector, as 4 bytes, right before it. So the module is there
    for anybody, without the classes that the artifact's trees are made of.
    """
    at = data.find(_BYTECODE)
    if at < 4 or _PORTABLE not in data[at : at + 64]:
        return None
    size = int.from_bytes(data[at - 4 : at], "little")
    return data[at : at + size] if 0 < size <= len(data) - at else None


def _from_proto(data: bytes, where: str) -> ScheduledModule:
    """Take a serialized HloModuleProto, bare or inside an HloProto."""
    try:
        top = [(number, value) for number, kind, value, _, _ in fields(data) if kind == LENGTH]
    except ValueError as error:
        raise InputError(where, f"neither text nor a protobuf: {error}", _REMEDY) from None
    inner = next((v for number, v in top if number == 1 and isinstance(v, bytes)), b"")
    is_wrapped = b"\x00" in inner[:4096] or len(inner) > len(data) // 2
    proto = inner if is_wrapped else data
    return ScheduledModule(parsed_apart(proto, "hlo", where).decode(), proto, where)
