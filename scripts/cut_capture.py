"""Cuts a profiler capture of a GPU down to what `lancet-jax inspect` reads, to keep it as an input.

    python -m scripts.cut_capture capture.xplane.pb captures/step.xplane.pb.gz

What stays is as the profiler wrote it: the devices' events, the scopes that they are in, and the
module that took most time. The host's events go, and other modules, what an HloProto holds beside
its module, and the source files that the module names: they are paths on someone's machine.
"""

import argparse
import gzip
from collections.abc import Callable
from pathlib import Path

from hlo_passes.ir.hlo.wire import LENGTH, fields, varint
from lancet_jax.profile.capture import read_capture

_PLANE, _NAME, _METADATA, _VALUE, _STATS, _BYTES, _MODULE = 1, 2, 4, 2, 5, 6, 1
_STACK_FRAMES = 17
"""Of an HloModuleProto: files, functions and lines of its ops."""


def main() -> None:
    """Cut one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    name = read_capture(args.capture).notes[0].split(": ")[1].split(" on ")[0]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cut_down = cut(args.capture.read_bytes(), name.encode())
    args.output.write_bytes(gzip.compress(cut_down, mtime=0))
    print(f"{name}: {args.output.stat().st_size:,} bytes")


def cut(data: bytes, module: bytes) -> bytes:
    """Return a capture that holds one module, named as in `jit_step(18)`, and all GPUs' events."""

    def plane(body: bytes) -> bytes | None:
        name = _text(body, _NAME)
        if name == b"/host:metadata":
            return _edited(body, _METADATA, lambda entry: _of_module(entry, module))
        kept = name.startswith(b"/device:GPU") or name == b"/host:__ScopeRangeCallStack__"
        return body if kept else None

    return _edited(data, _PLANE, plane)


def _of_module(entry: bytes, module: bytes) -> bytes | None:
    """Return a module's entry without what its HloProto holds besides; None for another module."""
    if _text(_text(entry, _VALUE), _NAME) != module:
        return None

    def bare(hlo: bytes) -> bytes:
        return _edited(hlo, _STACK_FRAMES, lambda frames: None)

    def stat(body: bytes) -> bytes:
        return _edited(body, _BYTES, lambda proto: _edited(_only(proto, _MODULE), _MODULE, bare))

    return _edited(entry, _VALUE, lambda metadata: _edited(metadata, _STATS, stat))


def _text(body: bytes, wanted: int) -> bytes:
    """Return the first field of a number whose value is bytes; nothing if there is none."""
    return next((v for n, _, v, *_ in fields(body) if n == wanted and isinstance(v, bytes)), b"")


def _only(body: bytes, wanted: int) -> bytes:
    return b"".join(body[start:end] for n, _, _, start, end in fields(body) if n == wanted)


def _edited(body: bytes, wanted: int, edit: Callable[[bytes], bytes | None]) -> bytes:
    """Return a message with the fields of one number edited, or left out where `edit` says None."""
    parts: list[bytes] = []
    for number, _, value, start, end in fields(body):
        if number != wanted or not isinstance(value, bytes):
            parts.append(body[start:end])
        elif (changed := edit(value)) is not None:
            parts.append(varint(wanted << 3 | LENGTH) + varint(len(changed)) + changed)
    return b"".join(parts)


if __name__ == "__main__":
    main()
