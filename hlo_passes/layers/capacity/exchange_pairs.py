"""Pairs of all-to-alls: one brings rows to experts, the other takes their answers away."""

from collections.abc import Iterator
from dataclasses import dataclass

from hlo_passes.ir.stablehlo.blocks import exchanges_of
from hlo_passes.ir.stablehlo.body import Body


@dataclass(frozen=True, slots=True)
class Pair:
    """Two all-to-alls, one after the other.

    Attributes:
        first, second: their places.
        ops: places of the ops on the paths between, both included, in program order.
    """

    first: int
    second: int
    ops: tuple[int, ...]


def pairs_of(body: Body) -> Iterator[Pair]:
    """Yield every all-to-all that leads to another through matrix products."""
    after = _next_exchange(body)
    seconds: set[int] = set()
    for first in exchanges_of(body):
        for second in exchanges_of(body) if first not in seconds else ():
            between = _between(body, first, second, after)
            if any(body.kind(i) == "dot_general" for i in between):
                seconds.add(second)
                yield Pair(first, second, between)
                break


def _next_exchange(body: Body) -> list[frozenset[int]]:
    """Return, per op, the all-to-alls that its results reach without passing another."""
    found: list[frozenset[int]] = [frozenset()] * len(body.ops)
    for i in reversed(range(len(body.ops))):
        reached: set[int] = set()
        for value in body.ops[i].results:
            for user in body.users.get(value, ()):
                is_exchange = body.kind(user) == "all_to_all"
                reached.update([user] if is_exchange else found[user])
        found[i] = frozenset(reached)
    return found


def _between(body: Body, first: int, second: int, after: list[frozenset[int]]) -> tuple[int, ...]:
    """Return the ops on paths from one all-to-all to the next, both included; () for none."""
    if second not in after[first]:
        return ()
    reached = {first}
    for i in range(first + 1, second):
        if (
            body.kind(i) != "all_to_all"
            and second in after[i]
            and any(body.maker.get(v, -1) in reached for v in body.ops[i].operands)
        ):
            reached.add(i)
    return (*sorted(reached), second)
