"""Programs of any ops in any order: what is known of numbers, ranges and elements is tried on them."""

import math
from collections.abc import Sequence

import numpy as np

from tests.hlo_passes.analysis.values.numbers import (
    FLOATS,
    INTEGERS,
    Kind,
    draw_numbers,
    draw_small,
)
from tests.hlo_passes.analysis.values.program import Value, Writer

UNARY = ("abs", "ceil", "floor", "negate", "sign", "round_nearest_even", "round_nearest_afz", "not")
BINARY = (
    "add", "subtract", "multiply", "maximum", "minimum", "and", "or", "xor", "divide", "remainder",
)  # fmt: skip
DIRECTIONS = ("EQ", "NE", "LT", "LE", "GT", "GE")
_FLOAT_ONLY = ("ceil", "floor", "round_nearest_even", "round_nearest_afz")
_BITS = ("and", "or", "xor", "not")
_SIZES = ((), (1,), (3,), (4,), (2, 2), (2, 3), (3, 1), (2, 2, 2), (2, 1, 3))


class Soup:
    """Writes pieces of random ops.

    Attributes:
        out: what they are written to.
    """

    def __init__(self, out: Writer) -> None:
        self.out, self.rng = out, out.rng

    def piece(self, count: int) -> None:
        """Write about `count` ops that have nothing to do with what was written before."""
        self.out.pool = []
        groups = (("i8", "ui8"), INTEGERS, FLOATS)
        self.elements = list(dict.fromkeys(["i1", "i32", *map(self._one, groups)]))
        self.shapes = [_SIZES[i] for i in self.rng.permutation(len(_SIZES))[:3]]
        for _ in range(3):
            self.leaf(self._kind())
        end = len(self.out.made) + count
        while len(self.out.made) < end:
            write = WRITERS[self.rng.integers(len(WRITERS))]
            write(self)

    # --- what ops read

    def leaf(self, kind: Kind) -> Value:
        """Write a value of a type from nothing."""
        way = self.rng.integers(6)
        if way < 2:
            return self.out.input(kind)
        if way == 2 and kind.shape and kind.element != "i1":
            return self.out.iota(kind, int(self.rng.integers(len(kind.shape))))
        if way == 3:
            return self.out.constant(draw_numbers(self.rng, kind.shaped()), kind)
        if way == 4:
            return self.out.constant(draw_numbers(self.rng, kind), kind)
        narrow = kind.of(self._one(("i1", "i8", "ui8")))
        return self.out.unary("convert", self.out.input(narrow), kind)

    def pick(self, elements: Sequence[str] = (), least: int = 0, most: int = 3) -> Value:
        """Return a value of some element types and ranks, one of the last if possible."""
        fits = [
            v
            for v in self.out.pool
            if (not elements or v.kind.element in elements) and least <= len(v.shape) <= most
        ]
        if fits and self.rng.random() < 0.9:
            return fits[-1 - int(self.rng.integers(min(len(fits), 6)))]
        shapes = [s for s in (*self.shapes, (2, 3), (3,)) if least <= len(s) <= most]
        element = self._one([e for e in self.elements if e in elements] or elements or ["i32"])
        return self.leaf(Kind(self._one(shapes) if shapes else (), element))

    def like(self, kind: Kind) -> Value:
        """Return a value of a type: one that is there, one made of others, or a new one."""
        fits = [v for v in self.out.pool if v.kind == kind]
        if fits and self.rng.random() < 0.6:
            return self._one(fits)
        if self.rng.random() < 0.4:
            return self.out.constant(draw_numbers(self.rng, kind.shaped()), kind)
        near = [v for v in self.out.pool if v.shape == kind.shape]
        if near and self.rng.random() < 0.3:
            return self.out.unary("convert", self._one(near), kind)
        if kind.shape and self.rng.random() < 0.3:
            return self.out.broadcast(self.like(kind.shaped()), kind.shape, [])
        return self.leaf(kind)

    def index(self, element: str = "i32") -> Value:
        """Return a scalar to start somewhere; it may be out of bounds."""
        if self.rng.random() < 0.5:
            return self.out.input(Kind((), element), draw_small)
        return self.like(Kind((), element))

    def _kind(self) -> Kind:
        return Kind(self._one(self.shapes), self._one(self.elements))

    def _one(self, choices: Sequence):
        return choices[int(self.rng.integers(len(choices)))]


def _unary(soup: Soup) -> None:
    name = soup._one(UNARY)
    allowed = FLOATS if name in _FLOAT_ONLY else ("i1", *INTEGERS) if name in _BITS else ()
    x = soup.pick(allowed or (*INTEGERS, *FLOATS))
    if not (name in ("abs", "sign", "negate") and x.kind.element.startswith("ui")):
        soup.out.unary(name, x)


def _binary(soup: Soup) -> None:
    name = soup._one(BINARY)
    x = soup.pick(("i1", *INTEGERS) if name in _BITS else ())
    if name in ("subtract", "divide", "remainder") and x.kind.element == "i1":
        return
    y = soup.like(x.kind)
    soup.out.binary(name, *((x, y) if soup.rng.random() < 0.5 else (y, x)))


def _twice(soup: Soup) -> None:
    """Write an op again, or with its operands in another order."""
    name = soup._one(("add", "subtract", "maximum"))
    x = soup.pick((*INTEGERS, *FLOATS))
    y = soup.like(x.kind)
    soup.out.binary(name, x, y)
    soup.out.binary(name, *((x, y) if soup.rng.random() < 0.5 else (y, x)))


def _compare(soup: Soup) -> None:
    x = soup.pick()
    total = x.kind.element in FLOATS and soup.rng.random() < 0.2
    soup.out.compare(soup._one(DIRECTIONS), x, soup.like(x.kind), total)


def _select(soup: Soup) -> None:
    x = soup.pick()
    mask = x.kind.of("i1") if soup.rng.random() < 0.8 else Kind((), "i1")
    soup.out.select(soup.like(mask), x, soup.like(x.kind))


def _clamp(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS))
    limit = x.kind if soup.rng.random() < 0.5 else x.kind.shaped()
    low, high = soup.like(limit), soup.like(limit)
    soup.out.one(
        f"stablehlo.clamp {low.name}, {x.name}, {high.name} : ({limit}, {x.kind}, {limit}) -> {x.kind}",
        x.kind,
    )


def _convert(soup: Soup) -> None:
    x = soup.pick()
    others = soup.elements if soup.rng.random() < 0.6 else ("i1", *INTEGERS, *FLOATS)
    soup.out.unary("convert", x, x.kind.of(soup._one(others)))


def _broadcast(soup: Soup) -> None:
    x = soup.pick()
    rank = int(soup.rng.integers(len(x.shape), 4))
    dims = [int(d) for d in soup.rng.permutation(rank)[: len(x.shape)]]
    shape = [int(soup.rng.integers(1, 4)) for _ in range(rank)]
    for dim, size in zip(dims, x.shape, strict=True):
        shape[dim] = size if size != 1 or soup.rng.random() < 0.5 else 2
    if soup.rng.random() < 0.5:
        shape = [s if d in dims else 1 for d, s in enumerate(shape)]
    soup.out.broadcast(x, tuple(shape), dims)


def _reshape(soup: Soup) -> None:
    x = soup.pick()
    size = x.kind.size
    shapes = [(size,), (1, size), (size, 1), tuple(s for s in x.shape if s != 1)]
    shapes += [(a, size // a) for a in (2, 3) if size % a == 0] + [x.shape[::-1]]
    soup.out.unary("reshape", x, x.kind.shaped(*soup._one(shapes)))


def _transpose(soup: Soup) -> None:
    x = soup.pick(least=2)
    soup.out.transpose(x, soup.rng.permutation(len(x.shape)))


def _reverse(soup: Soup) -> None:
    x = soup.pick(least=1)
    dims = [d for d in range(len(x.shape)) if soup.rng.random() < 0.6]
    soup.out.one(f"stablehlo.reverse {x.name}, dims = {dims} : {x.kind}", x.kind)


def _slice(soup: Soup) -> None:
    x = soup.pick(least=1)
    bounds = []
    for size in x.shape:
        start = int(soup.rng.integers(size))
        bounds.append(
            (start, int(soup.rng.integers(start + 1, size + 1)), 1 + int(soup.rng.random() < 0.3))
        )
    kind = x.kind.shaped(*(-(-(end - start) // step) for start, end, step in bounds))
    spelled = ", ".join(f"{a}:{b}:{c}" for a, b, c in bounds)
    soup.out.one(f"stablehlo.slice {x.name} [{spelled}] : ({x.kind}) -> {kind}", kind)


def _concatenate(soup: Soup) -> None:
    x = soup.pick(least=1)
    y = soup.like(x.kind)
    dim = int(soup.rng.integers(len(x.shape)))
    kind = x.kind.shaped(*(2 * s if d == dim else s for d, s in enumerate(x.shape)))
    if kind.size <= 32:
        soup.out.one(
            f"stablehlo.concatenate {x.name}, {y.name}, dim = {dim} : ({x.kind}, {y.kind}) -> {kind}",
            kind,
        )


def _barrier(soup: Soup) -> None:
    x, y = soup.pick(), soup.pick()
    soup.out.op(
        f"stablehlo.optimization_barrier {x.name}, {y.name} : {x.kind}, {y.kind}", x.kind, y.kind
    )


def _dynamic_slice(soup: Soup) -> None:
    x = soup.pick(least=1)
    kind = x.kind.shaped(*(int(soup.rng.integers(1, s + 1)) for s in x.shape))
    starts = [soup.index() for _ in x.shape]
    names, kinds = ", ".join(s.name for s in starts), ", ".join(str(s.kind) for s in starts)
    soup.out.one(
        f"stablehlo.dynamic_slice {x.name}, {names}, sizes = {list(kind.shape)} : "
        f"({x.kind}, {kinds}) -> {kind}",
        kind,
    )


def _dynamic_update(soup: Soup) -> None:
    x = soup.pick(least=1)
    put = soup.like(x.kind.shaped(*(max(1, s - 1) for s in x.shape)))
    starts = [soup.index() for _ in x.shape]
    names, kinds = ", ".join(s.name for s in starts), ", ".join(str(s.kind) for s in starts)
    soup.out.one(
        f"stablehlo.dynamic_update_slice {x.name}, {put.name}, {names} : "
        f"({x.kind}, {put.kind}, {kinds}) -> {x.kind}",
        x.kind,
    )


def _pad(soup: Soup) -> None:
    x = soup.pick(least=1)
    fill = soup.like(x.kind.shaped())
    low, high = ([int(soup.rng.integers(0, 2)) for _ in x.shape] for _ in range(2))
    kind = x.kind.shaped(*(a + b + c for a, b, c in zip(low, x.shape, high, strict=True)))
    soup.out.one(
        f"stablehlo.pad {x.name}, {fill.name}, low = {low}, high = {high}, "
        f"interior = {[0] * len(low)} : ({x.kind}, {fill.kind}) -> {kind}",
        kind,
    )


def _sort(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS), least=1)
    y = soup.like(x.kind.of("i32"))
    one, other = (v.kind.shaped() for v in (x, y))
    soup.out.op(
        f'"stablehlo.sort"({x.name}, {y.name}) <{{dimension = {len(x.shape) - 1} : i64, is_stable = true}}> ({{\n'
        f"  ^bb0(%a: {one}, %b: {one}, %c: {other}, %d: {other}):\n"
        f"    %s = stablehlo.compare LT, %a, %b : ({one}, {one}) -> tensor<i1>\n"
        f"    stablehlo.return %s : tensor<i1>\n  }}) : ({x.kind}, {y.kind}) -> ({x.kind}, {y.kind})",
        x.kind,
        y.kind,
    )


def _reduce(soup: Soup) -> None:
    merge = soup._one(("add", "maximum", "minimum", "multiply", "and", "or"))
    x = soup.pick(("i1", *INTEGERS) if merge in _BITS else (), least=1)
    dims = [d for d in range(len(x.shape)) if soup.rng.random() < 0.7] or [0]
    start = soup.like(x.kind.shaped())
    if soup.rng.random() < 0.5:
        start = soup.out.constant(soup._one((0, 0, 1)), x.kind.shaped())
    soup.out.reduce(x, start, merge, dims)


def _argmax(soup: Soup) -> None:
    """Reduce numbers and their places at once, as argmax does."""
    x = soup.pick((*INTEGERS, *FLOATS), least=1)
    dim = int(soup.rng.integers(len(x.shape)))
    places = (
        soup.out.iota(x.kind.of("i32"), dim)
        if soup.rng.random() < 0.7
        else soup.like(x.kind.of("i32"))
    )
    starts = [soup.like(v.kind.shaped()) for v in (x, places)]
    a, b = (v.kind.shaped() for v in (x, places))
    kinds = [v.kind.shaped(*(s for d, s in enumerate(x.shape) if d != dim)) for v in (x, places)]
    pick = soup._one(("select %m, %x, %y : tensor<i1>,", "maximum %x, %y :", "add %x, %y :"))
    soup.out.op(
        f'"stablehlo.reduce"({x.name}, {places.name}, {starts[0].name}, {starts[1].name}) '
        f"<{{dimensions = array<i64: {dim}>}}> ({{\n"
        f"  ^bb0(%x: {a}, %i: {b}, %y: {a}, %j: {b}):\n"
        f"    %m = stablehlo.compare GT, %x, %y : ({a}, {a}) -> tensor<i1>\n"
        f"    %p = stablehlo.{pick} {a}\n    %q = stablehlo.select %m, %i, %j : tensor<i1>, {b}\n"
        f"    stablehlo.return %p, %q : {a}, {b}\n"
        f"  }}) : ({x.kind}, {places.kind}, {a}, {b}) -> ({kinds[0]}, {kinds[1]})",
        *kinds,
    )


def region(merge: str, kind: Kind) -> str:
    """Return a region that puts two elements together; `set` takes the second."""
    put = "" if merge == "set" else f"%s = stablehlo.{merge} %a, %b : {kind}\n    "
    return (f"({{\n  ^bb0(%a: {kind}, %b: {kind}):\n    {put}stablehlo.return "
            f"{'%b' if merge == 'set' else '%s'} : {kind}\n  }})")  # fmt: skip


def prefix(x: Value, start: Value, dim: int, window: int = 0, merge: str = "add") -> str:
    """Return the text of a prefix sum as `jnp.cumsum` makes it, or of a shorter window."""
    size = window or x.shape[dim]
    sizes = ", ".join(str(size if d == dim else 1) for d in range(len(x.shape)))
    pads = [[size - 1 if d == dim else 0, 0] for d in range(len(x.shape))]
    return (
        f'"stablehlo.reduce_window"({x.name}, {start.name}) <{{padding = dense<{pads}> : '
        f"tensor<{len(pads)}x2xi64>, window_dimensions = array<i64: {sizes}>}}> "
        f"{region(merge, start.kind)} : ({x.kind}, {start.kind}) -> {x.kind}"
    )


def _window(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS), least=1)
    dim = int(soup.rng.integers(len(x.shape)))
    size = int(soup.rng.integers(1, x.shape[dim] + 1))
    start = soup.out.constant(soup._one((0, 0, 1, 3)), x.kind.shaped())
    soup.out.one(prefix(x, start, dim, size, soup._one(("add", "add", "maximum"))), x.kind)


def scan(out: Writer, x: Value, dim: int, start: int = 0) -> Value:
    """Write a prefix sum as a `chlo.scan`, run as a window: XLA:CPU has no scans."""
    shape = tuple(s for d, s in enumerate(x.shape) if d != dim)
    end, last = x.kind.shaped(*shape), [1 if d == dim else s for d, s in enumerate(x.shape)]
    begin, zero = out.constant(start, end), out.constant(start, x.kind.shaped())
    cut = ", ".join(f"{x.shape[d] - 1 if d == dim else 0}:{s}" for d, s in enumerate(x.shape))
    found, _ = out.op(
        f'"chlo.scan"({x.name}, {begin.name}) <{{dimension = {dim} : i64, is_reverse = false, '
        f"operandSegmentSizes = array<i32: 1, 1>, resultSegmentSizes = array<i32: 1, 1>}}> ({{\n"
        f"  ^bb0(%a: {end}, %b: {end}):\n    %s = stablehlo.add %a, %b : {end}\n"
        f"    stablehlo.return %s, %s : {end}, {end}\n  }}) : ({x.kind}, {end}) -> ({x.kind}, {end})",
        x.kind,
        end,
        run=(
            "{0} = " + prefix(x, zero, dim).replace("{", "{{").replace("}", "}}"),
            f"{{0}}_last = stablehlo.slice {{0}} [{cut}] : ({x.kind}) -> {x.kind.shaped(*last)}",
            f"{{1}} = stablehlo.reshape {{0}}_last : ({x.kind.shaped(*last)}) -> {end}",
        ),
    )
    return found


def _scan(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS), least=1)
    scan(soup.out, x, int(soup.rng.integers(len(x.shape))))


def _gather(soup: Soup) -> None:
    x = soup.pick(least=1)
    rows = soup.out.input(Kind((3, 1), soup._one(("i32", "ui8", "i64"))), draw_small)
    sizes = ", ".join(map(str, (1, *x.shape[1:])))
    kind = x.kind.shaped(3, *x.shape[1:])
    soup.out.one(
        f'"stablehlo.gather"({x.name}, {rows.name}) <{{dimension_numbers = #stablehlo.gather<'
        f"offset_dims = {list(range(1, len(x.shape)))}, collapsed_slice_dims = [0], start_index_map = [0], "
        f"index_vector_dim = 1>, slice_sizes = array<i64: {sizes}>}}> : ({x.kind}, {rows.kind}) -> {kind}",
        kind,
    )


def _scatter(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS), least=1)
    put = soup.like(x.kind.shaped(3, *x.shape[1:]))
    rows = soup.out.input(Kind((3, 1), "i32"), draw_small)
    merge = soup._one(("add", "set", "maximum", "minimum", "multiply"))
    soup.out.one(
        f'"stablehlo.scatter"({x.name}, {rows.name}, {put.name}) <{{scatter_dimension_numbers = '
        f"#stablehlo.scatter<update_window_dims = {list(range(1, len(x.shape)))}, inserted_window_dims = [0], "
        f"scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}}> {region(merge, x.kind.shaped())} : "
        f"({x.kind}, {rows.kind}, {put.kind}) -> {x.kind}",
        x.kind,
    )


def _dot(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS), least=1, most=2)
    y = soup.like(x.kind.shaped(x.shape[-1], 2))
    element = x.kind.element
    wide = {"i8": "i32", "ui8": "ui32", "bf16": "f32", "f16": "f32"}.get(element, element)
    if soup.rng.random() < 0.5:
        wide = element
    kind = Kind((*x.shape[:-1], 2), wide)
    soup.out.one(
        f"stablehlo.dot_general {x.name}, {y.name}, contracting_dims = [{len(x.shape) - 1}] x [0] : "
        f"({x.kind}, {y.kind}) -> {kind}",
        kind,
    )


def _top_k(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, "f32", "bf16"), least=1)
    k = int(soup.rng.integers(1, x.shape[-1] + 1))
    kind = x.kind.shaped(*x.shape[:-1], k)
    soup.out.op(
        f"chlo.top_k({x.name}, k = {k}) : {x.kind} -> ({kind}, {kind.of('i32')})",
        kind,
        kind.of("i32"),
    )


def _exchange(soup: Soup) -> None:
    """With itself: there is one device."""
    x = soup.pick(least=1)
    group = "replica_groups = dense<0> : tensor<1x1xi64>"
    if soup.rng.random() < 0.5:
        text = f'"stablehlo.all_gather"({x.name}) <{{all_gather_dim = 0 : i64, {group}}}>'
    else:
        text = (f'"stablehlo.all_to_all"({x.name}) <{{split_dimension = 0 : i64, concat_dimension = '
                f"0 : i64, split_count = 1 : i64, {group}}}>")  # fmt: skip
    soup.out.one(f"{text} : ({x.kind}) -> {x.kind}", x.kind)


def _function(soup: Soup) -> None:
    """Ops that keep zero, or zero and one."""
    name = soup._one((
        "sqrt", "cbrt", "tanh", "sine", "tan", "exponential_minus_one", "log_plus_one", "chlo.erf",
        "chlo.erf_inv", "chlo.asin", "chlo.asinh", "chlo.atan", "chlo.atanh", "chlo.sinh", "chlo.square",
    ))  # fmt: skip
    x = soup.pick(("f32", "bf16", "f16"))
    if name.startswith("chlo"):
        soup.out.one(f"{name} {x.name} : {x.kind} -> {x.kind}", x.kind)
    else:
        soup.out.unary(name, x)


_COMMON = (
    _binary, _binary, _binary, _binary, _unary, _unary, _compare, _select, _convert, _broadcast,
    _clamp,
)  # fmt: skip
_MOVES = (_reshape, _transpose, _reverse, _slice, _concatenate, _broadcast, _barrier)
_RARE = (
    _twice, _dynamic_slice, _dynamic_update, _pad, _sort, _reduce, _reduce, _argmax, _window, _scan,
    _gather, _scatter, _dot, _top_k, _exchange, _function,
)  # fmt: skip
WRITERS = (*_COMMON, *_COMMON, *_COMMON, *_MOVES, *_RARE)


def write_soup(rng: np.random.Generator, pieces: int, count: int = 15) -> Writer:
    """Write pieces of about `count` ops each."""
    out = Writer(rng)
    soup = Soup(out)
    for _ in range(pieces):
        soup.piece(count)
    assert all(math.prod(v.shape) <= 512 for v in out.made)
    return out
