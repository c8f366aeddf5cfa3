"""Parses bytes that native code may die of, in a process that may die.

MLIR's bytecode reader and XLA's protos are C++: a damaged file may end the process, or fill stderr
on the way to an error. A child process takes that, and says in one line what it met.
"""

import subprocess
import sys
from pathlib import Path
from typing import Literal

from hlo_passes.errors import InputError

_SECONDS = 60
_TRY = "the file is damaged or of another version: write it again with the JAX that reads it"

_CHILD = """
import sys
from hlo_passes.errors import LancetError
from hlo_passes.ir.module import Module
from hlo_passes.ir.scheduled import ScheduledModule
data = open(0, "rb").read()
try:
    if sys.argv[1] == "mlir":
        Module.parse(data, sys.argv[2]).snapshot()
        said = ""
    else:
        said = ScheduledModule.from_proto(data, sys.argv[2]).text
except LancetError as error:
    sys.stdout.buffer.write(error.what.encode("utf-8", "replace"))
    sys.exit(2)
sys.stdout.buffer.write(said.encode())
"""


def parsed_apart(data: bytes, form: Literal["mlir", "hlo"], where: str) -> str:
    """Parse bytes in a process of its own.

    Args:
        data: MLIR bytecode or portable artifact (`mlir`), or an HloModuleProto (`hlo`).
        form: which of these.
        where: where they came from, for messages.

    Returns:
        The HLO text of a proto; nothing for MLIR, which may now be parsed here.

    Raises:
        InputError: if the bytes are none, or the parser died of them.
    """
    root = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {root!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code + "\n" + _CHILD, form, where],
            input=data, capture_output=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(where, f"still unread after {_SECONDS} s", _TRY) from None
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0:
        return said
    if done.returncode == 2 and said:
        raise InputError(where, said, _TRY)
    raise InputError(where, "the parser of JAX's own library died of it", _TRY)
