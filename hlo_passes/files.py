"""Files that are whole or not there."""

import stat
from pathlib import Path

from hlo_passes.errors import InputError

_MOST_BYTES = 1 << 32
"""No module is larger: XLA's protos end at 2 GiB, its text at little more."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it.

    Raises:
        InputError: if it cannot be written there.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(str(path), error.strerror or str(error), "choose another path") from None


def read_file(path: str | Path, remedy: str) -> bytes:
    """Return what a file holds.

    Args:
        path: what to read: a file, or a pipe that the shell made (`/dev/stdin`, `<(command)`).
        remedy: what to try if it cannot be read.

    Raises:
        InputError: if it cannot be read, or would never end.
    """
    try:
        known = Path(path).stat()
        is_pipe = stat.S_ISFIFO(known.st_mode) and str(path).startswith(("/dev/", "/proc/"))
        if not is_pipe and not stat.S_ISREG(known.st_mode) and not stat.S_ISDIR(known.st_mode):
            raise InputError(str(path), "neither a file nor a pipe of the shell's", remedy)
        if known.st_size > _MOST_BYTES:
            raise InputError(str(path), f"{known.st_size:,} bytes are no module", remedy)
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(str(path), what or str(error), remedy) from None
