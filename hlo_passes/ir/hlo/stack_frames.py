"""Which source lines ops come from, kept while XLA takes a re-ordered module back.

XLA keeps the stack frames of a module in one table, and an op names a row of it. A module that is
handed out as a proto has a smaller table, of the rows in use, under other numbers. Of the proto
that comes back XLA takes the computations alone (`HloModule::MoveComputationsFrom`): their ops then
name rows of the larger table by the numbers of the smaller one, and an all-to-all is said to come
from the optimizer.

The larger table is never handed out, but it can be asked: give ops the numbers in question, and
look at which frames they have when the module is handed out once more. Numbers that the table lacks
make XLA complain on stderr, so at first only such are asked for as it must have: where K numbers
were tried and m frames are not yet among them, it has K + m rows or more.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence

from hlo_passes.ir.hlo.wire import LENGTH, VARINT, fields, message, varint

ROUNDS = 12
"""How often the larger table is asked; steps of the suite take 2 to 5. The second half asks for as
much as it can. Ops whose frames are not found by then are left without one."""

_COMPUTATIONS, _INSTRUCTIONS, _METADATA, _FRAME = 3, 2, 7, 15
_TABLE = 17
_FILES, _FUNCTIONS, _PLACES, _FRAMES = 1, 2, 3, 4
_WIDTH = 5
"""Bytes of an op's number, so that another fits in its place: varints may be longer than need be,
and those of all numbers that XLA has are no longer than this."""

type Frame = tuple[str, str, tuple[int, ...], "Frame | None"]
"""File, function, lines and columns there, and the frame that called it."""

_NO_FRAME: Frame = ("?", "?", (0, 0, 0, 0), None)
"""The first row of the table that goes with questions."""


def keep_frames(proto: bytes) -> Generator[bytes, bytes, None]:
    """Give the ops of a module, once XLA takes it back, the frames that they have in it.

    Args:
        proto: the module that would be handed to XLA.

    Yields:
        What to hand to XLA instead. What XLA then hands out is to be sent in; after the last one,
        nothing is left to be done.
    """
    opened, places = _opened(
        _without(proto, _TABLE), (_COMPUTATIONS, _INSTRUCTIONS, _METADATA, _FRAME)
    )
    ops = frames_of_ops(proto)
    missing = set(_with_callers(ops.values()))
    known: dict[Frame | None, int] = {None: 0}
    tried = 0
    for i in range(ROUNDS):
        if all(frame in known for frame in ops.values()):
            break
        count = min(len(missing), len(ops)) if i < ROUNDS // 2 else len(ops)
        asked = range(tried + 1, tried + 1 + count)
        handed_out = yield _numbered(opened, places, [*asked, *[0] * (len(ops) - len(asked))])
        answers = frames_of_ops(handed_out)
        if _NO_FRAME in answers.values():  # an XLA that takes the table as well
            yield proto
            return
        for name, number in zip(ops, asked, strict=False):
            known.setdefault(answers.get(name), number)
        missing.difference_update(known)
        tried += len(asked)
    yield _numbered(opened, places, [known.get(frame, 0) for frame in ops.values()])


def frames_of_ops(proto: bytes) -> dict[str, Frame | None]:
    """Return the frame of every op that names one, by the op's name."""
    table = _table_of(proto)
    found: dict[str, Frame | None] = {}
    for computation in _messages(proto, _COMPUTATIONS):
        for op in _messages(computation, _INSTRUCTIONS):
            for metadata in _messages(op, _METADATA):
                for number, _, value, _, _ in fields(metadata):
                    if number == _FRAME and isinstance(value, int):
                        name = next(_messages(op, 1)).decode()
                        found[name] = table[value] if value < len(table) else None
    return found


def _table_of(proto: bytes) -> list[Frame | None]:
    """Return the frames of a module by number; 0 is no frame."""
    frames: list[Frame | None] = [None]
    for table in _messages(proto, _TABLE):
        files = [data.decode() for data in _messages(table, _FILES)]
        functions = [data.decode() for data in _messages(table, _FUNCTIONS)]
        places = [_numbers(data) for data in _messages(table, _PLACES)]
        for data in _messages(table, _FRAMES):
            frame = _numbers(data)
            place = places[frame[1] - 1]
            lines = tuple(place.get(number, 0) for number in range(3, 7))
            name, function = files[place[1] - 1], functions[place[2] - 1]
            frames.append((name, function, lines, frames[frame.get(2, 0)]))
    return frames


def _with_callers(frames: Iterable[Frame | None]) -> Iterator[Frame]:
    """Yield frames and all that called them."""
    for frame in frames:
        while frame is not None:
            yield frame
            frame = frame[3]


def _opened(data: bytes, path: Sequence[int]) -> tuple[bytes, list[int]]:
    """Make room for other numbers at the end of a path of fields; return where they stand."""
    out, places, at = bytearray(), [], 0
    for number, kind, value, start, end in fields(data):
        if number != path[0]:
            continue
        out += data[at:start]
        at = end
        if isinstance(value, int):
            out += varint(number << 3 | VARINT)
            places.append(len(out))
            out += _wide(value)
        elif kind == LENGTH:
            inner, inside = _opened(value, path[1:])
            out += varint(number << 3 | LENGTH) + varint(len(inner))
            places += [len(out) + place for place in inside]
            out += inner
    return bytes(out + data[at:]), places


def _numbered(opened: bytes, places: Sequence[int], numbers: Sequence[int]) -> bytes:
    """Write numbers where they stand, and a table in which XLA leaves them as they are.

    XLA renumbers the rows in use, callers first; where each row calls the next, all keep theirs.
    """
    out = bytearray(opened)
    for place, number in zip(places, numbers, strict=True):
        out[place : place + _WIDTH] = _wide(number)
    table = message(_FILES, _NO_FRAME[0].encode()) + message(_FUNCTIONS, _NO_FRAME[1].encode())
    table += message(_PLACES, bytes([1 << 3, 1, 2 << 3, 1]))
    for caller in range(max(numbers, default=0)):
        table += message(_FRAMES, bytes([1 << 3, 1, 2 << 3]) + varint(caller))
    return bytes(out) + message(_TABLE, table)


def _without(proto: bytes, field: int) -> bytes:
    """Leave out a field."""
    return b"".join(
        proto[start:end] for number, _, _, start, end in fields(proto) if number != field
    )


def _wide(number: int) -> bytes:
    """Encode a number in five bytes."""
    groups = [number >> shift & 0x7F for shift in range(0, 7 * _WIDTH, 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the values of a field of bytes."""
    for number, _, value, _, _ in fields(data):
        if number == wanted and isinstance(value, bytes):
            yield value


def _numbers(data: bytes) -> dict[int, int]:
    """Return the fields of a message of numbers."""
    return {number: value for number, _, value, _, _ in fields(data) if isinstance(value, int)}
