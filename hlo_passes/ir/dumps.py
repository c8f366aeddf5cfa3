"""Reads whatever module file people have: StableHLO or HLO, text or bytes."""

from pathlib import Path

from hlo_passes.errors import InputError
from hlo_passes.files import read_file
from hlo_passes.ir.module import Module
from hlo_passes.ir.scheduled import ScheduledModule
from hlo_passes.ir.wire import LENGTH, fields

_BYTECODE = b"ML\xefR"
_REMEDY = "pass StableHLO text or bytecode, or HLO text or .hlo.pb as XLA dumps it"


def load(path: str | Path) -> Module | ScheduledModule:
    """Read a module.

    Args:
        path: StableHLO text, MLIR bytecode or portable artifact; HLO text of any pass stage,
            scheduled or not; or a serialized HloProto (`*.hlo.pb`).

    Raises:
        InputError: if the file cannot be read, is none of these, or is damaged; naming the line
            where that is known.
    """
    where = str(path)
    data = read_file(path, "name a readable file")
    if not data.strip():
        raise InputError(where, "the file is empty", _REMEDY)
    if data.startswith(_BYTECODE):
        return Module.parse(data, where)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _from_proto(data, where)
    if text.lstrip().startswith("HloModule") or "\nHloModule " in text[:10_000]:
        module = ScheduledModule(text, path=where)
        module.snapshot()
        return module
    if any(word in text for word in ("module", "func.func", "stablehlo")):
        return Module.parse(text, where)
    raise InputError(where, "neither StableHLO nor HLO", _REMEDY)


def _from_proto(data: bytes, where: str) -> ScheduledModule:
    """Take a serialized HloModuleProto, bare or inside an HloProto."""
    try:
        top = [(number, value) for number, kind, value, _, _ in fields(data) if kind == LENGTH]
    except ValueError as error:
        raise InputError(where, f"neither text nor a protobuf: {error}", _REMEDY) from None
    inner = next((v for number, v in top if number == 1 and isinstance(v, bytes)), b"")
    is_wrapped = b"\x00" in inner[:4096] or len(inner) > len(data) // 2
    module = ScheduledModule.from_proto(inner if is_wrapped else data, where)
    module.snapshot()
    return module
