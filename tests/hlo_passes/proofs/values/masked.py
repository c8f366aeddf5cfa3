"""Programs of one-hot masks, their weights, sums and products, as layers dispatch with them."""

from collections.abc import Sequence

import numpy as np

from tests.hlo_passes.proofs.values.numbers import Kind, draw_numbers, draw_small
from tests.hlo_passes.proofs.values.program import Value, Writer

_KEEPERS = (
    "abs", "negate", "sign", "sqrt", "tanh", "sine", "tan", "cbrt", "ceil", "floor", "exponential_minus_one",
    "log_plus_one", "round_nearest_even", "chlo.square", "chlo.erf", "chlo.asinh", "chlo.atan", "chlo.sinh",
)  # fmt: skip
_ELEMENTS = ("f32", "f32", "bf16", "i32", "i8", "ui8", "f16")
_WHOLE = ("abs", "negate", "sign")


class Masks:
    """Writes pieces of masks.

    Attributes:
        out: what they are written to.
        sizes: tokens, experts and slots of the piece that is being written.
    """

    def __init__(self, out: Writer) -> None:
        self.out, self.rng = out, out.rng
        self.sizes = (3, 2, 2)

    def begin(self, elements: Sequence[str] = _ELEMENTS) -> None:
        """Start a new piece: with indices, hots and weights of its own."""
        self.out.pool = []
        self.sizes = self._one(((2, 2, 2), (2, 2, 2), (3, 2, 2), (2, 3, 1), (1, 2, 3)))
        self.element = self._one(elements)
        for _ in range(2):
            hot = self.hot()
            self.out.unary("convert", hot, hot.kind.of(self.element))
        self._dropped(hot)

    def _dropped(self, kept: Value) -> None:
        """Write an index that is none where a mask is zero, in some type."""
        index = self.out.input(kept.kind.of("i32"), draw_small)
        index = self.out.select(kept, index, self.out.constant(-1, index.kind))
        self.out.unary("convert", index, index.kind.of(self._one(("ui8", "i8", "f32"))))

    def piece(self, count: int) -> None:
        """Write about `count` ops that have nothing to do with what was written before."""
        self.begin()
        end = len(self.out.made) + count
        while len(self.out.made) < end:
            STEPS[self.rng.integers(len(STEPS))](self)

    # --- what masks are made of

    def index(self) -> Value:
        """Return an index per token, of which some are none; now and then dropped by another."""
        out, rng = self.out, self.rng
        tokens = self.sizes[0]
        shape = self._one(((tokens,), (tokens,), (tokens, 2), (2, tokens)))
        kind = Kind(shape, self._one(("i32", "i32", "i8", "ui8", "f32", "i64")))
        x = out.input(kind, draw_numbers if rng.random() < 0.1 else draw_small)
        way = rng.integers(5)
        if way == 0:
            x = out.binary(self._one(("subtract", "add")), x, out.constant(self._one((1, 2)), kind))
        elif way == 1:
            x = out.select(
                out.input(kind.of("i1")), x, out.constant(self._one((-1, -2, 7, 0)), kind)
            )
        elif way == 2:
            limit = out.constant(1, kind)
            mask = out.compare("LT", out.input(kind, draw_small), limit)
            x = out.select(mask, x, out.constant(-1, kind))
        if rng.random() < 0.3:
            x = out.unary("convert", x, kind.of(self._one(("i8", "ui8", "ui8", "i32", "f32"))))
        return x

    def hot(self) -> Value:
        """Compare an index with the places along a dim that it does not have."""
        out, rng = self.out, self.rng
        seen = [
            v
            for v in out.pool
            if v.kind.element in ("i32", "i8", "f32", "ui8") and 0 < len(v.shape) < 3
        ]
        x = self._one(seen) if seen and rng.random() < 0.4 else self.index()
        rank = len(x.shape) + 1
        dim = rank - 1 if rng.random() < 0.7 else int(rng.integers(rank))
        dims = [d for d in range(rank) if d != dim]
        if rng.random() < 0.2:
            dims.reverse()
        shape = [self._one(self.sizes[1:])] * rank
        for d, size in zip(dims, x.shape, strict=True):
            shape[d] = size
        lined = out.broadcast(x, tuple(shape), dims)
        along = dim if rng.random() < 0.95 else int(rng.integers(rank))
        sides = [lined, out.iota(lined.kind, along)]
        if rng.random() < 0.4:
            sides.reverse()
        return out.compare("EQ" if rng.random() < 0.95 else "LE", *sides)

    def mask(self, kind: Kind) -> Value:
        """Return a value of a type: one that is there, one that another is spread to, or weights."""
        fits = [v for v in self.out.pool if v.kind == kind]
        if fits and self.rng.random() < 0.7:
            return self._one(fits)
        small = [
            v
            for v in self.out.pool
            if v.kind.element == kind.element and len(v.shape) < len(kind.shape)
        ]
        for v in small[::-1][:6]:
            dims = placed(v.shape, kind.shape, self.rng)
            if dims is not None and self.rng.random() < 0.7:
                return self.out.broadcast(v, kind.shape, dims)
        if self.rng.random() < 0.3:
            return self.out.constant(self._one((0, 0, 1, 2)), kind)
        return self.out.input(kind, draw_small)

    def any(self, elements: Sequence[str] = (), least: int = 0, most: int = 3) -> Value:
        """Return a value that is there, one of the last if possible."""
        fits = [
            v
            for v in self.out.pool
            if least <= len(v.shape) <= most
            and (v.kind.element in elements if elements else v.shape)
        ]
        if not fits:
            return self.out.input(
                Kind((self.sizes[0],) * max(1, least), (*elements, self.element)[0]), draw_small
            )
        return fits[-1 - int(self.rng.integers(min(8, len(fits))))]

    def _one(self, choices: Sequence):
        return choices[int(self.rng.integers(len(choices)))]


def placed(
    shape: tuple[int, ...], into: tuple[int, ...], rng: np.random.Generator
) -> list[int] | None:
    """Return dims of a larger shape that a smaller one fits into, in any order."""
    dims: list[int] = []
    for size in shape:
        fits = [d for d, s in enumerate(into) if s == size and d not in dims]
        if not fits:
            return None
        dims.append(fits[int(rng.integers(len(fits)))])
    return dims


def _hot(masks: Masks) -> None:
    hot = masks.hot()
    masks.out.unary("convert", hot, hot.kind.of(masks.element))


def _binary(masks: Masks) -> None:
    x = masks.any()
    y = masks.mask(x.kind)
    names = ("multiply", "multiply", "multiply", "add", "maximum", "minimum")
    if x.kind.element == "i1":
        names = ("and", "and", "or", "xor")
    elif masks.rng.random() < 0.3:
        names = ("subtract", "divide")
    masks.out.binary(masks._one(names), *((x, y) if masks.rng.random() < 0.5 else (y, x)))


def _spread(masks: Masks) -> None:
    """Give a value one more dim, and multiply it there with another."""
    x = masks.any(least=1, most=2)
    dim = int(masks.rng.integers(len(x.shape) + 1))
    shape = (*x.shape[:dim], masks._one(masks.sizes), *x.shape[dim:])
    wide = masks.out.broadcast(x, shape, [d for d in range(len(shape)) if d != dim])
    other = masks.mask(wide.kind)
    masks.out.binary("and" if x.kind.element == "i1" else "multiply", wide, other)


def _reduce(masks: Masks) -> None:
    x = masks.any(least=1)
    merge = masks._one(("add", "add", "add", "maximum"))
    merge = "or" if x.kind.element == "i1" else merge
    start = masks.out.constant(masks._one((0, 0, 0, 0, -1, 1)), x.kind.shaped())
    masks.out.reduce(x, start, merge, [int(masks.rng.integers(len(x.shape)))])


def _several(masks: Masks) -> None:
    """Add up what is the same in all places of a dim."""
    x = masks.any((masks.element,), least=1, most=2)
    zero = masks.out.constant(0, x.kind.shaped())
    wide = masks.out.broadcast(x, (*x.shape, 2), range(len(x.shape)))
    masks.out.reduce(wide, zero, masks._one(("add", "maximum")), [len(x.shape)])


def _divide(masks: Masks) -> None:
    x = masks.any(("i32", "i8", "ui8", "f32"))
    masks.out.binary("divide", x, masks.mask(x.kind))


def _dot(masks: Masks) -> None:
    """Multiply two values along their first dims, as batches or summed up."""
    x = masks.any((masks.element,), least=2)
    others = [v for v in masks.out.pool if v.kind.element == x.kind.element and len(v.shape) == 2]
    others = [v for v in others if v.shape[0] == x.shape[0]]
    y = masks._one(others) if others else masks.mask(x.kind.shaped(x.shape[0], 2))
    if masks.rng.random() < 0.5 and len(x.shape) == 2:
        kind, numbers = (
            x.kind.shaped(*x.shape, y.shape[1]),
            "batching_dims = [0] x [0], contracting_dims = [] x []",
        )
    elif len(x.shape) == 3 and x.shape[1] == y.shape[1] and masks.rng.random() < 0.7:
        kind, numbers = (
            x.kind.shaped(x.shape[0], x.shape[2]),
            "batching_dims = [0] x [0], contracting_dims = [1] x [1]",
        )
    else:
        kind, numbers = x.kind.shaped(*x.shape[1:], y.shape[1]), "contracting_dims = [0] x [0]"
    if len(kind.shape) <= 3:
        masks.out.one(
            f"stablehlo.dot_general {x.name}, {y.name}, {numbers} : ({x.kind}, {y.kind}) -> {kind}",
            kind,
        )


def _select(masks: Masks) -> None:
    x = masks.any()
    no = masks.out.constant(masks._one((0, 0, 0, 1)), x.kind)
    no = no if masks.rng.random() < 0.7 else masks.mask(x.kind)
    masks.out.select(masks.mask(x.kind.of("i1")), x, no)


def _compare(masks: Masks) -> None:
    x = masks.any()
    zero = masks.out.constant(0 if masks.rng.random() < 0.9 else 1, x.kind)
    sides = (x, zero) if masks.rng.random() < 0.7 else (zero, x)
    masks.out.compare(masks._one(("GT", "NE", "LT", "EQ", "GE")), *sides)


def _function(masks: Masks) -> None:
    x = masks.any(("f32", "bf16", "f16", "i32", "i8"))
    is_float = x.kind.element in ("f32", "bf16", "f16")
    name = masks._one(_KEEPERS if is_float else _WHOLE)
    if name.startswith("chlo"):
        masks.out.one(f"{name} {x.name} : {x.kind} -> {x.kind}", x.kind)
    else:
        masks.out.unary(name, x)


def _convert(masks: Masks) -> None:
    x = masks.any()
    masks.out.unary(
        "convert", x, x.kind.of(masks._one((masks.element, masks.element, "i1", "i32", "ui8")))
    )


def _move(masks: Masks) -> None:
    x, way = masks.any(least=1), masks.rng.integers(5)
    if way == 0:
        masks.out.transpose(x, masks.rng.permutation(len(x.shape)))
    elif way == 1:
        place = int(masks.rng.integers(len(x.shape) + 1))
        shapes = [(*x.shape[:place], 1, *x.shape[place:]), tuple(s for s in x.shape if s != 1)]
        shapes.append((x.kind.size,))
        masks.out.unary(
            "reshape", x, x.kind.shaped(*[s for s in shapes if len(s) <= 3][-1 - way % 2])
        )
    elif way == 2 and 1 in x.shape:
        shape = tuple(2 if s == 1 else s for s in x.shape)
        masks.out.broadcast(x, shape, range(len(shape)))
    elif way == 3:
        masks.out.one(f"stablehlo.reverse {x.name}, dims = [0] : {x.kind}", x.kind)
    else:
        masks.out.op(f"stablehlo.optimization_barrier {x.name} : {x.kind}", x.kind)


def _place(masks: Masks) -> None:
    """Make an index out of what is there: one less than a mask, or the largest of some."""
    x = masks.any(("i32", "i8", "f32", "ui8"), least=2)
    if masks.rng.random() < 0.5:
        x = masks.out.binary("subtract", x, masks.out.constant(1, x.kind))
    elif masks.rng.random() < 0.5:
        less = masks.out.constant(-1, x.kind)
        x = masks.out.select(masks.mask(x.kind.of("i1")), x, less)
    if masks.rng.random() < 0.4:
        x = masks.out.unary("convert", x, x.kind.of(masks._one(("i8", "ui8", "i32", "f32"))))
    start = masks.out.constant(masks._one((-1, -1, -5, 0)), x.kind.shaped())
    found = masks.out.reduce(x, start, "maximum", [int(masks.rng.integers(len(x.shape)))])
    size = masks._one(masks.sizes[1:])
    lined = masks.out.broadcast(found, (*found.shape, size), range(len(found.shape)))
    masks.out.compare("EQ", lined, masks.out.iota(lined.kind, len(found.shape)))


STEPS = (
    _hot, _binary, _binary, _binary, _spread, _spread, _reduce, _several, _dot, _dot, _select, _compare,
    _function, _convert, _move, _move, _place, _divide,
)  # fmt: skip


def write_masks(rng: np.random.Generator, pieces: int, count: int = 25) -> Writer:
    """Write pieces of about `count` ops each."""
    masks = Masks(Writer(rng))
    for _ in range(pieces):
        masks.piece(count)
    return masks.out
