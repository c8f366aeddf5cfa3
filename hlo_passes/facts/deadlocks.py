"""Finds exchanges that devices could wait for each other in for ever, before anything runs.

An exchange ends when every member of its group has come to it. All devices run one program, so
they come to all exchanges in one order, and none waits for ever, unless

- a branch or loop is decided differently by members of a group: then some do not come at all;
- branches that members of a group take apart issue the same exchanges in another order: then each
  waits in an exchange that the other has yet to come to;
- two exchanges are in flight on streams of their own, and more than one device is in a group of
  both: the devices may run their kernels in either order, each waiting for the other's. XLA:GPU
  keeps all exchanges on one stream, in order of issue, but for those of another
  `Collective.domain`, and never overlaps the two in that case; an order of ours must not either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from hlo_passes.errors import DeadlockError
from hlo_passes.facts.replicas import Labels, Replicas, is_same
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.device_groups import DeviceGroups
from hlo_passes.ir.graph import Graph, Op


def verify_no_deadlock(
    graph: Graph, orders: Mapping[str, Sequence[int]] | None = None, *, is_local: bool = True
) -> None:
    """Check that no exchange of a program can be waited for for ever.

    Args:
        graph: the program.
        orders: orders of its computations by name; program order by default.
        is_local: whether it is what one device runs (`Module.is_local`).

    Raises:
        DeadlockError: naming the exchange, its line, why, and what to do about it.
    """
    for error in deadlocks(graph, orders or {}, is_local):
        raise error


def deadlocks(
    graph: Graph, orders: Mapping[str, Sequence[int]], is_local: bool
) -> Iterator[DeadlockError]:
    """Yield every place where devices could wait for ever.

    Args:
        graph, orders, is_local: as `verify_no_deadlock` has them.
    """
    computations = [inside for inside, _ in graph.walk()]
    computations += [
        op.condition for inside in computations for op in inside.ops if op.condition is not None
    ]
    devices = _devices_named(graph, computations)
    controls = [
        (inside, op) for inside in computations for op in inside.ops if _decides_exchanges(op)
    ]
    if controls:
        replicas = Replicas(devices)
        replicas.run(graph, is_local=is_local)
        for inside, op in controls:
            decision = replicas.decisions.get((inside.name, op.id), ())
            yield from _divided(op, decision, devices)
    for inside in computations:
        order = orders.get(inside.name, range(len(inside.ops)))
        yield from _crossed(inside, order, devices)


def _devices_named(graph: Graph, computations: Sequence[Graph]) -> int:
    """Return how many devices there are, if a module's groups name more than it says it is for."""
    exchanges = [op.collective for inside in computations for op in inside.ops if op.collective]
    rows = [row for exchange in exchanges for part in exchange.parts for row in part.groups]
    spread = [len(labels) for inside in computations for labels in inside.spread]
    return max([graph.devices, *spread, *(1 + max(row) for row in rows if row)])


def _decides_exchanges(op: Op) -> bool:
    """Whether an op decides whether, or how often, exchanges inside it run."""
    if op.kind == "manual_computation" or not op.inner:
        return False
    return next(_inside(op), None) is not None


def issued_in(op: Op) -> Iterator[Op]:
    """Yield an op if it is an exchange, and the exchanges inside it, in order.

    An op that issues several at once is yielded once for each.
    """
    for part in op.collective.parts if op.collective is not None else ():
        yield op if part is op.collective else replace(op, collective=part)
    yield from _inside(op)


def _inside(op: Op) -> Iterator[Op]:
    """Yield the exchanges inside a loop, a branch or a call, in order."""
    for graph in (*(() if op.condition is None else (op.condition,)), *op.inner):
        yield from _issued(graph)


def _issued(graph: Graph) -> Iterator[Op]:
    for op in graph.ops:
        yield from issued_in(op)


def _divided(op: Op, decision: Labels, devices: int) -> Iterator[DeadlockError]:
    """Find exchanges whose members decide differently whether to come to them."""
    apart = next(_members_apart(op, decision, devices), None)
    if apart is None:
        return
    is_loop = op.kind == "while"
    branches = [list(_issued(graph)) for graph in op.inner]
    if not is_loop and len({tuple(map(_signature, branch)) for branch in branches}) == 1:
        return
    exchange, row = apart
    who = f"devices {', '.join(map(str, row[:8]))}{', ...' if len(row) > 8 else ''}"
    crossed = None if is_loop else _other_order(branches, devices)
    if crossed is not None:
        first, then = crossed
        yield DeadlockError(
            _place(first),
            f"comes before {_named(then)} in one branch of {_named(op)} and after it in another,"
            f" and {who} may take different ones: each would wait for the other",
            "issue them in one order in all branches, or before or after the branch",
        )
        return
    how = "runs a number of times" if is_loop else "is in a branch"
    yield DeadlockError(
        _place(exchange),
        f"{how} that is decided by {_named(op)} from data that need not be the same on {who},"
        " which exchange in it: one would wait for ever for another that never comes",
        "decide by what all of them hold (psum or pmax of the condition over their axis), or take"
        " the exchange out of the branch or loop",
    )


def _members_apart(op: Op, decision: Labels, devices: int) -> Iterator[tuple[Op, Sequence[int]]]:
    """Yield the exchanges inside an op, with a group of theirs that does not decide alike."""
    for inside in _inside(op):
        for row in members_of(_exchange(inside), devices):
            if not is_same(decision, row):
                yield inside, row


def _other_order(branches: Sequence[Sequence[Op]], devices: int) -> tuple[Op, Op] | None:
    """Return two exchanges of shared members that one branch issues in another order."""
    for branch in branches:
        place = {_signature(op): i for i, op in reversed(list(enumerate(branch)))}
        for other in branches:
            known = [op for op in other if _signature(op) in place]
            for first, then in pairwise(known):
                if place[_signature(first)] > place[_signature(then)] and shared(
                    members_of(_exchange(first), devices), members_of(_exchange(then), devices)
                ):
                    return first, then
    return None


def _signature(op: Op) -> tuple[object, ...]:
    """Return what tells devices that they are in the same exchange."""
    c = _exchange(op)
    return c.kind, c.groups, c.bytes, c.channel


def _crossed(graph: Graph, order: Sequence[int], devices: int) -> Iterator[DeadlockError]:
    """Find exchanges in flight at once, on two streams, with two devices in a group of both."""
    flying: dict[int, Op] = {}
    for i in order:
        op = graph.ops[i]
        if op.is_done:
            flying.pop(op.start, None)
        issued = list(issued_in(op))
        for other in flying.values():
            for new in issued:
                if _exchange(new).domain == _exchange(other).domain:
                    continue
                rows = members_of(_exchange(new), devices), members_of(_exchange(other), devices)
                if both := shared(*rows, least=2):
                    yield DeadlockError(
                        _place(new),
                        f"starts while {_named(other)} is in flight on another stream, and devices"
                        f" {', '.join(map(str, both[:8]))} are in both: one may run this first and"
                        " another that",
                        f"let {other.name} be done before, or keep both on one stream (no"
                        " collective_communication_domain)",
                    )
        if op.id in graph.done_of and op.collective is not None:
            flying[op.id] = op


def _exchange(op: Op) -> Collective:
    assert op.collective is not None
    return op.collective


def members_of(exchange: Collective, devices: int) -> DeviceGroups:
    """Return who waits for whom; of a permutation, all that pairs join."""
    if exchange.kind != "collective_permute":
        return exchange.groups or (tuple(range(devices)),)
    joined: list[set[int]] = []
    for pair in exchange.groups:
        touched = [group for group in joined if group.intersection(pair)]
        joined = [group for group in joined if group not in touched]
        joined.append(set(pair).union(*touched))
    return tuple(tuple(sorted(group)) for group in joined)


def shared(one: DeviceGroups, other: DeviceGroups, least: int = 1) -> tuple[int, ...]:
    """Return devices that a group of each has, if they are at least so many.

    Args:
        one, other: who waits for whom, as `members_of` says.
        least: how many devices two groups must have in common.
    """
    for row in one:
        for members in other:
            both = set(row).intersection(members)
            if len(both) >= least:
                return tuple(sorted(both))
    return ()


def _place(op: Op) -> str:
    return f"{op.source}: {op.name}" if op.source else op.name


def _named(op: Op) -> str:
    return f"{op.name} ({op.source})" if op.source else op.name
