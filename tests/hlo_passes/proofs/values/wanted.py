"""Programs that multiply a value with masks; what is needed of it is tried by changing the rest."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.one_hot import Hot
from hlo_passes.proofs.only_where import terms_of_readers
from tests.hlo_passes.proofs.values.claims import Claim, same
from tests.hlo_passes.proofs.values.mask_claims import count_fits, one_hot_of
from tests.hlo_passes.proofs.values.masked import Masks, placed
from tests.hlo_passes.proofs.values.numbers import Kind, draw_small
from tests.hlo_passes.proofs.values.program import Executed, Value, Writer

_ELEMENTS = ("f32", "bf16", "i32", "i8")
ROWS = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""Dims of a value for which hots have to hold, all that are asked for."""


@dataclass(frozen=True)
class Wanted:
    """A value of which only some may be needed.

    Attributes:
        given: the input that it is.
        value: the value.
        sinks: what is made of it in the end.
        beside: what comes out besides.
    """

    given: Value
    value: Value
    sinks: tuple[Value, ...]
    beside: tuple[Value, ...]

    @property
    def returns(self) -> tuple[Value, ...]:
        """What the program returns."""
        made = [v for v in (*self.sinks, *self.beside) if "in" not in v.name]
        return tuple(dict.fromkeys(made))


class _Chain:
    """Writes what is made of a value."""

    def __init__(self, masks: Masks) -> None:
        self.masks, self.out, self.rng = masks, masks.out, masks.rng
        masks.begin(_ELEMENTS)
        self.beside = list(self.out.pool)
        tokens, experts, slots = masks.sizes
        shape = masks._one(((tokens, experts, slots), (tokens, experts), (experts, tokens)))
        self.given = self.out.input(Kind(shape, masks.element), draw_small)
        self.value = self.out.one(
            f"stablehlo.optimization_barrier {self.given.name} : {self.given.kind}", self.given.kind
        )

    def other(self, kind: Kind) -> Value:
        """Return a mask of a type that does not depend on the value."""
        self.out.pool = self.beside
        found = self.masks.mask(kind)
        self.beside = self.out.pool
        return found

    def wanted(self) -> Wanted:
        """Write all of it."""
        sinks = []
        for _ in range(1 + int(self.rng.random() < 0.3)):
            made = self.value
            for _ in range(int(self.rng.integers(1, 5))):
                made = _CHANGES[self.rng.integers(len(_CHANGES))](self, made)
            sinks.append(made)
        return Wanted(self.given, self.value, tuple(sinks), tuple(self.beside))


def _masked(chain: _Chain, x: Value) -> Value:
    sides = [x, chain.other(x.kind)]
    if chain.rng.random() < 0.5:
        sides.reverse()
    return chain.out.binary("multiply", *sides)


def _hot(chain: _Chain, x: Value) -> Value:
    """Multiply with a hot of its own along one dim."""
    dim = int(chain.rng.integers(len(x.shape))) if x.shape else 0
    if not x.shape:
        return x
    shape = tuple(s for d, s in enumerate(x.shape) if d != dim)
    index = chain.out.input(Kind(shape, "i32"), draw_small)
    lined = chain.out.broadcast(index, x.shape, [d for d in range(len(x.shape)) if d != dim])
    flags = chain.out.compare("EQ", lined, chain.out.iota(lined.kind, dim))
    chain.beside = [*chain.beside, index, flags]
    if chain.rng.random() < 0.5:
        return chain.out.select(flags, x, chain.out.constant(0, x.kind))
    return chain.out.binary("multiply", chain.out.unary("convert", flags, x.kind), x)


def _chosen(chain: _Chain, x: Value) -> Value:
    mask, other = chain.other(x.kind.of("i1")), chain.other(x.kind)
    return chain.out.select(mask, *((x, other) if chain.rng.random() < 0.8 else (other, x)))


def _changed(chain: _Chain, x: Value) -> Value:
    way = chain.rng.integers(4)
    if way == 0:
        return chain.out.unary("negate", x)
    if way == 1:
        return chain.out.binary("divide", x, chain.out.constant(2, x.kind))
    if way == 2:
        return chain.out.binary("subtract", *((x, chain.other(x.kind)) if chain.rng.random() < 0.5
                                              else (chain.other(x.kind), x)))  # fmt: skip
    return chain.out.binary("add", x, x)


def _summed(chain: _Chain, x: Value) -> Value:
    if not x.shape:
        return x
    zero = chain.out.constant(0, x.kind.shaped())
    return chain.out.reduce(x, zero, "add", [int(chain.rng.integers(len(x.shape)))])


def _moved(chain: _Chain, x: Value) -> Value:
    if len(x.shape) > 1 and chain.rng.random() < 0.5:
        return chain.out.transpose(x, chain.rng.permutation(len(x.shape)))
    if len(x.shape) < 3:
        dims = sorted(map(int, chain.rng.permutation(len(x.shape) + 1)[: len(x.shape)]))
        shape = [chain.masks.sizes[1]] * (len(x.shape) + 1)
        for d, size in zip(dims, x.shape, strict=True):
            shape[d] = size
        return chain.out.broadcast(x, tuple(shape), dims)
    return x


def _product(chain: _Chain, x: Value) -> Value:
    """Multiply with a mask along its first dim, summed up or not."""
    if not 2 <= len(x.shape) <= 3:
        return x
    y = chain.other(x.kind.shaped(x.shape[0], int(chain.rng.integers(2, 4))))
    kind, numbers = x.kind.shaped(*x.shape[1:], y.shape[1]), "contracting_dims = [0] x [0]"
    if len(x.shape) == 2 and chain.rng.random() < 0.5:
        kind = x.kind.shaped(*x.shape, y.shape[1])
        numbers = "batching_dims = [0] x [0], contracting_dims = [] x []"
    elif placed(x.shape[1:], x.shape[1:], chain.rng) and chain.rng.random() < 0.5:
        y = chain.other(x.kind)
        rest = list(range(1, len(x.shape)))
        kind, numbers = (
            x.kind.shaped(x.shape[0]),
            f"batching_dims = [0] x [0], contracting_dims = {rest} x {rest}",
        )
    text = f"stablehlo.dot_general {x.name}, {y.name}, {numbers} : ({x.kind}, {y.kind}) -> {kind}"
    return chain.out.one(text, kind)


def _turned(chain: _Chain, x: Value) -> Value:
    return chain.out.transpose(x, list(range(len(x.shape)))[::-1])


_CHANGES = (
    _masked, _masked, _hot, _hot, _hot, _chosen, _changed, _summed, _moved, _turned, _turned, _product,
)  # fmt: skip


def write_wanted(rng: np.random.Generator, pieces: int) -> tuple[Executed, list[Wanted]]:
    """Write values of which something is claimed; and return them."""
    out, claimed = Writer(rng), []
    for number in range(1000):
        piece = Writer(rng, prefix=f"p{number}_")
        one = _Chain(Masks(piece)).wanted()
        alone = Executed(piece, one.returns, [])
        if any(terms_of(alone, one, rows) is not None for rows in ROWS):
            out.take(piece)
            claimed.append(one)
        if len(claimed) == pieces:
            break
    return out.executed(2, [v for one in claimed for v in one.returns]), claimed


def terms_of(program: Executed, one: Wanted, rows: tuple[int, ...]) -> list[frozenset[Hot]] | None:
    """Return terms of which one holds for every element that is needed; None if nothing is said."""
    value = program.values[one.value.name]
    try:
        found = terms_of_readers(program.body, one_hot_of(program), value, rows)
    except NotProved:
        return None
    return list(found) if max(rows) < len(one.value.shape) else None


def wanted(program: Executed, claimed: Sequence[Wanted]) -> Iterator[Claim]:
    """Results do not change with elements for which no term holds."""
    inputs = [value for value, _ in program.writer.inputs]
    for rows in ROWS:
        terms = {one: terms_of(program, one, rows) for one in claimed}
        said = {one: found for one, found in terms.items() if found is not None}
        for arguments, run in zip(program.arguments, program.runs, strict=True):
            changed = list(arguments)
            for one, found in said.items():
                fits = [count_fits(hots, one.value.shape, run) for hots in found]
                is_needed = np.any(fits, axis=0) if fits else np.zeros(one.value.shape, bool)
                at = inputs.index(one.given)
                other = arguments[at] + arguments[at].dtype.type(1)
                changed[at] = np.where(is_needed, arguments[at], other)
            again = program.run(changed)
            for one, found in said.items():
                for sink in (program.values[v.name] for v in one.sinks):
                    if not same(run[sink], again[sink]):
                        yield sink, f"needs {one.value} where {[spelled(t) for t in found]} alone"


def spelled(hots: Iterable[Hot]) -> str:
    """Say which hots hold."""
    return str([(hot.at, hot.counted) for hot in hots])
