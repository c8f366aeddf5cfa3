"""A report as a graph for Model Explorer, with node data to colour it by.

Named scopes become nested layers; every loop body is a graph of its own that its loop links to.
Formats as `ai-edge-model-explorer` 0.1.34 reads them: a graph collection, and per node data file a
dict from graph id to results.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from hlo_passes.facts.roles import Role
from hlo_passes.ir.graph import Graph, Op
from lancet_jax.report.comparison import Comparison
from lancet_jax.report.encode import steps_of
from lancet_jax.report.step import Level

_COLOURS = {
    Role.FORWARD: "#c5ced8", Role.BACKWARD: "#a7b9d1", Role.WEIGHT: "#e6c58d",
    Role.GRADIENT: "#c9c3e6", Role.OPTIMIZER: "#dcdfe2", Role.EXCHANGE: "#9ecae1",
    Role.OTHER: "#eceef0",
}  # fmt: skip

_GRADIENT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#d9480f"}]


def graphs(report: Comparison) -> str:
    """Return the step after the plan as a graph collection.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    levels = _levels(report)
    found = [{"id": level.graph.name, "nodes": list(_nodes(level))} for level in levels]
    return json.dumps({"label": f"{report.name} on {report.after.target}", "graphs": found})


def node_data(report: Comparison) -> dict[str, str]:
    """Return what nodes can be coloured by, each as the text of a node data file.

    `role` is what an op is for, `cost` its us per execution, `exposed` the us of an exchange that
    nothing runs beside.
    """
    levels = _levels(report)
    return {
        name: json.dumps({
            level.graph.name: {"name": f"lancet {name}", "results": values(level), **style}
            for level in levels
        })
        for name, values, style in _DATA
    }  # fmt: skip


def _levels(report: Comparison) -> list[Level]:
    """Return the computations of the step after the plan, each once."""
    step = steps_of(report)[-1][2]
    return list({level.graph.name: level for level in step.levels}.values())


def _nodes(level: Level) -> Iterator[dict[str, Any]]:
    graph = level.graph
    for op in graph.ops:
        yield {
            "id": op.key,
            "label": op.kind,
            "namespace": op.scope or ("parameters" if op.kind == "parameter" else "no scope"),
            "subgraphIds": [inner.name for inner in op.inner],
            "attrs": [{"key": k, "value": v} for k, v in _attributes(level, op) if v],
            "incomingEdges": _edges(graph, op),
            "style": {"backgroundColor": _COLOURS[level.roles[op.id]]},
        }


def _attributes(level: Level, op: Op) -> Iterator[tuple[str, str]]:
    problem = level.simulator.problem
    yield "name", op.name
    yield "role", str(level.roles[op.id])
    yield "us", f"{problem.us[op.id]:.3f}" if problem.us[op.id] else ""
    yield "priced by", str(problem.sources[op.id]) if problem.us[op.id] else ""
    yield "line", op.source
    yield "FLOP", f"{op.flops:.0f}" if op.flops else ""
    yield "bytes", f"{op.collective.bytes if op.collective else op.bytes:.0f}"
    if op.collective is not None:
        yield "phase", str(level.phases.get(op.id, ""))
        yield "exposed us", f"{_exposed(level).get(op.key, 0.0):.3f}"


def _edges(graph: Graph, op: Op) -> list[dict[str, str]]:
    """Return where an op's operands come from; those from outside the computation have no node."""
    return [
        {"sourceNodeId": graph.ops[value.op].key, "targetNodeInputId": str(i),
         "sourceNodeOutputId": str(graph.ops[value.op].results.index(value.id))}
        for i, value in enumerate(graph.values[v] for v in op.operands)
        if value.op >= 0
    ]  # fmt: skip


def _exposed(level: Level) -> dict[str, float]:
    return {w.key: w.exposed_us for w in level.timeline.windows}


def _roles(level: Level) -> dict[str, Any]:
    return {
        op.key: {"value": str(role), "bgColor": _COLOURS[role]}
        for op, role in zip(level.graph.ops, level.roles, strict=True)
    }


def _costs(level: Level) -> dict[str, Any]:
    us = level.simulator.problem.us
    return {op.key: {"value": round(us[op.id], 3)} for op in level.graph.ops if us[op.id]}


def _bare(level: Level) -> dict[str, Any]:
    own = {op.key for op in level.graph.ops}
    return {k: {"value": round(us, 3)} for k, us in _exposed(level).items() if k in own}


_DATA: tuple[tuple[str, Callable[[Level], dict[str, Any]], dict[str, Any]], ...] = (
    ("role", _roles, {}),
    ("cost", _costs, {"gradient": _GRADIENT}),
    ("exposed", _bare, {"gradient": _GRADIENT}),
)
