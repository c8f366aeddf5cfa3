"""Programs that add up counts of rows: what their tables are said to hold is held against a run."""

from collections.abc import Iterator

import numpy as np

from hlo_passes.layers.dropless.tables import Tables
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.value_numbers import number_values
from tests.hlo_passes.proofs.values.claims import Claim, all_values
from tests.hlo_passes.proofs.values.numbers import Kind, draw_small
from tests.hlo_passes.proofs.values.program import Executed, Value, Writer
from tests.hlo_passes.proofs.values.sums import prefix, scan

_TYPES = ("i32", "i64", "ui32", "ui32")
_WORK = (
    "add",
    "add",
    "subtract",
    "subtract",
    "multiply",
    "minimum",
    "maximum",
    "divide",
    "remainder",
)


def write_tables(rng: np.random.Generator, pieces: int, count: int = 15) -> tuple[Executed, list]:
    """Write pieces that add up counts; and return the counts."""
    out, given = Writer(rng), []
    for _ in range(pieces):
        out.pool = []
        counts = Kind((4,), _TYPES[rng.integers(len(_TYPES))])
        given.append(out.input(counts, lambda rng, kind: draw_small(rng, kind, 0, 9)))
        less = out.binary("subtract", given[-1], out.constant(int(rng.integers(5)), counts))
        out.unary("convert", less, counts.of(_TYPES[rng.integers(len(_TYPES))]))
        end = len(out.made) + count
        while len(out.made) < end:
            _write(out, out.pool[-1 - int(rng.integers(min(5, len(out.pool))))])
    return out.executed(), given


def _write(out: Writer, x: Value) -> None:
    rng, way, rank = out.rng, out.rng.integers(12), len(x.shape)
    is_flag = x.kind.element == "i1"
    if way < 4 and not is_flag:
        others = [v for v in out.pool if v.kind == x.kind]
        y = others[int(rng.integers(len(others)))]
        if rng.random() < 0.5:
            y = out.constant(draw_small(rng, x.kind, -3, 5), x.kind)
        out.binary(_WORK[rng.integers(len(_WORK))], *((x, y) if rng.random() < 0.5 else (y, x)))
    elif way == 4:
        out.unary("convert", x, x.kind.of(_TYPES[rng.integers(len(_TYPES))]))
    elif way == 5 and rank and not is_flag:
        zero = out.constant(0 if rng.random() < 0.9 else 1, x.kind.shaped())
        out.one(prefix(x, zero, int(rng.integers(rank))), x.kind)
    elif way == 6 and rank and not is_flag:
        scan(out, x, int(rng.integers(rank)), start=int(rng.random() < 0.1))
    elif way == 7 and rank < 2:
        out.broadcast(x, (*x.shape, 4), range(rank))
    elif way == 7 and not is_flag:
        zero = out.constant(0, x.kind.shaped())
        out.reduce(x, zero, "add", [int(rng.integers(rank))])
    elif way == 8 and rank:
        start = out.constant(int(rng.integers(-1, 5)), Kind((), "i32"))
        kind = x.kind.shaped(*([2] * rank))
        if min(x.shape) >= 2:
            starts = ", ".join([start.name] * rank)
            kinds = ", ".join(["tensor<i32>"] * rank)
            text = f"stablehlo.dynamic_slice {x.name}, {starts}, sizes = {list(kind.shape)}"
            out.one(f"{text} : ({x.kind}, {kinds}) -> {kind}", kind)
    elif way == 9 and rank:
        out.one(f"stablehlo.reverse {x.name}, dims = [0] : {x.kind}", x.kind)
    elif way == 10 and not is_flag:
        y = out.constant(draw_small(rng, x.kind), x.kind)
        mask = out.compare("LT", y, out.constant(1, x.kind))
        out.select(mask, x, y)
    elif rank == 2:
        out.transpose(x, [1, 0])


class _Counted(Tables):
    """Tables of the counts of one run, rather than of drawn ones."""

    held: dict[int, np.ndarray]

    def counts(self, number: int) -> np.ndarray:
        return self.held[number][None].astype(np.int64)


def tables(program: Executed, given: list[Value]) -> Iterator[Claim]:
    """Sums of counts are what comes out."""
    numbers = number_values(program.body)
    values = {numbers[program.values[v.name]]: program.values[v.name] for v in given}
    for run in program.runs:
        _Counted.held = {number: run[value] for number, value in values.items()}
        domain = _Counted(program.body, numbers, {}, 1, dict.fromkeys(values, 4))
        for value in all_values(program):
            try:
                found = domain.of(value)
            except NotProved:
                continue
            # Sums wrap around as the type does.
            if not np.array_equal(found.on(0).astype(run[value].dtype), run[value]):
                yield value, f"table {found.on(0).tolist()}"
