"""Writes every all-to-all as JAX does: one dim is dealt out, another grows.

The partitioner gives the peers a dim of their own, exchanges along it, and moves it to where the
blocks that came are to be put together. That is one tiled all-to-all, and rules and sites that
know that one know both.

Before and after
    reshape [.., P, s/P, ..], all_to_all along P, transpose P to before c, reshape [.., P c, ..]
    ->  all_to_all split_dimension=s concat_dimension=c
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.build import op_of, type_like
from hlo_passes.ir.stablehlo.read import integer, ints, maker_of, shape_of

_TRANSPOSE, _RESHAPE = "stablehlo.transpose", "stablehlo.reshape"


def tile_exchanges(module: ir.Module) -> int:
    """Rewrite the all-to-alls of a module in place; its context is active.

    Returns:
        How many were rewritten.
    """
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "stablehlo.all_to_all":
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return sum(_tile(op) for op in found)


@dataclass(frozen=True)
class _Move:
    """How the blocks of the peers are put together after an exchange.

    Attributes:
        blocked: shape of what was exchanged, with a dim for the peers where it was dealt out.
        concat: the dim before which the peers' dim is moved, counted without it.
        ops: the ops that do it, in program order.
    """

    blocked: tuple[int, ...]
    concat: int
    ops: tuple[ir.Operation, ...]


def _tile(op: ir.Operation) -> bool:
    """Rewrite one exchange if it is in the partitioner's form."""
    split, peers = integer(op, "split_dimension"), integer(op, "split_count")
    if len(op.operands) != 1 or integer(op, "concat_dimension") != split:
        return False
    move = next(_moves(op, split, peers), None)
    if move is not None:
        _rewrite(op, split, peers, move)
    return move is not None


def _moves(op: ir.Operation, split: int, peers: int) -> Iterator[_Move]:
    shape = shape_of(op.results[0])
    user = _only_user(op)
    if user is None:
        return
    if shape[split] == peers and len(shape) > split + 1:
        concat = _moved_to(user, shape, split)
        if concat is not None:
            yield _Move(shape, concat, (user,))
    blocked = (*shape[:split], peers, shape[split] // peers, *shape[split + 1 :])
    if user.name == _RESHAPE:
        last = _only_user(user) if shape_of(user.results[0]) == blocked else None
        for ops in ([(user, last)] if last is not None else []) + [(user,)]:
            concat = _moved_to(ops[-1], blocked, split)
            if concat is not None:
                yield _Move(blocked, concat, ops)


def _only_user(op: ir.Operation) -> ir.Operation | None:
    users = [use.owner.operation for use in op.results[0].uses]
    return users[0] if len(users) == 1 else None


def _moved_to(user: ir.Operation, shape: Sequence[int], split: int) -> int | None:
    """Return where the peers' dim is moved by the op that reads it; None if nowhere."""
    if user.name == _TRANSPOSE:
        return _transposed_to(ints(user, "permutation"), split)
    if user.name == _RESHAPE:
        # A transpose across dims of size 1 is a reshape, and may have been written as one.
        made = shape_of(user.results[0])
        return next((d for d in _merged_before(shape, split, made) if d != split), None)
    return None


def _transposed_to(permutation: Sequence[int], split: int) -> int | None:
    """Return before which dim a transpose moves one; None if it moves others too, or it stays."""
    concat, rest = permutation.index(split), [d for d in permutation if d != split]
    is_moved = rest == sorted(rest) and concat != split and concat < len(rest)
    return concat if is_moved else None


def _merged_before(shape: Sequence[int], split: int, made: tuple[int, ...]) -> Iterator[int]:
    """Yield the dims that a dim may be merged into, across dims of size 1, for that shape."""
    rest = [*shape[:split], *shape[split + 1 :]]
    for concat in range(len(rest)):
        crossed = shape[concat:split] if concat < split else shape[split + 1 : concat + 1]
        merged = [size * shape[split] if d == concat else size for d, size in enumerate(rest)]
        if tuple(merged) == made and all(size == 1 for size in crossed):
            yield concat


def _rewrite(op: ir.Operation, split: int, peers: int, move: _Move) -> None:
    kind, shape = op.results[0].type, move.blocked
    whole = [*shape[:split], peers * shape[split + 1], *shape[split + 2 :]]
    made = [size for d, size in enumerate(shape) if d != split]
    made[move.concat] *= peers
    dealt = _reshape_before(op)
    operand = op.operands[0] if dealt is None else dealt.operands[0]
    attributes = {name: op.attributes[name] for name in op.attributes}
    number = ir.IntegerType.get_signless(64)
    attributes["split_dimension"] = ir.IntegerAttr.get(number, split)
    attributes["concat_dimension"] = ir.IntegerAttr.get(number, move.concat)
    with ir.InsertionPoint(op), op.location:
        given = _reshaped(operand, type_like(kind, whole))
        (exchanged,) = op_of("all_to_all", [given], [type_like(kind, made)], attributes)
    _hand_on(move.ops[-1], exchanged)
    for old in (*reversed(move.ops), op):
        old.erase()
    if dealt is not None and not _is_used(dealt):
        dealt.erase()


def _reshape_before(op: ir.Operation) -> ir.Operation | None:
    maker = maker_of(op.operands[0])
    return maker if maker is not None and maker.name == _RESHAPE else None


def _hand_on(last: ir.Operation, exchanged: ir.Value) -> None:
    """Let what reads the last op of a move read the exchange."""
    readers = [use.owner.operation for use in last.results[0].uses]
    for reader in readers if last.name == _TRANSPOSE else ():
        if reader.name == _RESHAPE:
            _replace(reader, exchanged)
    if _is_used(last):
        with ir.InsertionPoint(last), last.location:
            new = _reshaped(exchanged, last.results[0].type)
        last.results[0].replace_all_uses_with(new)


def _is_used(op: ir.Operation) -> bool:
    return any(True for _ in op.results[0].uses)


def _replace(reshape: ir.Operation, value: ir.Value) -> None:
    """Let a reshape reshape another value, which holds the same elements in the same order."""
    with ir.InsertionPoint(reshape), reshape.location:
        new = _reshaped(value, reshape.results[0].type)
    reshape.results[0].replace_all_uses_with(new)
    reshape.erase()


def _reshaped(value: ir.Value, kind: ir.Type) -> ir.Value:
    return value if value.type == kind else op_of("reshape", [value], [kind])[0]
