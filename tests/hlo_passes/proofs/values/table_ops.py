"""Ops that put elements together or look them up: how pieces of any ops write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hlo_passes.proofs.values.numbers import FLOATS, INTEGERS, Kind, draw_small
from tests.hlo_passes.proofs.values.sums import prefix, region, scan

if TYPE_CHECKING:
    from tests.hlo_passes.proofs.values.soup import Soup


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
    x = soup.pick(("i1", *INTEGERS) if merge in ("and", "or") else (), least=1)
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


def _window(soup: Soup) -> None:
    x = soup.pick((*INTEGERS, *FLOATS), least=1)
    dim = int(soup.rng.integers(len(x.shape)))
    size = int(soup.rng.integers(1, x.shape[dim] + 1))
    start = soup.out.constant(soup._one((0, 0, 1, 3)), x.kind.shaped())
    soup.out.one(prefix(x, start, dim, size, soup._one(("add", "add", "maximum"))), x.kind)


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


TABLES = (
    _dynamic_slice, _dynamic_update, _pad, _sort, _reduce, _reduce, _argmax, _window, _scan, _gather,
    _scatter, _dot, _top_k, _exchange,
)  # fmt: skip
