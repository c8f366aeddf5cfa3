"""Builds a `Graph` from a block of StableHLO."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from jax.extend.mlir.dialects import chlo, stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.ir.keys import KeyMaker
from hlo_passes.ir.stablehlo.exchanges import StablehloExchangeReader, kind_of, start_behind, string
from hlo_passes.ir.stablehlo.meshes import Meshes, meshes_of, spread_of
from hlo_passes.ir.stablehlo.read import tensor_type
from hlo_passes.ir.traits import BY_RANK, EFFECTS
from hlo_passes.ir.trips import counter_of
from hlo_passes.ir.types import TensorType
from hlo_passes.ir.work import (
    Work,
    convolution_flops,
    dot_flops,
    grouped_product,
    pointwise_flops,
    traffic,
)

_RUNS_REGIONS = {
    "while": (1,),
    "case": None,
    "if": None,
    "manual_computation": None,
    "named_computation": None,
}
"""Kinds whose regions are programs of their own, and which of them count; None is all."""

_TERMINATORS = ("return", "func.return")


def graph_of(block: ir.Block, module: ir.Module, devices: int) -> Graph:
    """Snapshot a block in program order, with the blocks of loops and branches inside it.

    Args:
        block: whose ops the graph holds.
        module: for meshes that exchanges name.
        devices: how many devices run the program.
    """
    with module.context:
        scope, meshes = _scope_of(block.owner), meshes_of(module)
        reader = StablehloExchangeReader.of_module(module, meshes)
        return _Snapshot(meshes, reader, devices).graph(block, "main", scope, {})


@dataclass
class _Snapshot:
    meshes: Meshes
    exchanges: StablehloExchangeReader
    devices: int
    types: dict[ir.Type, TensorType | None] = field(default_factory=dict)

    def graph(self, block: ir.Block, name: str, scope: str, around: dict[ir.Value, int]) -> Graph:
        """Snapshot a block; `around` has the values of the graph that it is in."""
        table = _Values(self._leaves)
        for argument in block.arguments:
            table.of(argument)
        keys = KeyMaker()
        ops = []
        for i, view in enumerate(block.operations):
            op = view.operation
            operands = [*map(table.of, op.operands)]
            if len(op.regions):
                operands += map(table.of, captured(op))
            results = tuple(table.add(result, i) for result in op.results)
            ops.append(self._op(i, op, tuple(operands), results, keys, scope, name, table))
        returns = ops[-1].operands if ops and ops[-1].kind == "return" else ()
        given = len(block.arguments)
        shared = tuple(
            (here, around[value]) for value, here in table.known.items()
            if here >= given and table.values[here].op < 0 and value in around
        )  # fmt: skip
        return Graph(
            name, tuple(ops), tuple(table.values), returns, _ordered(ops), self.devices,
            spread=spread_of(block, self.meshes), captured=shared,
        )  # fmt: skip

    def _op(
        self,
        i: int,
        op: ir.Operation,
        operands: tuple[int, ...],
        results: tuple[int, ...],
        keys: KeyMaker,
        scope: str,
        where: str,
        table: "_Values",
    ) -> Op:
        kind, half = kind_of(op)
        path, source = place_of(op.location)
        full = "/".join(filter(None, (scope, path)))
        inside = f"{where}/{kind}.{i}"
        inner = tuple(self._inner(op, kind, full, inside, table.known))
        collective = self.exchanges.of(op)
        read, made = table.leaves(operands[: len(op.operands)]), table.leaves(results)
        is_priced = not (inner or half or collective)
        work = _work(op, kind, read, made) if is_priced else Work(0.0, 0.0)
        is_effect, is_loop = _has_side_effect(op, kind), kind == "while"
        return Op(
            id=i,
            kind=kind,
            name=f"%{i}",
            key=keys.make(full, kind.removesuffix("_start")),
            operands=operands,
            results=results,
            scope=full,
            source=source,
            flops=work.flops,
            bytes=work.bytes,
            matmul=work.matmul,
            dtype=work.dtype,
            collective=collective,
            start=table.maker_of(start_behind(op.operands[0])) if half == "done" else -1,
            side_effect=is_effect,
            trips=_trips(op) if is_loop else 1,
            inner=inner,
            target=string(op, "call_target_name"),
            by_rank=kind in BY_RANK or (kind == "custom_call" and is_effect),
            condition=self.graph(op.regions[0].blocks[0], f"{inside}/0", full, table.known)
            if is_loop else None,
        )  # fmt: skip

    def _inner(
        self, op: ir.Operation, kind: str, scope: str, name: str, known: dict[ir.Value, int]
    ) -> Iterator[Graph]:
        if kind not in _RUNS_REGIONS:
            return
        chosen = _RUNS_REGIONS[kind] or range(len(op.regions))
        for i in chosen:
            yield self.graph(op.regions[i].blocks[0], f"{name}/{i}", scope, known)

    def _leaves(self, value: ir.Value) -> tuple[TensorType, ...]:
        kind = value.type
        if kind not in self.types:
            self.types[kind] = tensor_type(kind)
        found = self.types[kind]
        return (found,) if found else ()


@dataclass
class _Values:
    """The values of a graph, numbered as they come up.

    Attributes:
        read: reads the tensors of a value.
        values: all so far.
        known: the id of each.
    """

    read: Callable[[ir.Value], tuple[TensorType, ...]]
    values: list[Value] = field(default_factory=list)
    known: dict[ir.Value, int] = field(default_factory=dict)

    def add(self, value: ir.Value, op: int) -> int:
        """Return the id of a value that op `op` makes; -1 where it comes from elsewhere."""
        at = self.known[value] = len(self.values)
        self.values.append(Value(at, op, self.read(value)))
        return at

    def of(self, value: ir.Value) -> int:
        """Return the id of a value that is read."""
        return self.known[value] if value in self.known else self.add(value, -1)

    def leaves(self, ids: tuple[int, ...]) -> tuple[TensorType, ...]:
        """Return the tensors of values."""
        return tuple(t for i in ids for t in self.values[i].leaves)

    def maker_of(self, value: ir.Value) -> int:
        """Return the op that makes a value."""
        return self.values[self.known[value]].op


def _ordered(ops: list[Op]) -> tuple[tuple[int, int], ...]:
    """Return which ops keep their order though no value says so: effects, and the last op."""
    effects = [op.id for op in ops if op.side_effect]
    return (*pairwise(effects), *((op.id, ops[-1].id) for op in ops[:-1]))


def _work(
    op: ir.Operation, kind: str, operands: tuple[TensorType, ...], results: tuple[TensorType, ...]
) -> Work:
    if kind == "dot_general":
        moved = traffic(kind, operands, results)
        dims: tuple[int, ...] = (len(operands[0].shape) - 1,)
        if "dot_dimension_numbers" in op.attributes:
            numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
            dims = tuple(numbers.lhs_contracting_dimensions)
        return Work(dot_flops(operands[0], results[0], dims), moved, True, operands[0].dtype)
    if kind == "ragged_dot":
        numbers = chlo.RaggedDotDimensionNumbers(op.attributes["ragged_dot_dimension_numbers"])
        dims = tuple(numbers.lhs_contracting_dimensions)
        flops = dot_flops(operands[0], results[0], dims)
        if numbers.rhs_group_dimensions:
            # XLA (JAX 0.12, CPU and NVIDIA GPU) runs no grouped kernel: it multiplies all rows by
            # the matrix of every group, masked. If each group has a result its shape says so.
            flops *= math.prod(operands[1].shape[d] for d in numbers.rhs_group_dimensions)
        return Work(flops, traffic(kind, operands, results), True, operands[0].dtype)
    if kind == "convolution":
        numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
        flops = convolution_flops(operands[1], results[0], numbers.kernel_output_feature_dimension)
        return Work(flops, traffic(kind, operands, results), True, operands[0].dtype)
    if kind == "custom_call" and (found := grouped_product(operands, results)):
        return Work(found[0], traffic(kind, operands, results), True, found[1].dtype)
    if kind in _TERMINATORS or kind in ("send", "recv"):
        return Work(0.0, 0.0)
    dtype = results[0].dtype if results else "f32"
    return Work(
        pointwise_flops(kind, operands, results), traffic(kind, operands, results), False, dtype
    )


def captured(op: ir.Operation) -> list[ir.Value]:
    """Values from outside that the regions of an op read."""
    inside: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}

    def visit(inner: ir.Operation) -> ir.WalkResult:
        inside.update(inner.results)
        for region in inner.regions:
            for block in region.blocks:
                inside.update(block.arguments)
        if inner != op:
            read.update(dict.fromkeys(inner.operands))
        return ir.WalkResult.ADVANCE

    op.walk(visit, ir.WalkOrder.PRE_ORDER)
    return [value for value in read if value not in inside]


def _has_side_effect(op: ir.Operation, kind: str) -> bool:
    if op.name == "stablehlo.custom_call" and "has_side_effect" in op.attributes:
        return ir.BoolAttr(op.attributes["has_side_effect"]).value
    return kind in EFFECTS


def _trips(loop: ir.Operation) -> int:
    counter = counter_of(loop)
    return counter.trips if counter else 0


def _scope_of(owner: ir.Operation) -> str:
    """Join the scopes of the regions that a block is in."""
    parts = []
    op = owner
    while op is not None and op.name not in ("func.func", "builtin.module"):
        parts.append(place_of(op.location)[0])
        op = op.parent
    return "/".join(filter(None, reversed(parts)))


def place_of(location: ir.Location) -> tuple[str, str]:
    """Return (scope path, `file:line`) of a location."""
    path = ""
    inner = location
    while isinstance(inner, ir.CallSiteLoc):
        inner = inner.callee
    if isinstance(inner, ir.NameLoc):
        path = inner.name_str
    return path, _source(location)


def _source(location: ir.Location) -> str:
    """Find the innermost user line."""
    while True:
        if isinstance(location, ir.CallSiteLoc):
            location = location.callee
        elif isinstance(location, ir.NameLoc):
            location = location.child_loc
        elif isinstance(location, ir.FileLineColLoc):
            return f"{location.filename}:{location.start_line}"
        else:
            return ""
