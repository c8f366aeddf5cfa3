"""Programs that count tokens by their experts, right or nearly so; and rows that are made of that."""

from dataclasses import dataclass, field

import numpy as np

from tests.hlo_passes.proofs.values.numbers import Kind, draw_numbers, draw_small
from tests.hlo_passes.proofs.values.program import Executed, Value, Writer
from tests.hlo_passes.proofs.values.sums import prefix, region, scan

_TOKENS = ((4,), (5,), (2, 2), (2, 3), (2, 2, 2))
_COUNTERS = ("i32", "f32", "i64", "ui32", "ui32", "i8", "f16")


@dataclass(frozen=True)
class Asked:
    """Index vectors, and the sizes of the dims that they address."""

    indices: Value
    dims: tuple[int, ...]
    index_dim: int


@dataclass
class Counter:
    """Writes pieces that count.

    Attributes:
        out: what they are written to.
        asked: index vectors that may be distinct.
    """

    out: Writer
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = self.out.rng

    def piece(self) -> None:
        """Write some counts of some tokens, and index vectors made of them."""
        out, rng = self.out, self.rng
        out.pool = []
        self.experts = int(rng.integers(1, 4))
        element = self._one(("i32", "i32", "i64", "i8", "ui8", "f32"))
        draw = draw_numbers if rng.random() < 0.15 else self._draw
        expert = out.input(Kind(self._one(_TOKENS), element), draw)
        if rng.random() < 0.4:
            low, high = (out.constant(n, expert.kind) for n in (0, self.experts))
            expert = out.binary("minimum", out.binary("maximum", expert, low), high)
        hots = []
        self.element = self._one(_COUNTERS)
        for _ in range(2):
            if rng.random() < 0.4:
                expert = self.moved(expert, len(expert.shape))
            hots.append((expert, self.hot(expert)))
        self._count(*hots[0])
        if rng.random() < 0.5:
            self._count(*hots[1], other=hots[0][1])
        for _ in range(3):
            self._any()

    def _draw(self, rng: np.random.Generator, kind: Kind) -> np.ndarray:
        return draw_small(rng, kind, -1, self.experts + 1)

    def hot(self, expert: Value) -> Value:
        """Compare experts with the places along a last dim."""
        out, rank = self.out, len(expert.shape)
        shape = (*expert.shape, self.experts)
        lined = out.broadcast(expert, shape, range(rank))
        sides = [lined, out.iota(lined.kind, rank if self.rng.random() < 0.9 else 0)]
        if self.rng.random() < 0.5:
            sides.reverse()
        flags = out.compare("EQ" if self.rng.random() < 0.95 else "GE", *sides)
        hot = out.unary("convert", flags, flags.kind.of(self.element))
        return self.moved(hot, rank) if self.rng.random() < 0.4 else hot

    def _count(self, expert: Value, hot: Value, other: Value | None = None) -> None:
        """Write the usual idiom, with a slip here and there."""
        out, rng = self.out, self.rng
        count = self.prefix(hot)
        mask = hot if other is None or other.kind != hot.kind or rng.random() < 0.5 else other
        way = rng.integers(4)
        if way in (0, 3):
            count = out.binary("subtract", count, mask)
        if way in (1, 3):
            count = self.shifted(count)
        if rng.random() < 0.7:
            own = out.binary("multiply", *((count, mask) if rng.random() < 0.5 else (mask, count)))
        else:
            zero = out.constant(0 if rng.random() < 0.9 else 1, count.kind)
            flags = out.compare("NE", mask, out.constant(0, mask.kind))
            flags = out.unary("convert", mask, mask.kind.of("i1")) if rng.random() < 0.8 else flags
            own = out.select(flags, count, zero)
        if rng.random() < 0.3:
            own = self.moved(own, len(own.shape) - 1)
        start = out.constant(0 if rng.random() < 0.9 else 1, own.kind.shaped())
        dim = len(own.shape) - 1 if rng.random() < 0.9 else 0
        rank = out.reduce(own, start, "add", [dim])
        if way == 2 or rng.random() < 0.2:
            rank = self.shifted(rank)
        if rng.random() < 0.3:
            rank = out.unary("convert", rank, rank.kind.of(self._one(_COUNTERS)))
        self._rows(expert, rank)

    def prefix(self, hot: Value) -> Value:
        """Add up along a dim, mostly one of tokens and all of it."""
        dim = int(self.rng.integers(max(1, len(hot.shape) - (self.rng.random() < 0.9))))
        if self.rng.random() < 0.3:
            return scan(self.out, hot, dim, start=int(self.rng.random() < 0.1))
        start = self.out.constant(0 if self.rng.random() < 0.95 else 1, hot.kind.shaped())
        window = hot.shape[dim] if self.rng.random() < 0.9 else max(1, hot.shape[dim] - 1)
        return self.out.one(prefix(hot, start, dim, window), hot.kind)

    def shifted(self, x: Value) -> Value:
        """Add or subtract a constant."""
        number = self.out.constant(self._one((1, 1, 1, 2, 0.5, 100)), x.kind)
        sides = (x, number) if self.rng.random() < 0.9 else (number, x)
        return self.out.binary(self._one(("subtract", "subtract", "add")), *sides)

    def moved(self, x: Value, free: int) -> Value:
        """Move the first `free` dims about, now and then all."""
        out, rank = self.out, len(x.shape)
        free = rank if self.rng.random() < 0.1 else free
        order = [*map(int, self.rng.permutation(free)), *range(free, rank)]
        way = self.rng.integers(5)
        if way == 0:
            return out.transpose(x, order)
        if way == 1:
            shape = [0] * rank
            for d, to in enumerate(order):
                shape[to] = x.shape[d]
            return out.broadcast(x, tuple(shape), order)
        if way == 2:
            flat = int(np.prod(x.shape[:free]))
            return out.unary("reshape", x, x.kind.shaped(flat, *x.shape[free:]))
        if way == 3:
            return out.one(f"stablehlo.reverse {x.name}, dims = [0] : {x.kind}", x.kind)
        return out.unary("convert", x, x.kind.of(self._one(_COUNTERS)))

    def _any(self) -> None:
        """Write an op of the same kinds on anything that is there."""
        x = self._one([v for v in self.out.pool if v.shape and v.kind.element != "i1"])
        same = [v for v in self.out.pool if v.kind == x.kind]
        way = self.rng.integers(4)
        if way == 0:
            self.out.binary(self._one(("add", "subtract", "multiply")), x, self._one(same))
        elif way == 1:
            self.moved(x, max(1, len(x.shape) - 1))
        elif way == 2:
            self.shifted(x)
        elif len(x.shape) > 1:
            self.prefix(x)

    # --- rows of a buffer

    def _rows(self, expert: Value, rank: Value) -> None:
        """Make index vectors of experts and ranks."""
        out, rng = self.out, self.rng
        rank, expert = (self._index(v) for v in (rank, expert))
        if expert.shape != rank.shape:
            if expert.kind.size != rank.kind.size:
                return
            expert = out.unary("reshape", expert, rank.kind.of(expert.kind.element))
        slots = int(rng.integers(1, 5))
        if rng.random() < 0.3:
            self._flat(expert, rank, slots)
            return
        rank, expert = self.kept(rank, slots), self.kept(expert, self.experts)
        if rng.random() < 0.2:
            expert = self.moved(expert, len(expert.shape))
        if expert.kind != rank.kind:
            return
        columns, dims = [expert, rank], [self.experts, slots]
        if len(rank.shape) > 1 and rng.random() < 0.6:
            along = int(rng.integers(len(rank.shape)))
            columns.insert(0, out.iota(rank.kind, along))
            dims.insert(0, rank.shape[along])
        if rng.random() < 0.2:
            dims[int(rng.integers(len(dims)))] += self._one((-1, 1, 1))
        vector = len(rank.shape)
        lined = [out.unary("reshape", c, c.kind.shaped(*c.shape, 1)) for c in columns]
        kind = rank.kind.shaped(*rank.shape, len(columns))
        indices = out.one(
            f"stablehlo.concatenate {', '.join(c.name for c in lined)}, dim = {vector} : "
            f"({', '.join(str(c.kind) for c in lined)}) -> {kind}",
            kind,
        )
        self.asked.append(Asked(indices, tuple(dims), vector))

    def _index(self, x: Value) -> Value:
        """Make 32-bit integers of a value."""
        return x if x.kind.element == "i32" else self.out.unary("convert", x, x.kind.of("i32"))

    def kept(self, x: Value, size: int) -> Value:
        """Send what is not below a size elsewhere, or wrap what is negative."""
        out, way = self.out, self.rng.integers(6)
        limit, zero = (out.constant(n, x.kind) for n in (size, 0))
        away = out.constant(self._one((size, size, -1, size - 1, 0, 1000)), x.kind)
        if way == 0:
            return out.select(out.compare("LT", x, limit), x, away)
        if way == 1:
            return out.select(out.compare("LT", x, zero), out.binary("add", x, limit), x)
        if way == 2:
            return out.binary("minimum", x, away)
        return x

    def _flat(self, expert: Value, rank: Value, slots: int) -> None:
        """Address with one number."""
        out, rng = self.out, self.rng
        if expert.kind != rank.kind:
            return
        times = out.binary("multiply", expert, out.constant(slots, expert.kind))
        row = out.binary("add", times, rank)
        limit = out.constant(slots + int(rng.random() < 0.1), rank.kind)
        mask = out.compare("LT", rank, limit)
        if rng.random() < 0.3:
            mask = out.binary("and", mask, out.compare("GE", rank, out.constant(0, rank.kind)))
        size = self.experts * slots + (int(rng.integers(-1, 2)) if rng.random() < 0.2 else 0)
        if size < 1:
            return
        away = size if rng.random() < 0.9 else size - 1
        row = out.select(mask, row, out.constant(away, row.kind))
        flat = out.unary("reshape", row, row.kind.shaped(row.kind.size, 1))
        self.asked.append(Asked(flat, (size,), 1))

    # --- promises

    def promise(self) -> None:
        """Write a scatter that promises unique indices for a table, and ask for another one."""
        out, rng = self.out, self.rng
        out.pool = []
        table = Kind((int(rng.integers(1, 4)), int(rng.integers(1, 4))), "f32")

        def draw(rng: np.random.Generator, kind: Kind) -> np.ndarray:
            inside = rng.permutation(table.size)[: kind.shape[0]]
            rows = [divmod(int(i), table.shape[1]) for i in inside]
            beyond = [(table.shape[0] + int(rng.random() < 0.3), 0)] * kind.shape[0]
            return np.array((rows + beyond)[: kind.shape[0]], kind.dtype)

        rows = out.input(Kind((4, 2), "i32"), draw)
        into, put = out.constant(0, table), out.constant(1, Kind((4,), "f32"))
        out.one(
            f'"stablehlo.scatter"({into.name}, {rows.name}, {put.name}) <{{scatter_dimension_numbers '
            "= #stablehlo.scatter<update_window_dims = [], inserted_window_dims = [0, 1], "
            "scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 1>, unique_indices = true}> "
            f"{region('set', Kind((), 'f32'))} : ({table}, {rows.kind}, {put.kind}) -> {table}",
            table,
        )
        dims = tuple(size + int(rng.integers(-1, 2)) for size in table.shape)
        self.asked.append(Asked(rows, dims, 1))

    def _one(self, choices):
        return choices[int(self.rng.integers(len(choices)))]


def write_counts(rng: np.random.Generator, pieces: int) -> tuple[Executed, list[Asked]]:
    """Write pieces that count; and return which index vectors may be distinct."""
    counter = Counter(Writer(rng))
    for i in range(pieces):
        counter.piece()
        for _ in range(1 + i % 2):
            counter.promise()
    return counter.out.executed(), counter.asked
