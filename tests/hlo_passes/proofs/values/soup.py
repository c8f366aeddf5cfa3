"""Programs of any ops in any order: what is known of numbers, ranges and elements is tried on them."""

import math
from collections.abc import Sequence

import numpy as np

from tests.hlo_passes.proofs.values.numbers import (
    FLOATS,
    INTEGERS,
    Kind,
    draw_numbers,
    draw_small,
)
from tests.hlo_passes.proofs.values.plain_ops import PLAIN
from tests.hlo_passes.proofs.values.program import Value, Writer
from tests.hlo_passes.proofs.values.table_ops import TABLES

_SIZES = ((), (1,), (3,), (4,), (2, 2), (2, 3), (3, 1), (2, 2, 2), (2, 1, 3))
_WRITERS = (*PLAIN, *TABLES)


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
            write = _WRITERS[self.rng.integers(len(_WRITERS))]
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


def write_soup(rng: np.random.Generator, pieces: int, count: int = 15) -> Writer:
    """Write pieces of about `count` ops each."""
    out = Writer(rng)
    soup = Soup(out)
    for _ in range(pieces):
        soup.piece(count)
    assert all(math.prod(v.shape) <= 512 for v in out.made)
    return out
