"""The few edits that passes are made of. Each leaves the block legal, and touches nothing else.

The bindings forgive little: an erased op that is still used, or a value whose owner is gone, ends
the process. So ops are erased only after every use is gone, and no handle outlives an edit.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence

from jaxlib.mlir import ir, passmanager
from jaxlib.mlir._mlir_libs import _jax_mlir_ext

from hlo_passes.errors import VerifyError
from hlo_passes.ir.stablehlo.build import barrier_of

_CALL, _FUNC = "func.call", "func.func"


def inline_calls(module: ir.Module) -> int:
    """Inline every call to a private function, and drop the functions.

    JAX outlines inner jits (`cumsum`, `_one_hot`, a user's own layers); an exchange in one would
    hide from every pass. MLIR's own inliner does nothing here: the interface is not registered.

    Returns:
        How many calls were inlined.
    """
    functions = {
        ir.StringAttr(op.operation.attributes["sym_name"]).value: op.operation
        for op in module.body.operations
        if op.operation.name == _FUNC
    }
    done: set[str] = set()
    count = 0

    def expand(name: str) -> None:
        nonlocal count
        if name in done:
            return
        done.add(name)
        for call in _calls(functions[name]):
            callee = ir.FlatSymbolRefAttr(call.attributes["callee"]).value
            if callee not in functions or not _is_simple(functions[callee]):
                continue
            expand(callee)
            _inline(call, functions[callee])
            count += 1

    with module.context:
        for name, function in functions.items():
            if not _is_private(function):
                expand(name)
        if count:
            passmanager.PassManager.parse("builtin.module(symbol-dce)").run(module.operation)
    return count


def _inline(call: ir.Operation, callee: ir.Operation) -> None:
    with ir.InsertionPoint(call), call.location:
        values = _jax_mlir_ext.inlined_func_call(callee, list(call.operands), call.location)
    for old, new in zip(call.results, values, strict=True):
        old.replace_all_uses_with(new)
    call.erase()


def _calls(function: ir.Operation) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == _CALL:
            found.append(op)
        return ir.WalkResult.ADVANCE

    function.walk(visit)
    return found


def _is_simple(function: ir.Operation) -> bool:
    """Whether a function has one block, which is all that can be inlined."""
    return len(function.regions[0].blocks) == 1


def _is_private(function: ir.Operation) -> bool:
    attributes = function.attributes
    return (
        "sym_visibility" in attributes
        and ir.StringAttr(attributes["sym_visibility"]).value == "private"
    )


def reorder_block(block: ir.Block, order: Sequence[int]) -> None:
    """Put the ops of a block in another order.

    Args:
        block: whose terminator is its last op.
        order: for every new place, the place of the op in the old order; the terminator stays.
    """
    ops = [op.operation for op in block.operations]
    end = ops[-1]
    for old in order:
        if ops[old] != end:
            ops[old].move_before(end)


def sort_block(block: ir.Block) -> None:
    """Sort a block so that every value is made before it is read, moving as little as possible.

    Among the ops that may come next, the one that stood first comes first.
    """
    ops = [op.operation for op in block.operations]
    index = {result: i for i, op in enumerate(ops) for result in op.results}
    befores = [
        {index[value] for value in _read_by(op) if value in index} - {i} for i, op in enumerate(ops)
    ]
    order = list(_in_order(befores))
    if len(order) != len(ops):
        raise VerifyError("block", "its values depend on each other in a circle", "report this")
    reorder_block(block, order)


def _in_order(befores: Sequence[Collection[int]]) -> Iterator[int]:
    """Yield every op once all that it waits for has come, the first ones first.

    Args:
        befores: what each op waits for. Ops in a circle are left out.
    """
    waits = [len(before) for before in befores]
    users: list[list[int]] = [[] for _ in befores]
    for op, before in enumerate(befores):
        for maker in before:
            users[maker].append(op)
    ready = [op for op, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    while ready:
        op = heapq.heappop(ready)
        yield op
        for user in users[op]:
            waits[user] -= 1
            if waits[user] == 0:
                heapq.heappush(ready, user)


def _read_by(op: ir.Operation) -> Iterator[ir.Value]:
    """Yield every value that an op or its regions read."""
    yield from op.operands
    if len(op.regions):
        inner: list[ir.Value] = []

        def visit(nested: ir.Operation) -> ir.WalkResult:
            inner.extend(nested.operands)
            return ir.WalkResult.ADVANCE

        op.walk(visit)
        yield from inner


def barrier(block: ir.Block, values: Sequence[ir.Value]) -> list[ir.Value]:
    """Make names for values that are there only once all of them are.

    The barrier is put at the end of the block, before its terminator; sort the block afterwards.

    Args:
        block: where the values are.
        values: results of ops of the block, or its arguments.

    Returns:
        The tied values; nobody reads them yet.
    """
    end = list(block.operations)[-1].operation
    with ir.InsertionPoint(end), end.location:
        return barrier_of(values)


def tie(block: ir.Block, values: Sequence[ir.Value]) -> None:
    """Make whoever reads one of the values wait for all of them."""
    tied = barrier(block, values)
    owner = tied[0].owner.operation
    for old, new in zip(values, tied, strict=True):
        old.replace_all_uses_except(new, owner)


def erase_unused(ops: Sequence[ir.Operation], pure: Collection[str]) -> None:
    """Erase ops, and what is then read by nobody.

    Args:
        ops: ops that nobody reads.
        pure: names of the ops that may go with them.
    """
    todo = list(ops)
    while todo:
        op = todo.pop()
        makers = {v.owner.operation for v in op.operands if not isinstance(v, ir.BlockArgument)}
        op.erase()
        for maker in makers:
            if maker.name in pure and not any(_is_read(result) for result in maker.results):
                todo.append(maker)


def erase_unread(op: ir.Operation) -> None:
    """Erase an op that has been replaced.

    Raises:
        VerifyError: if something still reads it; MLIR would go on and read freed memory.
    """
    if any(map(_is_read, op.results)):
        raise VerifyError(op.name, "is replaced and still read", "report this")
    op.erase()


def _is_read(value: ir.Value) -> bool:
    return next(iter(value.uses), None) is not None


def clone_into(op: ir.Operation, now: dict[ir.Value, ir.Value]) -> ir.Operation:
    """Clone an op to the current insertion point, on other values, and note what it makes.

    Args:
        op: the op.
        now: from values of the old place to those of the new one; the op's results are added.
    """
    new = op.clone()

    def visit(inner: ir.Operation) -> ir.WalkResult:
        for i, value in enumerate(inner.operands):
            if value in now:
                inner.operands[i] = now[value]
        return ir.WalkResult.ADVANCE

    new.walk(visit)
    now.update(zip(op.results, new.results, strict=True))
    return new
