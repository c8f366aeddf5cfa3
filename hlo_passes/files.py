"""Files that are whole or not there."""

from pathlib import Path

from hlo_passes.errors import InputError


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
        path: what to read.
        remedy: what to try if it cannot be read.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error), remedy) from None
