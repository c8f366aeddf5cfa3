"""Orders that data does not show: who may overwrite a buffer only after everybody has read it.

XLA decides copies and donation before it schedules, and then trusts the schedule. A step that
donates its weights reads a weight in the backward pass and writes the new one into the same memory
without an edge between the two; XLA (0.12, CUDA) accepts a schedule that writes first, and the
read then sees the new weight. `tests/aot/test_donation.py` holds this down. So every reader of a
buffer that stands before its writer in XLA's own schedule has to stay there.
"""

import re
from collections.abc import Iterator

from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.traits import RENAMES

_DONATION = re.compile(r"\{([\d,\s]*)\}:\s*\((\d+),\s*\{([\d,\s]*)\}")


def buffer_order(graph: Graph, header: str) -> Iterator[tuple[int, int]]:
    """Yield (reader, writer) pairs of op ids that must keep their order.

    Args:
        graph: a computation whose program order is XLA's schedule, values and ops sharing ids.
        header: the module's first line if this is its entry, for `input_output_alias`; else "".
    """
    readers = _Readers(graph)
    for op in graph.ops:
        for place in _written(graph, op):
            yield from _before(readers, place, op.id)
    for writer, parameter in _donated(graph, header):
        if writer != parameter:
            yield from _before(readers, (parameter, None), writer)


def donated_bytes(graph: Graph, header: str) -> int:
    """Return the bytes of the results that take over memory of arguments.

    Args:
        graph: a computation; values and ops share ids.
        header: the module's first line if this is its entry, for `input_output_alias`; else "".
    """
    leaves = [leaf for value in graph.returns for leaf in graph.values[value].leaves]
    places = {_first_number(output) for output, _, _ in _DONATION.findall(_aliases(header))}
    return sum(leaves[place].bytes for place in places if place < len(leaves))


type _Place = tuple[int, int | None]
"""A value, and which leaf of it if it is a tuple; None for all."""


def _written(graph: Graph, op: Op) -> Iterator[_Place]:
    """Yield the memory that an op overwrites; a loop leaves alone what it only hands on."""
    kept = _handed_on(op)
    for value in op.overwrites:
        if not kept:
            yield value, None
        for leaf in range(len(graph.values[value].leaves)) if kept else ():
            if leaf not in kept:
                yield value, leaf


def _handed_on(op: Op) -> frozenset[int]:
    """Return the leaves that a loop's body returns as it gets them."""
    if op.kind != "while":
        return frozenset()
    body = op.inner[-1]
    root = body.ops[body.returns[0]]
    return frozenset(
        leaf
        for leaf, value in enumerate(root.operands if root.kind == "tuple" else ())
        if (got := body.ops[value]).kind == "get_tuple_element"
        and got.index == leaf
        and body.ops[got.operands[0]].kind == "parameter"
    )


def _before(readers: "_Readers", place: _Place, writer: int) -> Iterator[tuple[int, int]]:
    """Yield every op before `writer` that reads the memory of a place, or waits for who does."""
    for reader in readers.of(place):
        # A split exchange reads, and a ragged one writes, until its done half is through.
        for op in (reader, readers.graph.done_of.get(reader, reader)):
            if op < writer:
                yield op, writer


class _Readers:
    """Finds who reads the memory that a value names, under whatever name."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kept = {op.id: _handed_on(op) for op in graph.ops if op.kind == "while"}

    def of(self, place: _Place) -> set[int]:
        """Return the ops that read the memory of a place, ops that only rename it left out."""
        found, seen = set(), set()
        stack = list(self._origins(place))
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            for user in self.graph.users[name[0]]:
                stack.extend(self._renamed(name, user))
                if not _renames(self.graph.ops[user]):
                    found.add(user)
        return found

    def _renamed(self, place: _Place, user: int) -> Iterator[_Place]:
        """Yield the places that an op gives the same memory."""
        (value, leaf), op = place, self.graph.ops[user]
        if op.kind == "get_tuple_element":
            if leaf is None or op.index == leaf:
                yield user, None
        elif op.kind == "tuple":
            yield from ((user, at) for at, operand in enumerate(op.operands) if operand == value)
        elif _renames(op) or leaf in self.kept.get(user, ()):
            yield user, leaf

    def _origins(self, place: _Place) -> set[_Place]:
        """Follow names back to the ops that made the memory."""
        found, stack = set(), [place]
        while stack:
            value, leaf = stack.pop()
            op = self.graph.ops[value]
            if op.kind == "get_tuple_element":
                stack.append((op.operands[0], op.index))
            elif op.kind == "tuple" and op.operands:
                inside = op.operands if leaf is None else (op.operands[leaf],)
                stack.extend((operand, None) for operand in inside)
            elif op.operands and (_renames(op) or leaf in self.kept.get(value, ())):
                stack.append((op.operands[0], leaf))
            else:
                found.add((value, leaf))
        return found


def _renames(op: Op) -> bool:
    return op.kind in RENAMES


def _donated(graph: Graph, header: str) -> Iterator[tuple[int, int]]:
    """Yield (op that writes an output's memory, parameter whose memory that is)."""
    parameters = {op.index: op.id for op in graph.ops if op.kind == "parameter"}
    for output, number, _ in _DONATION.findall(_aliases(header)):
        leaf = _first_number(output)
        parameter = parameters.get(int(number))
        if parameter is not None and graph.returns:
            for writer in _writers(graph, graph.returns[0], leaf):
                yield writer, parameter


def _aliases(header: str) -> str:
    return header.partition("input_output_alias={")[2].partition("entry_computation_layout")[0]


def _first_number(text: str) -> int:
    return int(next(iter(re.findall(r"\d+", text)), 0))


def _writers(graph: Graph, value: int, leaf: int) -> Iterator[int]:
    """Follow one leaf of a value back through its memory, and yield every op that writes it."""
    op = graph.ops[value]
    while op.operands:
        if op.kind == "tuple":
            value, leaf = op.operands[leaf], 0
        elif op.kind == "get_tuple_element":
            value, leaf = op.operands[0], op.index
        elif _renames(op):
            value = op.operands[0]
        elif op.is_done:
            value = op.start
        elif leaf in _handed_on(op):
            value = op.operands[0]
        else:
            yield op.id
            if not op.overwrites:
                return
            value = op.overwrites[0]
        op = graph.ops[value]
    yield op.id
