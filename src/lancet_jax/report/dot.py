"""A report as a graph for Graphviz: the ops that take time, boxed by scope, exchanges in colour."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hlo_passes.ir.graph import Op
from lancet_jax.report.comparison import Comparison
from lancet_jax.report.encode import steps_of
from lancet_jax.report.step import Level

_DEPTH = 3
"""Scopes are boxed so deep, counted from where they first differ."""

_EXPOSED, _HIDDEN, _MOVED, _COMPUTE = "#d9480f", "#9ecae1", "#a9d3cc", "#e4e8ec"


def graph(report: Comparison) -> str:
    """Return the step after the plan in DOT.

    Ops of no length are left out; an edge stands for every path through them.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    step = steps_of(report)[-1][2]
    moved = {m.op for plan in report.plans for m in plan.moves}
    lines = [
        f"digraph {_quoted(report.name)} {{",
        '  node [shape=box, style=filled, fontname="Helvetica", fontsize=10, penwidth=0];',
        '  graph [fontname="Helvetica", fontsize=10, color="#b8bfc6"]; edge [color="#8a9099"];',
    ]
    for number, level in enumerate({lv.graph.name: lv for lv in step.levels}.values()):
        lines += _Drawing(level, f"n{number}_", moved).lines()
    return "\n".join([*lines, "}", ""])


@dataclass
class _Box:
    """A scope: the ops right in it, and the scopes inside."""

    ops: list[Op] = field(default_factory=list)
    inside: dict[str, "_Box"] = field(default_factory=dict)


class _Drawing:
    """One computation; its nodes are `prefix` and the op's id."""

    def __init__(self, level: Level, prefix: str, moved: set[str]) -> None:
        self.level, self.prefix, self.moved = level, prefix, moved
        self.exposed = {w.op: w.exposed_us for w in level.timeline.windows if w.times == 1}
        us = level.simulator.problem.us
        self.shown = [op for op in level.graph.ops if us[op.id] > 0]
        self.boxes = 0

    def lines(self) -> Iterator[str]:
        top = _Box()
        cut = _common([op.scope.split("/") for op in self.shown if op.scope])
        for op in self.shown:
            box = top
            for segment in [s for s in op.scope.split("/")[cut:] if s][:_DEPTH]:
                box = box.inside.setdefault(segment, _Box())
            box.ops.append(op)
        yield from self._box(top, self.level.graph.name, 1)
        for before, op in self._edges():
            yield f"  {self.prefix}{before} -> {self.prefix}{op};"

    def _box(self, box: _Box, name: str, depth: int) -> Iterator[str]:
        space = "  " * depth
        self.boxes += 1
        yield f"{space}subgraph cluster_{self.prefix}{self.boxes} {{"
        yield f"{space}  label={_quoted(name)};"
        yield from (f"{space}  {self._node(op)}" for op in box.ops)
        for segment, inside in box.inside.items():
            yield from self._box(inside, segment, depth + 1)
        yield f"{space}}}"

    def _node(self, op: Op) -> str:
        us = self.level.simulator.problem.us[op.id]
        label = f"{op.name}\\n{us:,.1f} us"
        if op.collective is not None:
            bare = self.exposed.get(op.id, 0.0)
            colour = _EXPOSED if bare > 0 else _HIDDEN
            label += f"\\n{bare:,.1f} us exposed"
        else:
            colour = _MOVED if op.key in self.moved else _COMPUTE
        return f'{self.prefix}{op.id} [label={_quoted(label)}, fillcolor="{colour}"];'

    def _edges(self) -> Iterator[tuple[int, int]]:
        """Yield (before, after) between shown ops, past those of no length."""
        us, preds = self.level.simulator.problem.us, self.level.graph.preds
        sources: list[frozenset[int]] = []
        for op in self.level.graph.ops:
            found = frozenset().union(
                *({p} if us[p] > 0 else sources[p] for p in preds[op.id])
            )  # fmt: skip
            sources.append(found)
            if us[op.id] > 0:
                yield from ((before, op.id) for before in sorted(found))


def _common(paths: Iterable[list[str]]) -> int:
    """Return how many first segments all paths share."""
    count = 0
    for segments in zip(*paths, strict=False):
        if len(set(segments)) > 1:
            break
        count += 1
    return count


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
