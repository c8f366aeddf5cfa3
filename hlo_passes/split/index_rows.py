"""Writes and reads the rows of tokens by index, where a step multiplies with one-hot masks.

Before and after
    dot(mask[t, e, c], x[t, m]) -> all_to_all    scatter(zeros, (expert, slot), weight * x)
    all_to_all -> dot(mask[t, e, c], y[e, c, m])    rows = gather(y, (expert, slot)) or 0;
                                                    sum over choices of weight * rows
    all_to_all -> dot(dy[t, m], y[e, c, m])    where (e, c) is a row of t: sum over m of dy * rows

The weights are read out of the mask itself. What remains of a mask is made as it was.

Numerics
    Sums that have one term other than zero stay what they are. For a mask's gradient, and for
    tokens of several choices, terms are added up in 32 bits in another order. A number that is not
    finite makes all rows NaN in the product with zeros, and here only those that it belongs to.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import RULES
from hlo_passes.ir.collectives import KINDS
from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.edit import erase_unused
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.layers.masks.address import Address
from hlo_passes.layers.masks.products import Product, Read, RowProducts, Write
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.element_moves import DimName
from hlo_passes.proofs.one_hot import OneHot
from hlo_passes.split.arrange import arrange
from hlo_passes.split.columns import columns_of

_PURE = frozenset(f"stablehlo.{kind}" for kind in RULES) - {f"stablehlo.{kind}" for kind in KINDS}


def index_rows(
    body: Body, numbers: Mapping[ir.Value, int], products: RowProducts, exchanges: Collection[int]
) -> None:
    """Replace products beside some exchanges. The body's handles are gone afterwards.

    Args:
        body: the block.
        numbers: its value numbers.
        products: what `find_row_products` found in it.
        exchanges: places of the all-to-alls beside which they are replaced.
    """
    writes = [write for write in products.writes if write.exchange in exchanges]
    reads = [read for read in products.reads if read.exchange in exchanges]
    first: dict[int, Write | Read] = {write.product.place: write for write in writes}
    first |= {read.readers[0].place: read for read in reads}
    rows = _RowBuilder(body, numbers)
    replaced: list[ir.Operation] = []
    for place in sorted(first):
        found = first[place]
        with ir.InsertionPoint(body.ops[place]), body.ops[place].location:
            if isinstance(found, Write):
                replaced.append(rows.write(found))
                continue
            rows.fetch(found)
        for reader in found.readers:
            op = body.ops[reader.place]
            with ir.InsertionPoint(op), op.location:
                rows.read(found, reader)
            replaced.append(op)
    erase_unused(replaced, _PURE)


@dataclass
class _RowBuilder:
    """Builds what replaces products, at the insertion point; in program order.

    Attributes:
        body: the block.
        numbers: its value numbers.
    """

    body: Body
    numbers: Mapping[ir.Value, int]
    _columns: dict[object, list[ir.Value]] = field(default_factory=dict)
    _rows: dict[int, ir.Value] = field(default_factory=dict)

    @cached_property
    def _one_hot(self) -> OneHot:
        counting = Counting(self.body, self.numbers)
        return OneHot(counting.constants, counting.ranges)

    def write(self, write: Write) -> ir.Operation:
        """Build a dispatch, and return the last of the ops that it replaces."""
        product, address = write.product, write.address
        op, sizes = self.body.ops[product.place], self._sizes(product)
        names = product.operands[1 - product.side]
        width = [n for n in write.names if n in names and n not in product.tokens]
        width = [n for n in width if sizes[n] > 1]
        element = _widest(op)
        rows = build.convert(self._rows_of(product, address, width), element)
        if not product.is_one:
            weight = build.convert(self._weights(product, address), element)
            rows = build.binary("multiply", rows, build.broadcast(weight, rows.type, [0, 1]))
        rows = build.convert(rows, build.tensor(op.results[0]).element_type)
        buffer = build.scatter_to(address.rows, self._indices(address), rows)
        for place in product.path:
            op = self.body.ops[place]
            buffer = build.convert(buffer, build.tensor(op.results[0]).element_type)
        made = op.results[0]
        made.replace_all_uses_with(build.reshape(buffer, shape_of(made)))
        return op

    def fetch(self, read: Read) -> None:
        """Build the rows of all choices, `[tokens, choices, ...]`, zero where there is none."""
        names, rows = read.names[0], read.readers[0].rows
        dims = [size for size, name in zip(shape_of(read.buffer), names, strict=True)
                if size > 1 or name in rows]  # fmt: skip
        buffer = build.reshape(read.buffer, dims)
        self._rows[read.exchange] = build.gather_or_zero(buffer, self._indices(read.address))

    def read(self, read: Read, reader: Product) -> None:
        """Build one reader of rows."""
        op, rows, sizes = (
            self.body.ops[reader.place],
            self._rows[read.exchange],
            self._sizes(reader),
        )
        for place in reader.path:
            rows = build.convert(rows, build.tensor(self.body.ops[place].results[0]).element_type)
        rows = build.convert(rows, _exact(_widest(op)))
        names = read.names[read.readers.index(reader)]
        width = [n for n in names if n not in reader.rows and sizes.get(n, 1) > 1]
        if reader.role == "combine":
            made = self._combined(reader, read.address, rows, width)
        else:
            made = self._gradient(reader, read.address, rows, width)
        result = op.results[0]
        made = build.convert(made, build.tensor(result).element_type)
        result.replace_all_uses_with(build.reshape(made, shape_of(result)))

    def _combined(
        self, reader: Product, address: Address, rows: ir.Value, width: Sequence[DimName]
    ) -> ir.Value:
        """Add up the weighted rows of a token."""
        if not reader.is_one:
            element = build.tensor(rows).element_type
            weight = build.convert(self._weights(reader, address), element)
            rows = build.binary("multiply", rows, build.broadcast(weight, rows.type, [0, 1]))
        sizes, order = self._sizes(reader), [*reader.tokens, *width]
        total = build.reshape(build.total(rows, 1), [sizes[name] for name in order])
        return arrange(total, order, self._large(reader), sizes)

    def _gradient(
        self, reader: Product, address: Address, rows: ir.Value, width: Sequence[DimName]
    ) -> ir.Value:
        """Multiply every token with its rows, and write that where the mask is not zero."""
        sizes, order = self._sizes(reader), self._large(reader)
        element = build.tensor(rows).element_type
        other = build.convert(self._rows_of(reader, address, width), element)
        products = build.binary("multiply", rows, other)
        for dim in range(len(width) + 1, 1, -1):
            products = build.total(products, dim)
        columns = dict(zip(reader.rows, self._columns_of(address), strict=True))

        def spread(table: ir.Value, choice: int) -> ir.Value:
            one = build.slice_of(table, 1, choice, choice + 1)
            one = build.reshape(one, [sizes[name] for name in reader.tokens])
            return arrange(one, reader.tokens, order, sizes)

        kind = build.type_like(rows.type, [sizes[name] for name in order])
        made = build.splat(kind, 0)
        for choice in range(address.shape[1]):
            is_row = build.splat(build.type_like(ir.Type.parse("tensor<i1>"), kind.shape), 1)
            for label, column in columns.items():
                if label not in reader.tokens:
                    places = build.int_type(kind.shape)
                    places = (build.iota(kind.shape, order.index(label)) if label in order
                              else build.splat(places, 0))  # fmt: skip
                    here = build.compare(spread(column, choice), "EQ", places)
                    is_row = build.binary("and", is_row, here)
            made = build.select(is_row, spread(products, choice), made)
        return made

    def _rows_of(self, product: Product, address: Address, width: Sequence[DimName]) -> ir.Value:
        """Return what the tokens have in the other operand, once a choice `[tokens, choices, ...]`.

        Args:
            product: the product.
            address: where its rows are.
            width: the dims of a row.
        """
        op, sizes, side = self.body.ops[product.place], self._sizes(product), 1 - product.side
        order, dims = [*product.tokens, *width], [sizes[name] for name in width]
        value = arrange(op.operands[side], product.operands[side], order, sizes)
        value = build.reshape(value, (address.shape[0], *dims))
        kind = build.type_like(value.type, (*address.shape, *dims))
        return build.broadcast(value, kind, [0, *range(2, len(dims) + 2)])

    def _weights(self, product: Product, address: Address) -> ir.Value:
        """Read the mask for every choice, `[tokens, choices]`; anything where it has no row."""
        op, sizes, side = self.body.ops[product.place], self._sizes(product), product.side
        own = [label for label in product.rows if label not in product.tokens]
        order = [*product.tokens, *own]
        mask = arrange(op.operands[side], product.operands[side], order, sizes)
        mask = build.reshape(mask, (address.shape[0], *(sizes[label] for label in own)))
        columns = zip(product.rows, self._columns_of(address), strict=True)
        return build.gather_in_batches(mask, _stacked([c for label, c in columns if label in own]))

    def _indices(self, address: Address) -> ir.Value:
        return _stacked(self._columns_of(address))

    def _columns_of(self, address: Address) -> list[ir.Value]:
        key = address.key(self.numbers)
        if key not in self._columns:
            self._columns[key] = columns_of(self.body, self.numbers, self._one_hot, address)
        return self._columns[key]

    def _sizes(self, product: Product) -> dict[DimName, int]:
        operands = self.body.ops[product.place].operands
        return {
            name: size
            for value, names in zip(operands, product.operands, strict=True)
            for name, size in zip(names, shape_of(value), strict=True)
        }

    def _large(self, product: Product) -> list[DimName]:
        """Return the dims of a product's result that are larger than 1."""
        shape = shape_of(self.body.ops[product.place].results[0])
        return [d for d, size in enumerate(shape) if size > 1]


def _stacked(columns: Sequence[ir.Value]) -> ir.Value:
    """Make index vectors `[tokens, choices, columns]`."""
    return build.concatenate([build.reshape(c, (*shape_of(c), 1)) for c in columns], 2)


def _widest(op: ir.Operation) -> ir.Type:
    """Return the widest element type of a product."""
    kinds = [build.tensor(value).element_type for value in (*op.results, *op.operands)]
    return max(kinds, key=lambda kind: kind.width)


def _exact(kind: ir.Type) -> ir.Type:
    """Return the type in which products of a type are added up."""
    return ir.F32Type.get() if kind.width < 32 else kind
