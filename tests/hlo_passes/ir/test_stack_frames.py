"""Ops keep their frames, whatever table XLA has and however it takes a module back."""

import random

import pytest
from jaxlib import _hlo

from hlo_passes.ir.hlo.stack_frames import frames_of_ops, keep_frames
from hlo_passes.ir.hlo.wire import fields, message, varint

TABLE = 17
_TEXT = """HloModule m, is_scheduled=true

FileNames
1 "model.py"

FunctionNames
1 "f"

FileLocations
{}

StackFrames
{}

ENTRY %main (op0: f32[4]) -> f32[4] {{
{}
}}
"""


def numbers(*values):
    return b"".join(varint(i << 3) + varint(value) for i, value in enumerate(values, 1))


def table(callers):
    """A frame a line; each is called by that of the number given, or by nobody if it is 0."""
    out = message(1, b"model.py") + message(2, b"f")
    out += b"".join(message(3, numbers(1, 1, line)) for line in range(1, len(callers) + 1))
    return out + b"".join(message(4, numbers(i, c)) for i, c in enumerate(callers, 1))


def module(frames, callers):
    """A chain of ops with the given numbers of frames, 0 for none, as XLA hands it out."""
    places, rows, lines = [], [], ["  %op0 = f32[4]{0} parameter(0)"]
    for i, caller in enumerate(callers, 1):
        at = f"line={i} end_line=0 column=0 end_column=0"
        places.append(f"{i} {{file_name_id=1 function_name_id=1 {at}}}")
        rows.append(f"{i} {{file_location_id={i} parent_frame_id={caller + 1}}}")
    for i, frame in enumerate(frames, 1):
        root = "ROOT " if i == len(frames) else ""
        place = f', metadata={{op_name="x" stack_frame_id={frame}}}' if frame else ""
        lines.append(f"  {root}%op{i} = f32[4]{{0}} negate(%op{i - 1}){place}")
    text = _TEXT.format(*map("\n".join, (places, rows, lines)))
    return _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()


def with_table(proto, rows):
    kept = b"".join(proto[start:end] for n, _, _, start, end in fields(proto) if n != TABLE)
    return kept + message(TABLE, rows)


def handed_out(proto):
    """What XLA makes of a module when it reads it and writes it: rows in use, numbered anew."""
    return _hlo.HloModule.from_serialized_hlo_module_proto(proto).as_serialized_hlo_module_proto()


def drawn(seed):
    """A table, and the frames of some ops among them."""
    draw = random.Random(seed)
    size = draw.choice([1, 3, 20, 150])
    callers = [draw.choice([0, draw.randrange(i), i - 1]) if i > 1 else 0
               for i in range(1, size + 1)]  # fmt: skip
    used = draw.sample(range(1, size + 1), max(1, round(size * draw.choice([0.2, 0.6, 1.0]))))
    frames = [draw.choice([0, *used]) for _ in range(draw.choice([size, 2 * size, 300]) + 1)]
    # Frames of ops that were folded lie between, and those of inlined calls at the end.
    return callers, [min(f + size // 2, size) if seed % 3 == 0 and f else f for f in frames]


@pytest.mark.parametrize("seed", range(24))
def test_ops_keep_their_frames(seed):
    callers, frames = drawn(seed)
    rows, stock = table(callers), module(frames, callers)
    wanted = frames_of_ops(stock)
    assert len(wanted) == sum(frame > 0 for frame in frames)
    keeper = keep_frames(stock)
    answer = next(keeper)
    while answer is not None:
        taken = with_table(handed_out(answer), rows)
        try:
            answer = keeper.send(handed_out(taken))
        except StopIteration:
            answer = None
    assert {name: frame for name, frame in frames_of_ops(taken).items() if frame} == wanted


def test_what_xla_does_of_its_own_accord():
    """Why frames have to be kept."""
    stock = module([3, 3], [0, 1, 1])
    taken = with_table(handed_out(stock), table([0, 1, 1]))
    assert frames_of_ops(taken) != frames_of_ops(stock)


def test_an_xla_that_takes_the_table_as_well_gets_it():
    stock = module([3, 2], [0, 1, 1])
    keeper = keep_frames(stock)
    assert keeper.send(handed_out(next(keeper))) == stock
    assert next(keeper, None) is None


def test_a_module_without_frames_is_handed_on():
    stock = module([0, 0], [0])
    keeper = keep_frames(stock)
    assert _hlo.HloModule.from_serialized_hlo_module_proto(next(keeper)).to_string()
    assert next(keeper, None) is None
