"""Legality between passes: nothing lost, nothing out of order, no deadlock, memory in bounds."""

from collections.abc import Callable, Mapping, Sequence

from hlo_passes.errors import VerifyError
from hlo_passes.facts.deadlocks import verify_no_deadlock
from hlo_passes.facts.liveness import buffers_of
from hlo_passes.ir.graph import Graph

_REMEDY = "report this with the dump; meanwhile pipeline='off' leaves the step alone"


type Check = Callable[[Graph, Mapping[str, Sequence[int]], bool], None]
"""(a program, orders of its computations by name, whether it is what one device runs); raises what
is wrong with the program in these orders.
"""


def no_deadlock(graph: Graph, orders: Mapping[str, Sequence[int]], is_local: bool) -> None:
    """Check that no exchange can be waited for for ever.

    Args:
        graph, orders, is_local: see `Check`.

    Raises:
        DeadlockError: naming the exchange, its line, why, and what to do about it.
    """
    verify_no_deadlock(graph, orders, is_local=is_local)


def exchanges_paired(graph: Graph, orders: Mapping[str, Sequence[int]], is_local: bool) -> None:
    """Check that every start has one done, and every done a start before it.

    Args:
        graph, orders, is_local: see `Check`.

    Raises:
        VerifyError: naming the half that is alone.
    """
    verify_exchange_pairs(graph)


def verify_reordering(
    before: Graph, orders: Mapping[str, Sequence[int]], memory_limit: int | None = None
) -> None:
    """Check that new orders of a graph are legal.

    Every computation keeps its ops, data and control order, and who overwrites memory after whom;
    a done comes after its start. The peak of the whole stays within `memory_limit` bytes.

    Raises:
        VerifyError: naming the computation and the two ops that are in the wrong order.
    """
    for graph, _ in before.walk():
        if graph.name in orders:
            _check_order(graph, orders[graph.name])
    if memory_limit is not None and before.name in orders:
        peak = buffers_of(before).peak(orders[before.name])
        if peak > memory_limit:
            raise VerifyError(before.name, f"needs {peak} bytes of {memory_limit}", _REMEDY)


def _check_order(graph: Graph, order: Sequence[int]) -> None:
    if sorted(order) != list(range(len(graph.ops))):
        raise VerifyError(graph.name, "an order must name every op once", _REMEDY)
    place = {op: i for i, op in enumerate(order)}
    for op, befores in enumerate(graph.preds):
        for before in befores:
            if place[before] > place[op]:
                first, then = graph.ops[before], graph.ops[op]
                raise VerifyError(
                    f"{graph.name}: {then.name}", f"stands before {first.name}, which it needs",
                    _REMEDY,
                )  # fmt: skip


def verify_exchange_pairs(graph: Graph) -> None:
    """Check that every start has one done, and every done a start before it.

    Raises:
        VerifyError: naming the half that is alone.
    """
    for inside, _ in graph.walk():
        halves = [op for op in inside.ops if op.collective and op.kind.endswith("_start")]
        for op in halves:
            if op.id not in inside.done_of:
                raise VerifyError(f"{inside.name}: {op.name}", "starts and nothing waits for it",
                                  _REMEDY)  # fmt: skip


def exchange_order(graph: Graph, order: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return the exchanges that one rank issues, in order: kind, groups and bytes of each.

    Two ranks whose sequences differ wait for each other for ever.
    """
    issued: list[str] = []
    for op in order if order is not None else range(len(graph.ops)):
        exchange = graph.ops[op].collective
        for part in exchange.parts if exchange is not None else ():
            issued.append(f"{part.kind}{part.groups}:{part.bytes}")
        for inner in graph.ops[op].inner:
            issued.extend(exchange_order(inner))
    return tuple(issued)


def verify_same_exchanges(ranks: dict[str, Graph]) -> None:
    """Check that every rank issues the same exchanges in the same order.

    Args:
        ranks: the program of every rank or process, by name.

    Raises:
        VerifyError: naming the two ranks and the first exchange that differs.
    """
    names = list(ranks)
    reference = exchange_order(ranks[names[0]]) if names else ()
    for name in names[1:]:
        issued = exchange_order(ranks[name])
        for i, (ours, theirs) in enumerate(zip(reference, issued, strict=False)):
            if ours != theirs:
                raise VerifyError(
                    f"exchange {i}", f"{names[0]} issues {ours}, {name} issues {theirs}",
                    "compile every rank from the same module and plan",
                )  # fmt: skip
        if len(issued) != len(reference):
            raise VerifyError(
                f"exchange {min(len(issued), len(reference))}",
                f"{names[0]} issues {len(reference)} exchanges, {name} {len(issued)}",
                "compile every rank from the same module and plan",
            )
