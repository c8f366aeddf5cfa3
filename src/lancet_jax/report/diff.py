"""Two modules, or two schedules of one, compared: ops, order, bytes, exposed time by layer."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hlo_passes.facts.diff import Changes, changes_between
from hlo_passes.ir.graph import Graph, Op
from lancet_jax.report.inspection import InspectedExchange, Inspection
from lancet_jax.report.inspection_text import what_of

_NAMED = 10
"""How many ops of a sort are printed; JSON has them all."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """The exchanges of one layer, direction and phase on both sides; None where there are none.

    Attributes:
        name: as `bwd dispatch block_2`.
        bytes, us, exposed_us: sums per step, first and second module.
    """

    name: str
    bytes: tuple[float | None, float | None]
    us: tuple[float | None, float | None]
    exposed_us: tuple[float | None, float | None]


@dataclass(frozen=True)
class Diff:
    """What differs between two modules.

    Attributes:
        first, second: both, priced for the same target.
        changes: their ops, compared.
        layers: their exchanges, compared.
    """

    first: Inspection
    second: Inspection
    changes: Changes
    layers: tuple[LayerChange, ...]

    @staticmethod
    def of(first: Inspection, a: Graph, second: Inspection, b: Graph) -> "Diff":
        """Compare two inspected graphs.

        Args:
            first: the one, inspected.
            a: its graph.
            second: the other, inspected.
            b: its graph.
        """
        return Diff(first, second, changes_between(a, b), tuple(_layers(first, second)))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        c = self.changes
        return {
            "target": self.second.target,
            "totals": {name: [old, new] for name, old, new in _totals(self)},
            "layers": [asdict(layer) for layer in self.layers],
            "same": len(c.same),
            "added": [_op(op) for op in c.added],
            "gone": [_op(op) for op in c.gone],
            "changed": [{"before": _op(x), "after": _op(y)} for x, y in c.changed],
            "moved": [_op(y) for _, y in c.moved],
        }


def _op(op: Op) -> dict[str, Any]:
    return {"op": op.key, "name": op.name, "kind": op.kind, "flops": op.flops, "bytes": op.bytes,
            "line": op.source}  # fmt: skip


def _totals(diff: Diff) -> Iterator[tuple[str, float, float]]:
    a, b = diff.first.timeline, diff.second.timeline
    yield "step us", a.makespan_us, b.makespan_us
    yield "compute us", a.compute_us, b.compute_us
    yield "exchanges us", a.exchange_us, b.exchange_us
    yield "exposed us", a.exposed_us, b.exposed_us
    yield "exchanged MiB", _mebibytes(diff.first), _mebibytes(diff.second)
    yield "temp memory MiB", a.peak_bytes / 2**20, b.peak_bytes / 2**20
    yield "ops", diff.first.ops, diff.second.ops


def _mebibytes(found: Inspection) -> float:
    return sum(e.bytes * e.times for e in found.exchanges) / 2**20


def _layers(first: Inspection, second: Inspection) -> Iterator[LayerChange]:
    sides = [_by_name(first), _by_name(second)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        groups = [side.get(name) for side in sides]
        yield LayerChange(
            name,
            _pair(groups, lambda e: e.bytes * e.times),
            _pair(groups, lambda e: e.us * e.times),
            _pair(groups, lambda e: e.exposed_us * e.times),
        )


def _pair(
    groups: list[list[InspectedExchange] | None], of: Any
) -> tuple[float | None, float | None]:
    a, b = (None if group is None else float(sum(map(of, group))) for group in groups)
    return a, b


def _by_name(found: Inspection) -> dict[str, list[InspectedExchange]]:
    groups: dict[str, list[InspectedExchange]] = defaultdict(list)
    for e in found.exchanges:
        groups[f"{what_of(e)} {e.layer}".rstrip()].append(e)
    return groups


def show_diff(diff: Diff, console: Console) -> None:
    """Print a comparison."""
    c = diff.changes
    console.print(f"{diff.first.module} and {diff.second.module}, priced for {diff.second.target}",
                  style="bold")  # fmt: skip
    totals = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    totals.add_column("per step, predicted", min_width=24)
    for name in ("first", "second", ""):
        totals.add_column(name, justify="right", min_width=9)
    for name, old, new in _totals(diff):
        totals.add_row(name, f"{old:,.0f}", f"{new:,.0f}", _percent(old, new))
    console.print(totals)
    if diff.layers:
        console.print(_layer_table(diff))
    console.print(f"ops: {len(c.same):,} the same, {len(c.moved)} of them moved; {len(c.changed)} "
                  f"changed, {len(c.added)} added, {len(c.gone)} gone")  # fmt: skip
    for title, ops in (
        ("moved", [y for _, y in c.moved]), ("changed", [y for _, y in c.changed]),
        ("added", c.added), ("gone", c.gone),
    ):  # fmt: skip
        for op in sorted(ops, key=lambda op: -op.flops - op.bytes)[:_NAMED]:
            console.print(f"  {title:8}{op.name}  {op.key}", no_wrap=True, overflow="ellipsis")
        if len(ops) > _NAMED:
            console.print(f"  and {len(ops) - _NAMED} more {title}: --json has them all")


def _percent(old: float, new: float) -> str:
    return "" if abs(new - old) < 0.5e-3 * abs(old) or not old else f"{(new - old) / old:+.1%}"


def _layer_table(diff: Diff) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("exchange", no_wrap=True, overflow="ellipsis", min_width=24)
    for name in ("MiB", "us", "exposed us"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in diff.layers:
        table.add_row(layer.name, _arrow(layer.bytes, 2**20, 2), _arrow(layer.us),
                      _arrow(layer.exposed_us))  # fmt: skip
    return table


def _arrow(pair: tuple[float | None, float | None], unit: float = 1, digits: int = 0) -> str:
    old, new = ("-" if value is None else f"{value / unit:,.{digits}f}" for value in pair)
    return old if old == new else f"{old} -> {new}"
