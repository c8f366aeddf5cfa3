"""Puts what XLA's partitioner made of a step back into the step, as one manual region.

Contract
    The module keeps its signature: names, global types, shardings, donation and layouts of its
    arguments and results. Its body becomes one `sdy.manual_computation` over every axis of the
    mesh, whose ops work on the tensors of one device and exchange explicitly.

Before and after
    main(global) { dot_general, constraint, ... }
    ->  main(global) { manual_computation(local) { dot_general, all_to_all, ... } }

Steps
    1. Convert the partitioned HLO to StableHLO, and mend what the conversion does not bring over:
       replica groups of transposed meshes, HLO's scan; drop copies and layouts.
    2. Convert the result to HLO again: it has to be the partitioned program, op for op.
    3. Wrap it, with the shardings that the partitioner gave to parameters and results.

Limits
    Refused, with a reason: calls into foreign code, random numbers from a device's own state, ops
    with side effects, dims that do not fall into equal pieces, shardings over a part of an axis or
    over several meshes.
"""

import io
from collections.abc import Sequence
from dataclasses import replace

from jax.extend.mlir import hlo_to_stablehlo
from jax.extend.mlir.dialects import sdy
from jaxlib import _hlo, _jax
from jaxlib.mlir import ir

from hlo_passes.errors import InputError
from hlo_passes.ir.hlo.text import HloText, read_hlo
from hlo_passes.ir.stablehlo.edit import clone_into, inline_calls
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.partition.digest import digest_of
from hlo_passes.partition.from_hlo import mend, spell
from hlo_passes.partition.shardings import MeshAxes, Sharding, mesh_of, named_on, parse_shardings
from hlo_passes.partition.tiled_exchanges import tile_exchanges

_REMEDY = "the step runs reordered, but not cut: put its MoE layers into one shard_map to cut them"
_MANUAL = "sdy.manual_computation"


def partitioned(module: Module, proto: bytes) -> Module:
    """Return a copy of a step with the body that XLA's partitioner made of it.

    Args:
        module: the step as it was lowered, in global shapes.
        proto: the HloModuleProto after the partitioner.

    Raises:
        InputError: if something in it is not known to survive, naming what.
    """
    program = read_hlo(_print(proto))
    step = replace(Module.parse(_bytecode(module.ir), module.path), opaque=module.opaque)
    try:
        with step.ir.context:
            body = ir.Module.parse(hlo_to_stablehlo(proto))
            inline_calls(body)
            given, made = _shardings(body)
            mend(body, program)
            _check_same(body, program)
            spell(body)
            tile_exchanges(body)
            _wrap(step.ir, _main(body), given, made)
    except ValueError as error:
        reason = error.what if isinstance(error, InputError) else str(error).splitlines()[0]
        raise InputError(f"{module.path}, partitioned", reason, _REMEDY) from None
    step.verify()
    return step


def _print(proto: bytes) -> str:
    options = _hlo.HloPrintOptions()
    options.print_large_constants = True
    return _hlo.HloModule.from_serialized_hlo_module_proto(proto).to_string(options)


def _bytecode(module: ir.Module) -> bytes:
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    return buffer.getvalue()


def _main(module: ir.Module) -> ir.Operation:
    for view in module.body.operations:
        op = view.operation
        if op.name == "func.func" and ir.StringAttr(op.attributes["sym_name"]).value == "main":
            return op
    raise ValueError("a module without main")


def _shardings(body: ir.Module) -> tuple[tuple[Sharding, ...], tuple[Sharding, ...]]:
    """Read how parameters and results are spread."""
    attributes = body.operation.attributes
    for name in ("mhlo.spmd_parameters_shardings", "mhlo.spmd_output_sharding"):
        if name not in attributes:
            raise ValueError("XLA does not say how it spread the step")
    parameters = [
        parse_shardings(ir.StringAttr(text).value)[0]
        for text in ir.ArrayAttr(attributes["mhlo.spmd_parameters_shardings"])
    ]
    results = ir.StringAttr(attributes["mhlo.spmd_output_sharding"]).value
    return tuple(parameters), parse_shardings(results)


def _check_same(body: ir.Module, program: HloText) -> None:
    """Check that StableHLO gives the HLO that it came from."""
    text = body.operation.get_asm(enable_debug_info=False)
    back = _jax.mlir.mlir_module_to_xla_computation(text, return_tuple=True)
    if digest_of(read_hlo(back.as_hlo_text(print_large_constants=True))) != digest_of(program):
        raise ValueError("converted to StableHLO and back, it is another program")


def _wrap(
    step: ir.Module, body: ir.Operation, given: Sequence[Sharding], made: Sequence[Sharding]
) -> None:
    """Replace the body of a step's main function by a manual region around `body`."""
    main = _main(step)
    old, inner = main.regions[0].blocks[0], body.regions[0].blocks[0]
    end, inner_end = _end_of(old), _end_of(inner)
    if len(given) != len(old.arguments) or len(made) != len(end.operands):
        raise ValueError(
            f"{len(given)} parameters and {len(made)} results are spread, the step has"
            f" {len(old.arguments)} and {len(end.operands)}"
        )
    mesh = mesh_of([*given, *made]) or _only_mesh(step)
    name = _symbol_of(step, mesh)
    into = _attributes(given, mesh, name, old.arguments)
    out = _attributes(made, mesh, name, end.operands)
    _check_local(inner.arguments, old.arguments, given, mesh)
    _check_local(inner_end.operands, end.operands, made, mesh)
    _annotate(main, into, out)
    region = ir.Operation.create(
        _MANUAL,
        results=[value.type for value in end.operands],
        operands=list(old.arguments),
        attributes={
            "in_shardings": sdy.TensorShardingPerValueAttr.get(into),
            "out_shardings": sdy.TensorShardingPerValueAttr.get(out),
            "manual_axes": sdy.ManualAxesAttr.get(
                [ir.StringAttr.get(axis) for axis, _ in mesh.axes]
            ),
        },
        regions=1,
        ip=ir.InsertionPoint(end),
        loc=body.location,
    )
    _fill(region, inner, body.location)
    for i, value in enumerate(region.results):
        end.operands[i] = value
    for view in reversed(list(old.operations)[:-2]):
        view.operation.erase()


def _end_of(block: ir.Block) -> ir.Operation:
    return list(block.operations)[-1].operation


def _fill(region: ir.Operation, inner: ir.Block, location: ir.Location) -> None:
    """Clone a block into a manual region."""
    types = [value.type for value in inner.arguments]
    block = region.regions[0].blocks.append(*types, arg_locs=[location] * len(types))
    now = dict(zip(inner.arguments, block.arguments, strict=True))
    with ir.InsertionPoint(block), location:
        for view in list(inner.operations)[:-1]:
            clone_into(view.operation, now)
        returned = [now[value] for value in _end_of(inner).operands]
        ir.Operation.create("sdy.return", operands=returned)


def _only_mesh(step: ir.Module) -> MeshAxes:
    """Return the one mesh of a step in which no argument or result is cut."""
    found = {mesh for _, mesh in _meshes(step)}
    if len(found) != 1:
        raise ValueError("no sharding names a mesh")
    return found.pop()


def _meshes(step: ir.Module) -> list[tuple[str, MeshAxes]]:
    """Return symbol and axes of every mesh of a module, empty ones aside."""
    found = []
    for view in step.body.operations:
        op = view.operation
        if op.name == "sdy.mesh":
            mesh = sdy.MeshAttr(op.attributes["mesh"])
            axes = tuple(
                (axis.name, axis.size) for axis in (sdy.MeshAxisAttr(a) for a in mesh.axes)
            )
            if axes:
                name = ir.StringAttr(op.attributes["sym_name"]).value
                found.append((name, MeshAxes(axes, tuple(mesh.device_ids))))
    return found


def _symbol_of(step: ir.Module, mesh: MeshAxes) -> str:
    """Return the symbol of a mesh that the module has."""
    for name, found in _meshes(step):
        if found == mesh:
            return name
    raise ValueError(f"a mesh {mesh.axes} that the step does not have")


def _attributes(
    shardings: Sequence[Sharding], mesh: MeshAxes, name: str, values: Sequence[ir.Value]
) -> list[ir.Attribute]:
    pairs = zip(shardings, values, strict=True)
    return [_attribute(sharding, mesh, name, value) for sharding, value in pairs]


def _attribute(sharding: Sharding, mesh: MeshAxes, name: str, value: ir.Value) -> ir.Attribute:
    """Return a sharding as Shardy writes it, closed in every dim."""
    rank = len(ir.RankedTensorType(value.type).shape)
    dims = named_on(sharding, mesh) or ((),) * rank
    if len(dims) != rank:
        raise ValueError(f"a sharding of {len(dims)} dims for a tensor of {rank}")
    return sdy.TensorShardingAttr.get(
        name,
        [
            sdy.DimensionShardingAttr.get([sdy.AxisRefAttr.get(axis) for axis in axes], True)
            for axes in dims
        ],
    )


def _check_local(
    local: Sequence[ir.Value], whole: Sequence[ir.Value], shardings: Sequence[Sharding],
    mesh: MeshAxes,
) -> None:  # fmt: skip
    """Check that every local type is the piece that its sharding says."""
    sizes = dict(mesh.axes)
    for part, value, sharding in zip(local, whole, shardings, strict=True):
        piece, full = ir.RankedTensorType(part.type), ir.RankedTensorType(value.type)
        shape = list(full.shape)
        for dim, axes in enumerate(named_on(sharding, mesh)):
            for axis in axes:
                if shape[dim] % sizes[axis]:
                    raise ValueError(f"{full} has a dim that does not fall into equal pieces")
                shape[dim] //= sizes[axis]
        if list(piece.shape) != shape or piece.element_type != full.element_type:
            raise ValueError(f"a piece of {full} should be {shape}, and is {piece}")


def _annotate(
    main: ir.Operation, given: Sequence[ir.Attribute], made: Sequence[ir.Attribute]
) -> None:
    """Write down the shardings that the user left to XLA, so that they come out the same."""
    for name, some in (("arg_attrs", given), ("res_attrs", made)):
        old = list(main.attributes[name]) if name in main.attributes else [{}] * len(some)
        new = []
        for attributes, sharding in zip(old, some, strict=True):
            items = {a.name: a.attr for a in ir.DictAttr(attributes)} if attributes else {}
            items.setdefault("sdy.sharding", sharding)
            new.append(ir.DictAttr.get(items))
        main.attributes[name] = ir.ArrayAttr.get(new)
