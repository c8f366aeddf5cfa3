"""Just enough of protobuf's wire format to change one field of an HloModuleProto.

The bytes that XLA handed out stay as they are but for the field in question: nothing passes
through a parser that might drop a setting which it does not know.
"""

from collections.abc import Iterator

VARINT, LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}


def fields(data: bytes) -> Iterator[tuple[int, int, bytes | int, int, int]]:
    """Yield (number, wire type, value, start, end) of every field of a message.

    Raises:
        ValueError: if `data` ends inside a field or has a wire type that protobuf lacks.
    """
    at = 0
    while at < len(data):
        start = at
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: bytes | int
        if kind == VARINT:
            value, at = read_varint(data, at)
        elif kind == LENGTH:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
        elif kind in _FIXED:
            value, at = data[at : at + _FIXED[kind]], at + _FIXED[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        if at > len(data):
            raise ValueError(f"the message ends inside field {number} at byte {start}")
        yield number, kind, value, start, at


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return (value, position after it) of the varint at `at`."""
    shift = value = 0
    while True:
        if at >= len(data):
            raise ValueError(f"the message ends inside a number at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def varint(value: int) -> bytes:
    """Encode a non-negative number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(number << 3 | LENGTH) + varint(len(payload)) + payload


def packed(payload: bytes) -> list[int]:
    """Decode a packed list of numbers."""
    numbers, at = [], 0
    while at < len(payload):
        number, at = read_varint(payload, at)
        numbers.append(number)
    return numbers
