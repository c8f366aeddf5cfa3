"""The different kernels of a module, each as a small program."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.cost.fusion import fused_work, kernels
from hlo_passes.cost.kernels import kernel_names
from hlo_passes.cost.table import OpTime
from hlo_passes.errors import InputError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.blocks import walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import tensor_type
from hlo_passes.ir.types import TensorType
from hlo_passes.split.program import program_of


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        entry: its entry of a table, time missing.
        program: StableHLO text of a function that runs it alone.
        inputs: types of the function's arguments.
    """

    entry: OpTime
    program: str
    inputs: tuple[TensorType, ...]


def kernels_of(modules: Sequence[Module]) -> dict[str, Kernel]:
    """Return the different kernels of modules and of the loops inside them, by name.

    XLA decides what it fuses by rules of its own; kernels here are as costs take them to be.
    """
    found: dict[str, Kernel] = {}
    for module in modules:
        with module.ir.context, ir.Location.unknown():
            graphs = {graph.name: graph for graph, _ in module.snapshot().walk()}
            for name, block in walk_blocks(module.body):
                if name in graphs:
                    found |= {k.entry.kernel: k for k in _kernels(graphs[name], Body(block), found)}
    return found


def _kernels(graph: Graph, body: Body, known: dict[str, Kernel]) -> Iterator[Kernel]:
    """Yield the kernels of one block that are not known yet."""
    names, work = kernel_names(graph), fused_work(graph)
    for root, ops in kernels(graph).items():
        op = graph.ops[root]
        is_call = op.kind == "custom_call" and not op.matmul
        if names[root] in known or is_call or op.side_effect:
            continue
        types = tuple(str(leaf) for v in op.operands for leaf in graph.values[v].leaves)
        entry = OpTime(
            kind=op.kind, operands=types, dtype=op.dtype, us=0.0, kernel=names[root],
            flops=work[root].flops, bytes=work[root].bytes, matmul=work[root].matmul,
        )  # fmt: skip
        try:
            yield _alone(entry, ops, root, graph, body)
        except InputError:
            continue  # a scan that no CPU program knows stays with its formula


def _alone(entry: OpTime, ops: Sequence[int], root: int, graph: Graph, body: Body) -> Kernel:
    """Make a program of some ops; constants that they read come along."""
    inside = set(ops)
    reads = dict.fromkeys(value for place in ops for value in body.reads[place])
    along, inputs, types = [], [], []
    for value in reads:
        place, kind = body.made_by(value)
        if place in inside:
            continue
        if kind in ("constant", "iota"):
            along.append(place)
        else:
            inputs.append(value)
            types.append(_type(value))
    outputs = list(body.ops[root].results)
    program = program_of(body, sorted({*along, *ops}), inputs, outputs)
    return Kernel(entry, program, tuple(types))


def _type(value: ir.Value) -> TensorType:
    kind = tensor_type(value.type)
    if kind is None:
        raise InputError(str(value.type), "is no tensor", "leave it to its formula")
    return kind
