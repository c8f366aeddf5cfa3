"""Programs that treat every row of a buffer alone; the last rows are those that nobody sent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.fills import Fills
from tests.hlo_passes.proofs.values.claims import Claim
from tests.hlo_passes.proofs.values.numbers import Kind, draw_numbers, draw_small
from tests.hlo_passes.proofs.values.plain_ops import DIRECTIONS
from tests.hlo_passes.proofs.values.program import Executed, Value, Writer

ROWS = 4
"""Rows of a buffer; no other dim has so many."""
IDLE = (2, 3)
_FLOATS, _INTEGERS = ("f32", "bf16", "f16"), ("i32", "i8", "ui8")
_FUNCTIONS = (
    "sqrt", "tanh", "sine", "tan", "cbrt", "ceil", "floor", "exponential_minus_one", "log_plus_one", "abs",
    "negate", "sign", "cosine", "exponential", "logistic", "chlo.square", "chlo.erf", "chlo.asinh", "chlo.atan",
    "chlo.sinh", "chlo.asin", "chlo.atanh", "chlo.erf_inv",
)  # fmt: skip


@dataclass
class Rows:
    """Writes pieces that work row by row.

    Attributes:
        out: what they are written to.
        at: per value that holds rows, by its name, the dim that they are in.
        came: values that rows came in.
    """

    out: Writer
    at: dict[str, int] = field(default_factory=dict)
    came: list[Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = self.out.rng

    def piece(self, count: int) -> None:
        """Write about `count` ops that have nothing to do with what was written before."""
        self.out.pool = []
        self.element = self._one((*_FLOATS, *_INTEGERS))
        for _ in range(2):
            self.new(Kind((ROWS, self._one((2, 3))), self.element))
        end = len(self.out.made) + count
        while len(self.out.made) < end:
            STEPS[self.rng.integers(len(STEPS))](self)

    def new(self, kind: Kind) -> Value:
        """Take rows in."""
        value = self.out.input(kind, _sent if self.rng.random() < 0.7 else _sent_any)
        self.came.append(value)
        return self.rows(value, 0)

    def rows(self, value: Value, at: int) -> Value:
        """Note in which dim a value has its rows."""
        self.at[value.name] = at
        return value

    def pick(self, elements: Sequence[str] = (), least: int = 1) -> Value:
        """Return a value that holds rows, one of the last."""
        fits = [
            v
            for v in self.out.pool
            if v.name in self.at
            and len(v.shape) >= least
            and (not elements or v.kind.element in elements)
        ]
        if not fits:
            return self.new(Kind((ROWS, 2, 3)[:least], self._one(elements or (self.element,))))
        return fits[-1 - int(self.rng.integers(min(6, len(fits))))]

    def like(self, kind: Kind, at: int) -> Value:
        """Return rows of a type: some that are there, new ones, or what is the same for all."""
        fits = [v for v in self.out.pool if v.kind == kind and self.at.get(v.name) == at]
        if fits and self.rng.random() < 0.5:
            return self._one(fits)
        if at == 0 and self.rng.random() < 0.2:
            return self.new(kind)
        shape = (
            tuple(s for d, s in enumerate(kind.shape) if d != at) if self.rng.random() < 0.5 else ()
        )
        dims = [d for d in range(len(kind.shape)) if d != at] if shape else []
        whole = kind.shaped(*shape)
        if self.rng.random() < 0.3:
            one = self.out.input(whole, draw_small)
        else:
            number = self._one((0, 0, 1, 2, -1)) if self.rng.random() < 0.7 else None
            drawn = draw_numbers(self.rng, whole.shaped()) if number is None else number
            one = self.out.constant(drawn, whole)
        return self.rows(self.out.broadcast(one, kind.shape, dims), at)

    def _one(self, choices: Sequence):
        return choices[int(self.rng.integers(len(choices)))]


def _sent(rng: np.random.Generator, kind: Kind) -> np.ndarray:
    drawn = draw_small(rng, kind)
    drawn[list(IDLE)] = 0
    return drawn


def _sent_any(rng: np.random.Generator, kind: Kind) -> np.ndarray:
    drawn = draw_numbers(rng, kind)
    drawn[list(IDLE)] = 0
    return drawn


def _binary(rows: Rows) -> None:
    x = rows.pick()
    at = rows.at[x.name]
    y = rows.like(x.kind, at)
    names = (
        "add",
        "subtract",
        "multiply",
        "multiply",
        "maximum",
        "minimum",
        "divide",
        "divide",
        "remainder",
    )
    if x.kind.element in _INTEGERS:
        names = (*names, "and", "or", "xor")
    if x.kind.element == "i1":
        names = ("and", "or", "xor")
    rows.rows(
        rows.out.binary(rows._one(names), *((x, y) if rows.rng.random() < 0.5 else (y, x))), at
    )


def _function(rows: Rows) -> None:
    x = rows.pick(_FLOATS)
    name = rows._one(_FUNCTIONS)
    if name.startswith("chlo"):
        y = rows.out.one(f"{name} {x.name} : {x.kind} -> {x.kind}", x.kind)
    else:
        y = rows.out.unary(name, x)
    rows.rows(y, rows.at[x.name])


def _convert(rows: Rows) -> None:
    x = rows.pick()
    element = rows._one(("i1", rows.element, *_FLOATS, *_INTEGERS))
    rows.rows(rows.out.unary("convert", x, x.kind.of(element)), rows.at[x.name])


def _compare(rows: Rows) -> None:
    x = rows.pick((*_FLOATS, *_INTEGERS))
    y = rows.like(x.kind, rows.at[x.name])
    total = x.kind.element in _FLOATS and rows.rng.random() < 0.2
    rows.rows(rows.out.compare(rows._one(DIRECTIONS), x, y, total), rows.at[x.name])


def _select(rows: Rows) -> None:
    x = rows.pick()
    at = rows.at[x.name]
    mask, y = rows.like(x.kind.of("i1"), at), rows.like(x.kind, at)
    rows.rows(rows.out.select(mask, *((x, y) if rows.rng.random() < 0.5 else (y, x))), at)


def _clamp(rows: Rows) -> None:
    x = rows.pick((*_FLOATS, *_INTEGERS))
    low, high = (
        rows.out.constant(n, x.kind.shaped()) for n in rows._one(((-1, 1), (1, 2), (0, 6)))
    )
    rows.rows(
        rows.out.one(
            f"stablehlo.clamp {low.name}, {x.name}, {high.name} : ({low.kind}, {x.kind}, {high.kind}) "
            f"-> {x.kind}",
            x.kind,
        ),
        rows.at[x.name],
    )


def _move(rows: Rows) -> None:
    x, out = rows.pick(least=2), rows.out
    at, rank, way = rows.at[x.name], len(x.shape), rows.rng.integers(5)
    others = [d for d in range(rank) if d != at]
    if way == 0:
        order = list(map(int, rows.rng.permutation(rank)))
        rows.rows(out.transpose(x, order), order.index(at))
    elif way == 1 and rank < 3:
        shape = (*x.shape, 2)
        rows.rows(out.broadcast(x, shape, range(rank)), at)
    elif way == 2:
        dims = [d for d in others if rows.rng.random() < 0.7]
        rows.rows(out.one(f"stablehlo.reverse {x.name}, dims = {dims} : {x.kind}", x.kind), at)
    elif way == 3 and at == 0:
        rows.rows(out.unary("reshape", x, x.kind.shaped(ROWS, x.kind.size // ROWS)), 0)
    else:
        rows.rows(out.one(f"stablehlo.optimization_barrier {x.name} : {x.kind}", x.kind), at)


def _cut(rows: Rows) -> None:
    """Take a piece of every row, or put rows together side by side."""
    x, out = rows.pick(least=2), rows.out
    at = rows.at[x.name]
    dim = rows._one([d for d in range(len(x.shape)) if d != at])
    if rows.rng.random() < 0.5:
        y = rows.like(x.kind, at)
        kind = x.kind.shaped(*(2 * s if d == dim else s for d, s in enumerate(x.shape)))
        if kind.size <= 96 and ROWS not in kind.shape[:at] + kind.shape[at + 1 :]:
            text = f"stablehlo.concatenate {x.name}, {y.name}, dim = {dim} : ({x.kind}, {y.kind})"
            rows.rows(out.one(f"{text} -> {kind}", kind), at)
        return
    kind = x.kind.shaped(*(1 if d == dim else s for d, s in enumerate(x.shape)))
    if rows.rng.random() < 0.5:
        cut = ", ".join(f"0:{s}" for s in kind.shape)
        rows.rows(out.one(f"stablehlo.slice {x.name} [{cut}] : ({x.kind}) -> {kind}", kind), at)
        return
    start = out.input(Kind((), "i32"), draw_small)
    zero = out.constant(0, start.kind)
    starts = [start if d == dim else zero for d in range(len(x.shape))]
    text = f"stablehlo.dynamic_slice {x.name}, {', '.join(s.name for s in starts)}, sizes = {list(kind.shape)}"
    kinds = ", ".join([str(x.kind), *("tensor<i32>" for _ in starts)])
    rows.rows(out.one(f"{text} : ({kinds}) -> {kind}", kind), at)


def _reduce(rows: Rows) -> None:
    x = rows.pick(least=2)
    at = rows.at[x.name]
    dim = rows._one([d for d in range(len(x.shape)) if d != at])
    merges = (
        ("and", "or")
        if x.kind.element == "i1"
        else ("add", "add", "maximum", "minimum", "multiply")
    )
    start = rows.out.constant(rows._one((0, 0, 1, -1)), x.kind.shaped())
    rows.rows(rows.out.reduce(x, start, rows._one(merges), [dim]), at - (dim < at))


def _dot(rows: Rows) -> None:
    """Multiply rows with weights, or rows with rows one by one."""
    x = rows.pick((*_FLOATS, *_INTEGERS), least=2)
    at, dim = rows.at[x.name], len(x.shape) - 1
    if at == dim:
        return
    rest = [s for d, s in enumerate(x.shape) if d not in (at, dim)]
    if rows.rng.random() < 0.5:
        y = rows.out.input(x.kind.shaped(x.shape[dim], 2), draw_small)
        kind, numbers = x.kind.shaped(*x.shape[:dim], 2), f"contracting_dims = [{dim}] x [0]"
    else:
        y = rows.like(x.kind.shaped(ROWS, x.shape[dim]), 0)
        kind = x.kind.shaped(ROWS, *rest)
        numbers, at = f"batching_dims = [{at}] x [0], contracting_dims = [{dim}] x [1]", 0
    text = f"stablehlo.dot_general {x.name}, {y.name}, {numbers} : ({x.kind}, {y.kind})"
    rows.rows(rows.out.one(f"{text} -> {kind}", kind), at)


STEPS = (
    _binary, _binary, _binary, _binary, _function, _function, _convert, _compare, _select, _clamp, _move, _move,
    _cut, _reduce, _dot,
)  # fmt: skip


def write_rows(rng: np.random.Generator, pieces: int, count: int = 20) -> tuple[Executed, Rows]:
    """Write pieces of about `count` ops each; and return where rows are."""
    rows = Rows(Writer(rng))
    for _ in range(pieces):
        rows.piece(count)
    return rows.out.executed(), rows


def fills(program: Executed, rows: Rows) -> Iterator[Claim]:
    """Rows that nobody sent hold what is said to fill them."""
    at = {program.values[name]: dim for name, dim in rows.at.items()}
    domain = Fills(Constants())
    for value in rows.came:
        domain.say_zero(program.values[value.name])
    for op in program.body.ops[:-1]:
        for value in op.results:
            if value not in at:
                continue
            domain.follow(op, value, [v in at for v in op.operands])
            fill = domain.of(value)
            if not isinstance(fill, np.ndarray):
                continue
            for run in program.runs:
                idle = np.take(run[value], IDLE, axis=at[value]).astype(np.float64)
                # What is no number came of a product that were lost in the step as well.
                is_lost = np.isnan(idle) if fill == 0 else np.zeros(idle.shape, bool)
                if fill.dtype != run[value].dtype or not np.all(is_lost | (idle == float(fill))):
                    yield value, f"rows filled with {fill}"
