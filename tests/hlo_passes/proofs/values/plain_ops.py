"""Ops element by element, and ops that move elements: how pieces of any ops write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hlo_passes.proofs.values.numbers import FLOATS, INTEGERS, Kind, draw_numbers

if TYPE_CHECKING:
    from tests.hlo_passes.proofs.values.soup import Soup

UNARY = ("abs", "ceil", "floor", "negate", "sign", "round_nearest_even", "round_nearest_afz", "not")
BINARY = (
    "add", "subtract", "multiply", "maximum", "minimum", "and", "or", "xor", "divide", "remainder",
)  # fmt: skip
DIRECTIONS = ("EQ", "NE", "LT", "LE", "GT", "GE")
_FLOAT_ONLY = ("ceil", "floor", "round_nearest_even", "round_nearest_afz")
_BITS = ("and", "or", "xor", "not")


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


def _known(soup: Soup) -> None:
    """Work on constants alone."""
    groups = (INTEGERS, FLOATS)
    kind = Kind((4,), soup._one(soup._one(groups)))
    x, y = (soup.out.constant(draw_numbers(soup.rng, kind), kind) for _ in range(2))
    names = BINARY if kind.element in INTEGERS else [n for n in BINARY if n not in _BITS]
    soup.out.binary(soup._one(names), x, y)
    for side in (x, y):
        soup.out.unary("convert", side, kind.of(soup._one(soup._one(groups))))
    soup.out.one(f"stablehlo.reverse {y.name}, dims = [0] : {kind}", kind)


def _overflowing(soup: Soup) -> None:
    """Work on numbers that are not below one, where all that a narrow type holds may come in."""
    kind = Kind((4,), soup._one(("i8", "ui8", "i16", "i32")))
    least = soup.out.constant(draw_numbers(soup.rng, kind.shaped()), kind)
    x = soup.out.binary("maximum", soup.out.input(kind), least)
    name = soup._one(("add", "subtract", "multiply"))
    soup.out.binary(name, x, soup._one((x, least, soup.out.constant(7, kind))))


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
PLAIN = (*_COMMON, *_COMMON, *_COMMON, *_MOVES, _twice, _function, _known, _known, _overflowing)
