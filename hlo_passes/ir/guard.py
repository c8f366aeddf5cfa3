"""Parses what native code may die of, in a process that may die.

MLIR's readers and XLA's are C++: a damaged or unusual file may end the process, or fill stderr on
the way to an error. A child process takes that, and says in one line what it met. It lives on for
the next file; one that died is followed by another.
"""

import atexit
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Timer
from typing import IO, Literal

from hlo_passes.errors import InputError

type Form = Literal["mlir", "hlo", "text"]

_SECONDS = 60
_TRY = "the file is damaged or of another version: write it again with the JAX that reads it"

_CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
from hlo_passes.ir.guard import serve
serve(open(0, "rb"), answers)
"""


def parsed_apart(data: bytes, form: Form, where: str) -> bytes:
    """Parse bytes in a process of its own.

    Args:
        data: MLIR of any form (`mlir`), an HloModuleProto (`hlo`) or HLO text (`text`).
        form: which of these.
        where: where they came from, for messages.

    Returns:
        HLO as jaxlib prints it; nothing for MLIR, which may now be parsed here.

    Raises:
        InputError: if the bytes are none, or the parser died of them.
    """
    is_good, said = _parser().ask(data, form, where)
    if is_good:
        return said
    error = json.loads(said)
    raise InputError(error["where"], error["what"], error["remedy"])


@dataclass
class _Parser:
    """A child process and the pipes to it."""

    owner: int = field(default_factory=os.getpid)
    lock: Lock = field(default_factory=Lock)
    child: subprocess.Popen[bytes] | None = None

    def ask(self, data: bytes, form: Form, where: str) -> tuple[bool, bytes]:
        """Return whether the child could parse the bytes, and what it said.

        Raises:
            InputError: if it died, or took too long.
        """
        with self.lock:
            child = self._living()
            assert child.stdin is not None
            assert child.stdout is not None
            late = Event()
            timer = Timer(_SECONDS, lambda: (late.set(), child.kill()))
            timer.start()
            try:
                send(child.stdin, form.encode(), where.encode("utf-8", "replace"), data)
                verdict, said = receive(child.stdout, 2)
                return verdict == b"good", said
            except (OSError, EOFError):
                self.close()
            finally:
                timer.cancel()
                if late.is_set():
                    self.close()
        what = f"still unread after {_SECONDS} s" if late.is_set() else _DIED
        raise InputError(where, what, _TRY)

    def _living(self) -> subprocess.Popen[bytes]:
        """Return the child, a new one where there is none."""
        if self.child is None or self.child.poll() is not None:
            self.close()
            root = str(Path(__file__).parents[2])
            self.child = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, root],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            atexit.register(self.close)
        return self.child

    def close(self) -> None:
        """End the child, if this process has one."""
        atexit.unregister(self.close)
        child, self.child = self.child, None
        if child is not None and self.owner == os.getpid():
            child.kill()
            child.communicate()


_DIED = "the parser of JAX's own library died of it"
_THE_ONE: list[_Parser] = []


def _parser() -> _Parser:
    """Return this process's own; a fork has the pipes of another's."""
    if not _THE_ONE or _THE_ONE[0].owner != os.getpid():
        _THE_ONE[:] = [_Parser()]
    return _THE_ONE[0]


def send(pipe: IO[bytes], *parts: bytes) -> None:
    """Write parts, each behind its length."""
    for part in parts:
        pipe.write(len(part).to_bytes(8, "little"))
        pipe.write(part)
    pipe.flush()


def receive(pipe: IO[bytes], count: int) -> list[bytes]:
    """Read `count` parts.

    Raises:
        EOFError: if the other side has ended.
    """
    parts = []
    for _ in range(count):
        size = pipe.read(8)
        part = pipe.read(int.from_bytes(size, "little"))
        if len(size) < 8 or len(part) < int.from_bytes(size, "little"):
            raise EOFError
        parts.append(part)
    return parts


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer, as the child, until the parent ends."""
    while True:
        try:
            form, where, data = receive(questions, 3)
        except EOFError:
            return
        try:
            said = _parse(form.decode(), data, where.decode())
        except InputError as error:
            what = {"where": error.where, "what": error.what, "remedy": error.remedy}
            send(answers, b"bad", json.dumps(what).encode())
        except Exception as error:
            what = {"where": where.decode(), "what": f"malformed: {error}", "remedy": _TRY}
            send(answers, b"bad", json.dumps(what).encode())
        else:
            send(answers, b"good", said)


def _parse(form: str, data: bytes, where: str) -> bytes:
    """Parse in the child; it imports what the form at hand needs."""
    if form == "mlir":
        from hlo_passes.ir.stablehlo.module import Module

        Module.parse(data, where).snapshot()
        return b""
    from hlo_passes.ir.hlo.scheduled import ScheduledModule, printed

    if form == "text":
        return printed(data.decode(), where).encode()
    return ScheduledModule.from_proto(data, where).text.encode()
