"""What to call an exchange when speaking to people: phase, direction and layer.

Phase and direction are dataflow's. The layer is the user's own named scope where scopes tell the
all-to-alls apart, else a number: forward all-to-alls counted in pairs along the path of dependence,
backward ones from the other end.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from hlo_passes.facts.roles import Role, phases_of, roles_of
from hlo_passes.ir.collectives import Phase
from hlo_passes.ir.graph import Graph

_WRAPPED = re.compile(r"[\w.<>]*\(([^()]*)\)")
_STRUCTURE = frozenset({
    "", "shard_map", "while", "body", "cond", "scan", "closed_call", "eval_jaxpr", "checkpoint",
    "rematted_computation", "remat", "pjit", "custom_vjp_call", "custom_jvp_call", "branch_0_fun",
    "branch_1_fun",
})  # fmt: skip
"""Steps of a scope that JAX writes, not the user."""


@dataclass(frozen=True, slots=True)
class Label:
    """What an exchange is called.

    Attributes:
        phase: what it is for.
        backward: whether it belongs to the backward pass.
        layer: name or number of its layer; "" if it has none.
    """

    phase: Phase
    backward: bool
    layer: str

    @property
    def direction(self) -> str:
        """`fwd` or `bwd`."""
        return "bwd" if self.backward else "fwd"

    def __str__(self) -> str:
        """As in `bwd dispatch`; a gradient sum needs no direction."""
        return str(self.phase) if self.phase is Phase.GRADIENT else f"{self.direction} {self.phase}"


def labels_of(graph: Graph, roles: Sequence[Role] | None = None) -> dict[str, Label]:
    """Return the label of every exchange by key, those in loops included.

    Args:
        graph: the step.
        roles: what `roles_of` says of it, where the caller has that already.
    """
    named = _scoped_layers(graph)
    labels: dict[str, Label] = {}
    for inside, _ in graph.walk():
        known = roles if roles is not None and inside is graph else roles_of(inside)
        phases = phases_of(inside)
        backward = {op: is_backward(inside, known, op) for op in phases}
        numbers = {} if named else _numbered_layers(inside, backward, inside is graph)
        for op, phase in phases.items():
            key = inside.ops[op].key
            layer = _layer_in(inside.ops[op].scope, named) or numbers.get(op, "")
            labels[key] = Label(phase, backward[op], layer)
    return labels


def is_backward(graph: Graph, roles: Sequence[Role], exchange: int) -> bool:
    """Whether what an exchange sends comes out of the backward pass, or its scope says so.

    Args:
        graph: one computation.
        roles: of its ops, from `roles_of`.
        exchange: id of the exchange.
    """
    makers = {graph.values[v].op for v in graph.ops[exchange].operands}
    if any(roles[m] in (Role.BACKWARD, Role.WEIGHT) for m in makers if m >= 0):
        return True
    return "transpose(" in graph.ops[exchange].scope


def scope_steps(scope: str) -> tuple[str, ...]:
    """Return the steps of a scope that a user wrote: no transforms, no structure, no primitive."""
    head = scope.rpartition("/")[0]
    while (plain := _WRAPPED.sub(_unwrapped, head)) != head:
        head = plain
    return tuple(step for step in head.split("/") if step not in _STRUCTURE)


def _unwrapped(match: re.Match[str]) -> str:
    """Take off one transform; a jitted function's own name is no scope."""
    return "" if match[0].startswith(("jit(", "pjit(")) else match[1]


def _scoped_layers(graph: Graph) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """Return (what all all-to-alls' scopes begin with, the next step of each), if they differ."""
    scopes = {scope_steps(scope) for scope in _all_to_all_scopes(graph)}
    if not scopes or () in scopes:
        return None
    common = tuple(
        steps[0] for steps in takewhile(lambda s: len(set(s)) == 1, zip(*scopes, strict=False))
    )
    layers = {steps[len(common)] for steps in scopes if len(steps) > len(common)}
    return (common, frozenset(layers)) if len(layers) > 1 else None


def _all_to_all_scopes(graph: Graph) -> Iterator[str]:
    for inside, _ in graph.walk():
        for exchange in inside.exchanges:
            collective = inside.ops[exchange].collective
            if collective is not None and collective.is_all_to_all:
                yield inside.ops[exchange].scope


def _layer_in(scope: str, named: tuple[tuple[str, ...], frozenset[str]] | None) -> str:
    """Return which of the known layers a scope lies in, or ""."""
    if named is None:
        return ""
    steps = scope_steps(scope)[len(named[0]) :]
    return steps[0] if steps and steps[0] in named[1] else ""


def _numbered_layers(graph: Graph, backward: dict[int, bool], top: bool) -> dict[int, str]:
    """Number the all-to-alls of one computation in pairs, backward ones from the other end."""
    tokens = [
        e for e in graph.exchanges if (c := graph.ops[e].collective) is not None and c.is_all_to_all
    ]
    if not top:
        return dict.fromkeys(tokens, "loop")
    ahead = [e for e in tokens if not backward[e]]
    back = [e for e in tokens if backward[e]]
    numbers = {e: f"layer {i // 2}" for i, e in enumerate(ahead)}
    if len(back) == len(ahead):
        numbers |= {e: f"layer {i // 2}" for i, e in enumerate(reversed(back))}
    return numbers
