"""Mends StableHLO that was converted from HLO, until it means the same and passes can read it."""

from collections.abc import Sequence

import numpy as np
from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.ir.collectives import KINDS
from hlo_passes.ir.device_groups import parse_hlo_groups
from hlo_passes.ir.hlo.text import HloText, attributes_of
from hlo_passes.ir.stablehlo.read import integer, ints, tensor_type
from hlo_passes.ir.types import TensorType

_LAYOUTS = ("result_layout", "xla_shape", "operand_layouts", "result_layouts")
_KNOWN = ("TopK",)
"""Calls whose meaning is known."""

_UNSAFE = {
    "stablehlo.custom_call": "a call into foreign code",
    "stablehlo.rng": "random numbers from a device's own state",
    "stablehlo.infeed": "an infeed",
    "stablehlo.outfeed": "an outfeed",
    "stablehlo.send": "a send",
    "stablehlo.recv": "a receive",
}


def mend(module: ir.Module, program: HloText) -> None:
    """Mend a converted module in place; its context is active.

    Args:
        module: what `hlo_to_stablehlo` made, calls inlined.
        program: the HLO that it was made from.

    Raises:
        ValueError: if it holds what is not known to survive.
    """
    ops = _ops_of(module)
    groups = _groups_of(program)
    for op in ops:
        if op.name in _UNSAFE:
            target = str(op.attributes["call_target_name"]) if "custom_call" in op.name else ""
            if target.strip('"') in _KNOWN:
                continue
            raise ValueError(f"{_UNSAFE[op.name]} {target}".strip())
        for name in _LAYOUTS:
            if name in op.attributes:
                del op.attributes[name]
        if op.name.removeprefix("stablehlo.") in KINDS:
            _mend_exchange(op, groups)
    for op in [op for op in _ops_of(module) if op.name == "mhlo.copy"]:
        op.results[0].replace_all_uses_with(op.operands[0])
        op.erase()


def spell(module: ir.Module) -> None:
    """Write what JAX never writes as JAX does, in place; the module's context is active.

    Raises:
        ValueError: if there is more of it than is known.
    """
    for op in _ops_of(module):
        if op.name == "mhlo.scan":
            _spell_scan(op)
        elif op.name in ("mhlo.topk", "stablehlo.custom_call"):
            _spell_top_k(op)
        elif op.name == "stablehlo.dot":
            _spell_dot(op)
        elif op.name in ("stablehlo.broadcast_in_dim", "stablehlo.reshape"):
            _tidy(op)
    left = {op.name for op in _ops_of(module) if op.name.startswith("mhlo.")}
    if left:
        raise ValueError(f"ops that StableHLO lacks: {', '.join(sorted(left))}")


def _ops_of(module: ir.Module) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        found.append(op)
        return ir.WalkResult.ADVANCE

    for view in module.body.operations:
        view.operation.walk(visit)
    return found


type _Key = tuple[str, int, tuple[TensorType | None, ...]]
"""Kind, channel and results of an exchange: what the conversion does keep."""


def _groups_of(program: HloText) -> dict[_Key, list[tuple[tuple[int, ...], ...]]]:
    """Read who takes part in every exchange, from HLO."""
    found: dict[_Key, list[tuple[tuple[int, ...], ...]]] = {}
    for computation in program.computations.values():
        for instruction in computation.instructions:
            kind = instruction.opcode.replace("-", "_")
            if kind not in KINDS:
                continue
            attributes = dict(attributes_of(instruction))
            if text := attributes.get("replica_groups"):
                key = (kind, int(attributes.get("channel_id", -1)), instruction.leaves)
                found.setdefault(key, []).append(parse_hlo_groups(text))
    return found


def _mend_exchange(op: ir.Operation, groups: dict[_Key, list[tuple[tuple[int, ...], ...]]]) -> None:
    """Write the groups of an exchange as HLO has them, device by device."""
    if "replica_groups" not in op.attributes:
        return
    channel = -1
    if "channel_handle" in op.attributes:
        channel = stablehlo.ChannelHandle(op.attributes["channel_handle"]).handle
    leaves = tuple(tensor_type(value.type) for value in op.results)
    key = (op.name.removeprefix("stablehlo."), channel, leaves)
    known = list(dict.fromkeys(groups.get(key, ())))
    if len(known) != 1:
        raise ValueError(f"who takes part in {key[0]} cannot be told from its shape and channel")
    op.attributes["replica_groups"] = _table(known[0])


def _table(rows: Sequence[Sequence[int]]) -> ir.Attribute:
    return ir.DenseElementsAttr.get(np.ascontiguousarray(rows, dtype=np.int64))


def _tidy(op: ir.Operation) -> None:
    """Drop a broadcast that repeats nothing, and reshape constants of integers here and now."""
    (source,), (made,) = op.operands, op.results
    is_reshape = op.name == "stablehlo.reshape"
    order = tuple(range(len(ir.RankedTensorType(made.type).shape)))
    if source.type == made.type and (is_reshape or ints(op, "broadcast_dimensions") == order):
        made.replace_all_uses_with(source)
        op.erase()
        return
    owner = source.owner
    if not is_reshape or isinstance(owner, ir.Block) or owner.name != "stablehlo.constant":
        return
    value = owner.attributes["value"]
    if isinstance(value, ir.DenseIntElementsAttr) and not value.is_splat:
        kind = ir.RankedTensorType(made.type)
        if kind.element_type == ir.IntegerType.get_signless(32):
            numbers = np.array([int(x) for x in value], np.int32).reshape(kind.shape)
            new = ir.Operation.create(
                "stablehlo.constant",
                results=[kind],
                attributes={"value": ir.DenseElementsAttr.get(numbers)},
                ip=ir.InsertionPoint(op),
                loc=op.location,
            )
            _replace(op, new)


def _spell_dot(op: ir.Operation) -> None:
    """Write a product of matrices or vectors as the general one that it is."""
    rank = len(ir.RankedTensorType(op.operands[0].type).shape)
    attributes = {name: op.attributes[name] for name in op.attributes}
    attributes["dot_dimension_numbers"] = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=[],
        rhs_batching_dimensions=[],
        lhs_contracting_dimensions=[rank - 1],
        rhs_contracting_dimensions=[0],
    )
    new = ir.Operation.create(
        "stablehlo.dot_general",
        results=[op.results[0].type],
        operands=list(op.operands),
        attributes=attributes,
        ip=ir.InsertionPoint(op),
        loc=op.location,
    )
    _replace(op, new)


def _spell_top_k(op: ir.Operation) -> None:
    """Write HLO's top-k, an op or a call, as CHLO's: the largest along the last dim, in order."""
    if op.name == "mhlo.topk":
        is_usual = "largest" not in op.attributes or ir.BoolAttr(op.attributes["largest"]).value
    else:
        config = str(op.attributes.get("backend_config", ""))
        is_usual = "is_stable = true" in config and "TOTAL" in config
    if not is_usual:
        raise ValueError("a top-k that is not the usual one")
    (made,) = [value.type for value in op.results] if len(op.results) == 1 else [None]
    is_tuple = isinstance(made, ir.TupleType)
    types = (
        [made.get_type(i) for i in range(made.num_types)]
        if is_tuple
        else [value.type for value in op.results]
    )
    kept = ir.RankedTensorType(types[0]).shape[-1]
    new = ir.Operation.create(
        "chlo.top_k",
        results=types,
        operands=list(op.operands),
        attributes={"k": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), kept)},
        ip=ir.InsertionPoint(op),
        loc=op.location,
    )
    if is_tuple:
        _take_apart(op, list(new.results))
    else:
        _replace(op, new)


def _take_apart(op: ir.Operation, parts: Sequence[ir.Value]) -> None:
    """Hand the parts of a tuple to those who take it apart, and erase it."""
    for use in list(op.results[0].uses):
        user = use.owner.operation
        if user.name != "stablehlo.get_tuple_element":
            raise ValueError("a tuple that is not taken apart")
        user.results[0].replace_all_uses_with(parts[integer(user, "index")])
        user.erase()
    op.erase()


def _replace(op: ir.Operation, new: ir.Operation) -> None:
    for old, result in zip(op.results, new.results, strict=True):
        old.replace_all_uses_with(result)
    op.erase()


def _spell_scan(op: ir.Operation) -> None:
    """Write HLO's scan as CHLO's, which has the same parts."""
    attributes = {name: op.attributes[name] for name in op.attributes}
    new = ir.Operation.create(
        "chlo.scan",
        results=[value.type for value in op.results],
        operands=list(op.operands),
        attributes=attributes,
        regions=1,
        ip=ir.InsertionPoint(op),
        loc=op.location,
    )
    block = op.regions[0].blocks[0]
    block.append_to(new.regions[0])
    end = list(new.regions[0].blocks[0].operations)[-1].operation
    ir.Operation.create(
        "stablehlo.return", operands=list(end.operands), ip=ir.InsertionPoint(end), loc=end.location
    )
    end.erase()
    _replace(op, new)
