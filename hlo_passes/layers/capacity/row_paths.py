"""What happens to rows between the all-to-all that brings them and the one that takes them away.

If every op on the way treats every row alone, the rows of one part of the tokens can go all the way
before those of the next part have come. Ops outside that read what is made on the way (weight
gradients, residuals) want it for all rows: cheap ops are run for them once more, on whole values,
and of the others the results are put together row by row.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.cut.rules import dot, reduce, slicing
from hlo_passes.cut.spread import States, spread_cuts
from hlo_passes.cut.states import Cut, OpSplit
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.layers.capacity.exchange_pairs import Pair, pairs_of
from hlo_passes.layers.capacity.row_exports import CHEAP, find_exports
from hlo_passes.layers.capacity.row_layouts import DimFactor, RowLayout, factors_of, layout_of
from hlo_passes.layers.capacity.sites import Site, Sites
from hlo_passes.layers.dropless.layers import DroplessCut
from hlo_passes.proofs.engine import NotProved

_ALLOWED = frozenset({*CHEAP, *dot.RULES, *reduce.RULES, *slicing.RULES})

_READS_PARTS = "they read rows that other experts no longer make as a whole"

_SIGMAS = 4
"""Room of a batch for chance: if every row goes to any expert, an expert gets more than this many
standard deviations above the mean in one of 30,000 batches."""
_ALIGN = 8
"""Matrix products are fast for multiples of this many rows."""


@dataclass(frozen=True, eq=False)
class RowPath:
    """Ops that can run for some rows at a time.

    Attributes:
        put: how the rows come.
        fetch: how they go.
        ops: places of the ops to run for some rows, in program order: all on the way, and cheap
            ones that make what those read.
        dropped: those of them that need not run whole as well.
        imports: values that the ops read rows of, what the put brings aside.
        exports: values that readers outside need whole; zero in rows that nothing came for.
        by_source: how the values are cut by source device.
        by_place: how they are cut by place among the rows of an expert.
        by_expert: how they are cut by local expert; None if there is one.
        on_way: places of the ops between the two all-to-alls.
        experts: experts of one device.
        capacity: rows of one expert from one source.
        tokens: rows that every device sends at most.
    """

    put: Site
    fetch: Site
    ops: tuple[int, ...]
    dropped: frozenset[int]
    imports: tuple[ir.Value, ...]
    exports: tuple[ir.Value, ...]
    by_source: States
    by_place: States
    by_expert: States | None
    on_way: frozenset[int]
    experts: int
    capacity: int
    tokens: int

    @property
    def rows(self) -> int:
        """Rows of one expert from all sources."""
        return self.by_source.k * self.capacity

    def batch_rows(self, tokens: int) -> int:
        """Return the rows of one expert's batch, if every device sends that many in all."""
        mean = tokens / self.experts
        wanted = math.ceil((mean + _SIGMAS * math.sqrt(mean)) / _ALIGN) * _ALIGN
        return min(self.rows, wanted)

    def layout_of(self, value: ir.Value) -> RowLayout:
        """Return how a value on the way keeps its rows.

        Raises:
            NotProved: if its rows do not stand behind each other.
        """
        found = layout_of(self._factors_of(value), self._expert_cut(value))
        if found.count != self.experts * self.rows:
            raise NotProved("a value on the way has not the rows of all experts")
        return found

    def _factors_of(self, value: ir.Value) -> list[DimFactor]:
        source, place = self.by_source.cuts[value], self.by_place.cuts[value]
        return factors_of(shape_of(value), source, self.by_source.k, place, self.capacity)

    def _expert_cut(self, value: ir.Value) -> Cut | None:
        return None if self.by_expert is None else self.by_expert.cuts.get(value)


@dataclass(frozen=True, eq=False)
class CutSites:
    """Exchanges whose rows are sent part by part.

    Attributes:
        puts, fetches: in program order.
        paths: between which of them rows are not waited for.
        dropless: layers whose parts count and send rows of their own.
    """

    puts: tuple[Site, ...] = ()
    fetches: tuple[Site, ...] = ()
    paths: tuple[RowPath, ...] = ()
    dropless: tuple[DroplessCut, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.puts or self.fetches or self.dropless)


@dataclass(frozen=True, eq=False)
class RowPaths:
    """All row paths of a block.

    Attributes:
        paths: in program order.
        refusals: per put that leads to experts which wait for the rows of all parts, why.
    """

    paths: tuple[RowPath, ...]
    refusals: dict[int, str]


def find_row_paths(body: Body, sites: Sites) -> RowPaths:
    """Find the row paths of a block."""
    puts = {site.exchange: site for site in sites.puts}
    fetches = {site.exchange: site for site in sites.fetches}
    paths: list[RowPath] = []
    reasons: dict[int, str] = {}
    for pair in pairs_of(body):
        if pair.first not in puts or pair.second not in fetches:
            continue
        try:
            put, fetch = puts[pair.first], fetches[pair.second]
            _check_same_rows(body, sites, put, fetch)
            path = _PathFinder(body, pair, put, fetch, _nowhere_whole(body, paths)).find()
        except NotProved as reason:
            reasons[pair.first] = str(reason)
        else:
            reasons |= _drop_met(paths, path)
            paths.append(path)
    reasons |= _drop_readers_of_parts(body, paths)
    waits = "experts wait for the rows of all parts"
    return RowPaths(tuple(paths), {at: f"{waits}: {reason}" for at, reason in reasons.items()})


def _drop_met(paths: list[RowPath], last: RowPath) -> dict[int, str]:
    """Drop the paths whose rows the last one meets, and return why, by their exchange.

    So it is where layers are computed anew before their gradient.
    """
    met = [path for path in paths if path.on_way & last.on_way]
    for path in met:
        paths.remove(path)
    return dict.fromkeys((p.put.exchange for p in met), "they meet those of a later exchange")


def _drop_readers_of_parts(body: Body, paths: list[RowPath]) -> dict[int, str]:
    """Drop the paths that read what others only make in parts, and return why."""
    reasons = {}
    for path in tuple(paths):
        others = [other for other in paths if other is not path]
        if not _nowhere_whole(body, others).isdisjoint(path.imports):
            paths.remove(path)
            reasons[path.put.exchange] = _READS_PARTS
    return reasons


def _nowhere_whole(body: Body, paths: Sequence[RowPath]) -> frozenset[ir.Value]:
    """Return the values that are nowhere whole once those paths run part by part."""
    made = {v for path in paths for place in path.dropped for v in body.ops[place].results}
    return frozenset(made.difference(*(path.exports for path in paths)))


def _check_same_rows(body: Body, sites: Sites, put: Site, fetch: Site) -> None:
    there, back = (_connected(body.ops[site.exchange]) for site in (put, fetch))
    if there != back:
        raise NotProved("answers go to other devices than rows came from, or in another order")
    indices = [sites.numbers[body.ops[site.access].operands[1]] for site in (put, fetch)]
    if indices[0] != indices[1] or put.rows != fetch.rows:
        raise NotProved("other rows are fetched than were put")
    for site in (put, fetch):
        if not site.distinct:
            raise NotProved(f"two tokens may share a row{site.doubt}; declare unique_indices if "
                            "they never do")  # fmt: skip


def _connected(exchange: ir.Operation) -> tuple[str, ...]:
    """Return which devices an exchange connects, in their order, and how they are named."""
    channel = exchange.attributes.get("channel_handle")
    kind = "" if channel is None else str(stablehlo.ChannelHandle(channel).channel_type)
    return str(exchange.attributes["replica_groups"]), kind


@dataclass
class _PathFinder:
    """Tries to make a way of the ops between two all-to-alls."""

    body: Body
    pair: Pair
    put: Site
    fetch: Site
    in_parts: frozenset[ir.Value]

    @cached_property
    def came(self) -> ir.Value:
        """What the put brings."""
        return self.body.ops[self.pair.first].results[0]

    @cached_property
    def inside(self) -> frozenset[int]:
        """The ops between the two all-to-alls."""
        return frozenset(self.pair.ops) - {self.pair.first, self.pair.second}

    def find(self) -> RowPath:
        for place in sorted(self.inside):
            if self.body.kind(place) not in _ALLOWED:
                raise NotProved(f"{self.body.where(place)} is on the way")
        exchange = self.body.ops[self.pair.first]
        peers, concat = integer(exchange, "split_count"), integer(exchange, "concat_dimension")
        by_source = self._spread(Cut(concat), peers)
        reason = None
        for cut, capacity in self._places(peers, concat):
            try:
                by_expert = self._by_expert(Cut(concat), peers, cut, capacity)
                return self._path(by_source, self._spread(cut, capacity), by_expert, capacity)
            except NotProved as why:
                reason = reason or why
        raise reason or NotProved("no dim of the buffer is that of the rows of one expert")

    def _places(self, peers: int, concat: int) -> Iterator[tuple[Cut, int]]:
        """Yield dims that may hold the rows of one expert from one source, and their number."""
        dims, count = shape_of(self.came), self.put.rows.count
        leads = [d for d in range(len(dims)) if math.prod(dims[: d + 1]) == count]
        if not leads:
            return
        dim = leads[0]
        outer = peers if dim == concat else 1
        for experts in sorted({1, *self._batches()}):
            if dims[dim] % (outer * experts) == 0 and dims[dim] > outer * experts:
                yield Cut(dim, outer * experts), dims[dim] // (outer * experts)

    def _batches(self) -> Iterator[int]:
        for place in self.inside:
            op = self.body.ops[place]
            if self.body.kind(place) == "dot_general":
                numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
                shape = shape_of(op.operands[0])
                yield math.prod(shape[d] for d in numbers.lhs_batching_dimensions)

    def _spread(self, cut: Cut, k: int) -> States:
        fixed = frozenset(
            i
            for i in range(len(self.body.ops))
            if i not in self.inside and self.body.kind(i) not in CHEAP
        )
        if not cut.fits(shape_of(self.came), k):
            raise NotProved("the buffer does not hold the same rows for every source")
        return spread_cuts(self.body, [(self.came, cut)], k, fixed)

    def _by_expert(self, source: Cut, peers: int, place: Cut, capacity: int) -> States | None:
        """Return how values are cut by local expert; None if there is one."""
        experts = self.put.rows.block // capacity
        if experts == 1:
            return None
        factors = factors_of(shape_of(self.came), source, peers, place, capacity)
        end = [one.tag for one in factors].index("place")
        found = [one for one in factors[:end] if one.tag == "expert" and one.size > 1]
        if len(found) != 1 or found[0].size != experts:
            raise NotProved("rows of one expert do not stand behind each other")
        return self._spread(found[0].cut, experts)

    def _path(
        self, by_source: States, by_place: States, by_expert: States | None, capacity: int
    ) -> RowPath:
        rows = self.put.rows
        tokens = rows.tokens(shape_of(self.body.ops[self.put.access].operands[1]))
        ops, imports = self._closure(by_source, by_place, by_expert)
        exports = find_exports(self.body, self.came, self.inside, self.pair.second)
        path = RowPath(
            self.put, self.fetch, ops, self.inside - exports.kept, imports, exports.values,
            by_source, by_place, by_expert, self.inside, rows.block // capacity, capacity, tokens,
        )  # fmt: skip
        second = self.body.ops[self.pair.second]
        answer = second.operands[0]
        if by_source.cuts[answer] != Cut(integer(second, "split_dimension")):
            raise NotProved("answers are not sent back where rows came from")
        for value in (self.came, answer, *imports, *exports.values):
            path.layout_of(value)
        return path

    def _closure(
        self, by_source: States, by_place: States, by_expert: States | None
    ) -> tuple[tuple[int, ...], tuple[ir.Value, ...]]:
        """Return the ops to run for some rows, and the values that they read rows of."""
        ops, imports = set(self.inside), {}
        todo = sorted(self.inside)
        repeatable = self._repeatable(by_source.splits.keys() & by_place.splits.keys())
        while todo:
            place = todo.pop()
            self._check(place, by_source, by_place, by_expert)
            for value, state in zip(
                self.body.ops[place].operands, by_place.splits[place].operands, strict=True
            ):
                maker = self.body.maker.get(value)
                if state is None or value == self.came or maker in ops:
                    continue
                if maker in repeatable:
                    ops.add(maker)
                    todo.append(maker)
                elif value in self.in_parts:
                    raise NotProved(_READS_PARTS)
                else:
                    imports[value] = None
        return tuple(sorted(ops)), tuple(imports)

    def _repeatable(self, places: Collection[int]) -> set[int]:
        """Return those of some ops that are cheap, and made of what is there or can be made."""
        repeatable: set[int] = set()
        for place in sorted(places):
            if self.body.kind(place) in CHEAP and all(
                value not in self.in_parts or self.body.maker[value] in repeatable
                for value in self.body.ops[place].operands
            ):
                repeatable.add(place)
        return repeatable

    def _why_not(self, place: int, states: States) -> str:
        """Say which op keeps rows from being cut: this one, or the first on the way."""
        if place not in states.refusals:
            sums = {i for i, split in states.splits.items() if not _is_of_rows(split)}
            place = min(self.inside.intersection(sums | states.refusals.keys()), default=place)
        if place in states.splits:
            return f"{self.body.where(place)} puts rows together"
        return f"{self.body.where(place)}: {states.refusals.get(place, 'it is not of rows')}"

    def _check(
        self, place: int, by_source: States, by_place: States, by_expert: States | None
    ) -> None:
        """Check that an op treats every row alone, and agrees with its neighbours on what that is.

        Raises:
            NotProved: if it does not.
        """
        where, op = self.body.where(place), self.body.ops[place]
        for states in filter(None, (by_source, by_place, by_expert)):
            split = states.splits.get(place)
            if split is None:
                raise NotProved(self._why_not(place, states))
            if not _is_of_rows(split):
                raise NotProved(f"{where} puts rows together")
            for value, state in zip(op.operands, split.operands, strict=True):
                if state is not None and states.cuts.get(value) != state:
                    raise NotProved(f"{where} reads rows in another order")
        both = [s.splits[place].operands for s in (by_source, by_place)]
        if [s is None for s in both[0]] != [s is None for s in both[1]]:
            raise NotProved(f"{where} reads something that is the same for some rows only")


def _is_of_rows(split: OpSplit) -> bool:
    """Whether an op makes rows, each of which follows from its own alone."""
    return not split.carries and all(isinstance(state, Cut) for state in split.results)
