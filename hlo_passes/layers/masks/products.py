"""Products with a one-hot mask that put tokens into exchanged buffers, or fetch them from there.

    dispatch   sum over tokens of mask[t, e, c] * x[t, m], sent away
    combine    sum over rows of mask[t, e, c] * y[e, c, m], of what came
    gradient   of the mask: sum over m of dy[t, m] * y[e, c, m], of what came, for every token and
               row, and then multiplied with the mask

Each needs one row a token and choice. Where a mask is not zero follows from the comparisons that it
is made of (`one_hot`); for a gradient, from what its readers multiply it with (`only_where`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.blocks import exchanges_of
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.masks.address import Address, Dims, address_of
from hlo_passes.layers.masks.product_dims import Meaning, ProductDims, ProductRole
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.element_moves import DimName, move_of
from hlo_passes.proofs.engine import NotProved
from hlo_passes.proofs.one_hot import OneHot

_MOVES = ("transpose", "reshape", "convert")


@dataclass(frozen=True, slots=True)
class Product:
    """One product, with its dims by name: those of its result are 0, 1, ...

    Attributes:
        place: its place in the block.
        role: what it does.
        side: which operand is the mask, or for a gradient the buffer.
        operands: per operand, the names of its dims.
        tokens: names of the dims that count tokens, in the order of the address.
        rows: names of the dims that count rows, in the order of the address.
        is_one: whether the mask is 1 where a token has a row.
        path: places of the ops between it and the buffer, in program order.
    """

    place: int
    role: ProductRole
    side: int
    operands: tuple[tuple[DimName, ...], tuple[DimName, ...]]
    tokens: tuple[DimName, ...]
    rows: tuple[DimName, ...]
    is_one: bool
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """What fills a buffer that is sent away.

    Attributes:
        exchange: place of the all-to-all.
        product: the dispatch.
        address: where it writes.
        names: per dim of the buffer, its name in the product.
    """

    exchange: int
    product: Product
    address: Address
    names: tuple[DimName, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What reads a buffer that came.

    Attributes:
        exchange: place of the all-to-all.
        buffer: what the readers read, behind the exchange.
        readers: all of them, in program order.
        address: what they read.
        names: per reader and dim of the buffer, its name in the product.
    """

    exchange: int
    buffer: ir.Value
    readers: tuple[Product, ...]
    address: Address
    names: tuple[tuple[DimName, ...], ...]


@dataclass(frozen=True, slots=True)
class RowProducts:
    """All that a block writes and reads by masks.

    Attributes:
        writes, reads: in program order.
        refusals: per exchange that looks like one of them and is none, why.
    """

    writes: tuple[Write, ...] = ()
    reads: tuple[Read, ...] = ()
    refusals: tuple[tuple[int, str], ...] = ()


def find_row_products(body: Body, numbers: Mapping[ir.Value, int]) -> RowProducts:
    """Find the products with masks beside the all-to-alls of a block.

    Args:
        body: the block.
        numbers: its value numbers.
    """
    counting = Counting(body, numbers)
    one_hot = OneHot(counting.constants, counting.ranges)
    finder = _Finder(body, ProductDims(body, one_hot), numbers)
    writes, reads, refusals = [], [], []
    for exchange in exchanges_of(body):
        if len(body.ops[exchange].operands) != 1:
            continue
        for found, look in ((writes, finder.write), (reads, finder.read)):
            try:
                if (one := look(exchange)) is not None:
                    found.append(one)
            except NotProved as reason:
                refusals.append((exchange, str(reason)))
    return RowProducts(tuple(writes), tuple(reads), tuple(refusals))


@dataclass(frozen=True, slots=True)
class _Sketch:
    """What is known of a product before its address is.

    Attributes:
        place, role, side, path: as of a `Product`.
        meant: what its dims count.
        dims: those of them that an address is made for.
        names: per dim of the buffer, its name in the product.
    """

    place: int
    role: ProductRole
    side: int
    meant: Meaning
    dims: Dims
    names: tuple[DimName, ...]
    path: tuple[int, ...]


@dataclass
class _Finder:
    body: Body
    dims: ProductDims
    numbers: Mapping[ir.Value, int]

    # --- what an all-to-all sends

    def write(self, exchange: int) -> Write | None:
        """Return the dispatch before an all-to-all; None if there is no product of that form."""
        path: list[int] = []
        value = self.body.ops[exchange].operands[0]
        while (kind := self.body.made_by(value)[1]) in _MOVES:
            path.append(self.body.made_by(value)[0])
            value = self.body.ops[path[-1]].operands[0]
        if kind != "dot_general":
            return None
        place = self.body.made_by(value)[0]
        path.reverse()
        for side in (0, 1):
            meant = self.dims.of_mask(place, side, "dispatch")
            if meant is None:
                continue
            for made in (place, *path):
                if self.body.only_user(self.body.ops[made].results[0]) < 0:
                    raise NotProved(f"what {self.body.where(place)} writes is read by others too")
            names, moves = self._behind(tuple(range(len(shape_of(value)))), path)
            one = self._addressed(self._sketch(place, "dispatch", side, meant, names, moves))
            if one is None:
                raise NotProved(self._differ(place))
            return Write(exchange, *one, names)
        return None

    def _behind(
        self, names: tuple[DimName, ...], path: Sequence[int]
    ) -> tuple[tuple[DimName, ...], tuple[int, ...]]:
        """Follow dims up to the last op of a path that turns them."""
        turns = [i for i, p in enumerate(path) if self.body.kind(p) == "transpose"]
        moves = tuple(path[: turns[-1] + 1]) if turns else ()
        for place in moves:
            followed = self.dims.moved(self.body.ops[place], names)
            if followed is None:
                raise NotProved(f"{self.body.where(place)} puts dims of the buffer together")
            names = followed
        return names, moves

    # --- what an all-to-all brings

    def read(self, exchange: int) -> Read | None:
        """Return the readers of what an all-to-all brings; None if none of them is a product."""
        buffer = self.body.ops[exchange].results[0]
        while (user := self.body.only_user(buffer)) >= 0 and self.body.kind(user) in (
            "reshape", "convert"
        ):  # fmt: skip
            buffer = self.body.ops[user].results[0]
        found, strange = [], []
        for path, place, side in self._leaves(buffer, ()):
            where = self.body.where(place)
            try:
                sketch = self._reader(buffer, path, place, side)
            except NotProved as reason:
                strange.append(f"{where} reads what came: {reason}")
                continue
            # A product with a mask that has no address is refused, whatever else reads the buffer.
            one = self._addressed(sketch)
            if one is None:
                strange.append(f"{where} reads what came: {self._differ(place)}")
            else:
                found.append((*one, sketch.names))
        if not found:
            return None
        if strange:
            raise NotProved(strange[0])
        return self._read_of(exchange, buffer, found)

    def _read_of(
        self,
        exchange: int,
        buffer: ir.Value,
        found: list[tuple[Product, Address, tuple[DimName, ...]]],
    ) -> Read:
        """Put the readers of a buffer together, if they all read the same rows."""
        found.sort(key=lambda reader: reader[0].place)
        readers, addresses, names = zip(*found, strict=True)
        places = {tuple(n in r.rows for n in ns) for r, ns in zip(readers, names, strict=True)}
        if len({address.key(self.numbers) for address in addresses}) != 1 or len(places) != 1:
            raise NotProved(f"{self.body.where(readers[-1].place)} reads other rows than "
                             f"{self.body.where(readers[0].place)}")  # fmt: skip
        return Read(exchange, buffer, readers, self._made_first(readers, addresses), names)

    def _made_first(self, readers: Sequence[Product], addresses: Sequence[Address]) -> Address:
        """Return the address whose indices are there before the first reader."""
        for address in addresses:
            indices = [c.index for c in address.columns if c.index is not None]
            if all(self.body.maker.get(index, -1) < readers[0].place for index in indices):
                return address
        raise NotProved("rows are read before it is known which")

    def _leaves(
        self, value: ir.Value, path: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Yield (ops on the way, reader, operand) of everything that reads a value."""
        for user in self.body.users.get(value, ()):
            op, kind = self.body.ops[user], self.body.kind(user)
            if kind == "convert" or (kind in _MOVES and move_of(op, op.results[0]) is not None):
                yield from self._leaves(op.results[0], (*path, user))
                continue
            sides = [i for i, operand in enumerate(op.operands) if operand == value]
            yield path, user, sides[0] if len(sides) == 1 else -1

    def _reader(self, buffer: ir.Value, path: tuple[int, ...], place: int, side: int) -> _Sketch:
        """Return what is known of a reader before its rows are."""
        if self.body.kind(place) != "dot_general" or side < 0:
            raise NotProved("it is no product with a mask")
        rank = len(shape_of(buffer))
        at: tuple[DimName, ...] = tuple(range(rank))
        for step in path:
            followed = self.dims.moved(self.body.ops[step], at)
            assert followed is not None
            at = followed
        seen = dict(zip(at, self.dims.names(place)[side], strict=True))
        names = tuple(seen[d] if d in seen else self.dims.one_hot.fresh() for d in range(rank))
        meant = self.dims.of_mask(place, 1 - side, "combine")
        role: ProductRole = "gradient" if meant is None else "combine"
        mine = side if meant is None else 1 - side
        if meant is None:
            meant = self.dims.of_gradient(place, side)
        return self._sketch(place, role, mine, meant, names, path)

    # --- both

    def _sketch(
        self, place: int, role: ProductRole, side: int, meant: Meaning, names: tuple[DimName, ...],
        path: tuple[int, ...],
    ) -> _Sketch:  # fmt: skip
        """Sort out the dims of a product.

        Args:
            place: its place in the block.
            role: what it does.
            side: which operand is its mask, or for a gradient the buffer.
            meant: what its dims count.
            names: of the dims of the buffer.
            path: ops between it and the buffer.
        """
        sizes = meant.dims.sizes
        at = tuple(d for d, name in enumerate(names) if name in meant.dims.rows)
        others = [name for name in names[: at[-1] + 1] if name not in meant.dims.rows]
        if any(sizes.get(name, 1) > 1 for name in others):
            raise NotProved("the dims that count rows do not lead in the buffer")
        dims = Dims(sizes, meant.dims.tokens, tuple(names[d] for d in at))
        return _Sketch(place, role, side, meant, dims, names, path)

    def _addressed(self, one: _Sketch) -> tuple[Product, Address] | None:
        """Return a product and its address; None if its readers need different rows.

        Raises:
            NotProved: if there is no address.
        """
        ranges, dims = self.dims.one_hot.ranges, one.dims
        found = [
            address_of(hots, dims, self.body, self.numbers, ranges) for hots in one.meant.terms
        ]
        if len({address.key(self.numbers) for address, *_ in found}) != 1:
            return None
        address, tokens, is_all = min(found, key=lambda each: each[0].made_at(self.body))
        is_one = one.meant.is_one and is_all
        operands = self.dims.names(one.place)
        rows = dims.rows
        return Product(
            one.place, one.role, one.side, operands, tokens, rows, is_one, one.path
        ), address

    def _differ(self, place: int) -> str:
        return f"readers of {self.body.where(place)} need different rows"
