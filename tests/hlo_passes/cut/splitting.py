"""A small engine that cuts programs into parts with the rules, and a way to run what it makes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.extend import backend
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxlib import _jax, xla_client
from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.rules.reduce import carry_of
from hlo_passes.cut.rules.rule import Part
from hlo_passes.cut.states import Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.parts import add_parts, join_parts, take_part
from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.proofs.engine import NotProved


@dataclass(frozen=True)
class Variant:
    """One way to cut an op.

    Attributes:
        spot: where.
        cut: how.
        k: into how many parts.
        split: what the rule says, or why it refuses.
    """

    spot: Spot
    cut: Cut
    k: int
    split: OpSplit | str


def lower(f, *args) -> Module:
    """Lower a function to a module that belongs to us."""
    return Module.copy_of(jax.jit(f, keep_unused=True).lower(*args).compiler_ir())


def the(module: Module, kind: str) -> ir.Operation:
    """Return the last op of a kind in the block that does the work."""
    views = [view.operation for view in module.body.operations]
    return [op for op in views if op.name.rpartition(".")[2] == kind][-1]


def variants(op: ir.Operation, ks=(2, 4), outers=(1, 2)) -> list[Variant]:
    """Try every cut of every operand and result of an op."""
    rule = rule_of(op)
    assert rule is not None, op.name
    spots = [
        *((Spot("operand", i), v) for i, v in enumerate(op.operands)),
        *((Spot("result", i), v) for i, v in enumerate(op.results)),
    ]
    made = []
    for (spot, value), k, outer in itertools.product(spots, ks, outers):
        for dim in range(len(shape_of(value))):
            cut = Cut(dim, outer)
            if not cut.fits(shape_of(value), k):
                continue
            try:
                split = rule.cut(op, spot, cut, k)
            except NotProved as error:
                made.append(Variant(spot, cut, k, str(error)))
                continue
            check_states(op, spot, cut, k, split)
            made.append(Variant(spot, cut, k, split))
    return made


def check_states(op: ir.Operation, spot: Spot, cut: Cut, k: int, split: OpSplit) -> None:
    """A rule keeps the cut that it is asked about, and only makes cuts that fit."""
    assert split.at(spot) == cut
    assert len(split.operands) == len(op.operands)
    assert len(split.results) == len(op.results)
    pairs = [
        *zip(split.operands, op.operands, strict=True),
        *zip(split.results, op.results, strict=True),
    ]
    for state, value in pairs:
        assert not isinstance(state, Cut) or state.fits(shape_of(value), k), (op.name, state)


def split_parts(op: ir.Operation, split: OpSplit, operands: Sequence, k: int) -> list[list]:
    """Build all parts of an op at the current point.

    Args:
        op: the op.
        split: its states.
        operands: per operand its k parts, or one whole value.
        k: number of parts.

    Returns:
        Per result its k parts.
    """
    rule, carry, rows = rule_of(op), None, []
    chained = op.name == "stablehlo.scatter" and isinstance(split.results[0], Sum)
    for i in range(k):
        mine = [v[i] if isinstance(v, list) else v for v in operands]
        if chained and i:
            mine[0] = rows[-1][0]
        made = rule.part(op, mine, Part(i, k, split, carry))
        if split.carries:
            carry = carry_of(op, made)
        rows.append(made)
    return [list(column) for column in zip(*rows, strict=True)]


def join(op: ir.Operation, state, parts: list) -> ir.Value:
    """Make one value of the parts of a result."""
    if isinstance(state, Cut):
        return join_parts(parts, state.dim, state.outer)
    if state is None:
        return parts[0]
    return parts[-1] if op.name == "stablehlo.scatter" else add_parts(parts, state.merge)


def pieces(value: ir.Value, cut: Cut | None, k: int):
    """Take a whole value apart as a state says."""
    if cut is None:
        return value
    return [take_part(value, cut.dim, cut.outer, i, k) for i in range(k)]


def split_one(op: ir.Operation, variant: Variant) -> list[ir.Value]:
    """Build an op in parts from whole operands, and join its results."""
    split, k = variant.split, variant.k
    operands = [pieces(v, s, k) for v, s in zip(op.operands, split.operands, strict=True)]
    results = split_parts(op, split, operands, k)
    return [join(op, s, parts) for s, parts in zip(split.results, results, strict=True)]


def returning(module: Module, values: Sequence[ir.Value]) -> None:
    """Make the module's function return these values."""
    end = module.body.operations[len(module.body.operations) - 1].operation
    with ir.InsertionPoint(end), ir.Location.unknown():
        ir.Operation.create("func.return", operands=list(values))
    end.erase()
    function = module.body.owner
    inputs = [a.type for a in module.body.arguments]
    kind = ir.FunctionType.get(inputs, [v.type for v in values])
    function.attributes["function_type"] = ir.TypeAttr.get(kind)
    if "res_attrs" in function.attributes:
        del function.attributes["res_attrs"]


def with_variants(module: Module, kind: str, chosen: Sequence[Variant]) -> Module:
    """Return a copy that makes the op's results as before, then once more per variant."""
    copy = module.copy()
    op = the(copy, kind)
    end = copy.body.operations[len(copy.body.operations) - 1].operation
    values = list(op.results)
    with copy.ir.context, ir.Location.unknown():
        with ir.InsertionPoint(end):
            for variant in chosen:
                values += split_one(op, variant)
        returning(copy, values)
    copy.verify()
    return copy


def follow(module: Module, index: int, cut: Cut, k: int) -> tuple[Module, list[str]]:
    """Return a copy that goes on in parts for as long as the rules let it.

    It returns the old results, then the new ones. Argument `index` is cut at first.

    Returns:
        The module, and the kinds of the ops that were built in parts.
    """
    copy = module.copy()
    block = copy.body
    ops = [view.operation for view in block.operations]
    whole: dict = {a: a for a in block.arguments}
    parts: dict = {}
    done = []

    def whole_of(value):
        if value not in whole:
            cut, made = parts[value]
            whole[value] = join_parts(made, cut.dim, cut.outer)
        return whole[value]

    with copy.ir.context, ir.Location.unknown(), ir.InsertionPoint(ops[-1]):
        first = block.arguments[index]
        parts[first] = (cut, pieces(first, cut, k))
        del whole[first]
        for op in ops[:-1]:
            split = _first_split(op, parts, k)
            if split is None:
                operands = [whole_of(value) for value in op.operands]
                new = op.clone()
                for i, value in enumerate(operands):
                    new.operands[i] = value
                whole.update(zip(op.results, new.results, strict=True))
                continue
            done.append(op.name)
            operands = [
                parts[v][1] if v in parts and parts[v][0] == s else pieces(whole_of(v), s, k)
                for v, s in zip(op.operands, split.operands, strict=True)
            ]
            made_of = split_parts(op, split, operands, k)
            for r, s, made in zip(op.results, split.results, made_of, strict=True):
                if isinstance(s, Cut):
                    parts[r] = (s, made)
                else:
                    whole[r] = join(op, s, made)
        old = list(ops[-1].operands)
        new = [whole_of(v) for v in old]
        returning(copy, [*old, *new])
    copy.verify()
    return copy, done


def _first_split(op: ir.Operation, parts: dict, k: int) -> OpSplit | None:
    rule = rule_of(op)
    for i, value in enumerate(op.operands):
        if rule is None or value not in parts:
            continue
        try:
            return rule.cut(op, Spot("operand", i), parts[value][0], k)
        except NotProved:
            continue
    return None


def run(module: Module, args: Sequence, replicas=1, partitions=1, specs=()) -> list[np.ndarray]:
    """Run a module.

    With several devices every result has one more dim in front, one row each, and so has every
    argument unless `specs` say how it lies.
    """
    count = replicas * partitions
    client = backend.get_backend()
    devices = client.devices()[:count]
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, partitions
    build = options.executable_build_options
    build.num_replicas, build.num_partitions = replicas, partitions
    if partitions > 1:
        build.use_spmd_partitioning = build.use_shardy_partitioner = True
    numbers = np.arange(count).reshape(replicas, partitions)
    options.device_assignment = xla_client.DeviceAssignment.create(numbers)
    program = client.compile_and_load(module.text(), _jax.DeviceList(tuple(devices)), options)
    mesh = Mesh(np.array(devices), ("d",))
    arrays = []
    for arg, spec in zip(args, specs or [P("d") if count > 1 else P()] * len(args), strict=True):
        value = np.asarray(arg)
        if count > 1 and not specs:
            value = value.reshape(-1, *value.shape[2:])
        arrays.append(jax.device_put(value, NamedSharding(mesh, spec)))
    shards = program.execute_sharded(arrays).disassemble_into_single_device_arrays()
    if count == 1:
        return [np.asarray(row[0]) for row in shards]
    return [np.stack([np.asarray(x) for x in row]) for row in shards]


def assert_same(kind: str, want: Sequence, got: Sequence, note, exact: bool = True) -> None:
    """Compare bit for bit, or to 1e-6 of the largest number."""
    for a, b in zip(want, got, strict=True):
        assert a.shape == b.shape, (kind, note)
        assert a.dtype == b.dtype, (kind, note)
        if exact:
            assert a.tobytes() == b.tobytes(), (kind, note, a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(a).max(), err_msg=kind)


def check_every_cut(
    module: Module, kind: str, args: Sequence, *, replicas=1, exact=True, outers=(1, 2)
):
    """Cut an op in every way that its rule allows, and compare with the whole op.

    Returns:
        All variants, the refused ones too.
    """
    found = variants(the(module, kind), outers=outers)
    chosen = [v for v in found if isinstance(v.split, OpSplit)]
    made = run(with_variants(module, kind, chosen), args, replicas)
    count = len(the(module, kind).results)
    for i, variant in enumerate(chosen, 1):
        got = made[i * count : (i + 1) * count]
        assert_same(kind, made[:count], got, variant, exact)
    return found


def accepted(found: Sequence[Variant], k: int = 2, outer: int = 1) -> dict[str, set[int]]:
    """Return per operand and result ("o0", "r0") the dims that may be cut."""
    dims: dict[str, set[int]] = {}
    for v in found:
        name = f"{v.spot.side[0]}{v.spot.index}"
        if v.k == k and v.cut.outer == outer and isinstance(v.split, OpSplit):
            dims.setdefault(name, set()).add(v.cut.dim)
    return dims


def refusals(found: Sequence[Variant]) -> set[str]:
    """Return the reasons of all refusals."""
    return {v.split for v in found if isinstance(v.split, str)}
