"""What people get of a step: one comparison, and every way to look at it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hlo_passes.files import write_atomically
from hlo_passes.ir.graph import Graph
from hlo_passes.plans import Split
from hlo_passes.schedule.pareto import Point
from lancet_jax.report.comparison import Comparison
from lancet_jax.report.data import data_of
from lancet_jax.report.encode import stem_of
from lancet_jax.report.html import frame, page
from lancet_jax.report.pareto import pareto_of
from lancet_jax.report.text import render


@dataclass(frozen=True)
class Report(Comparison):
    """What one step exposes before and after, and why; its fields are those of `Comparison`.

    `print` it, end a notebook's cell with it, or save it as a page.
    """

    def __str__(self) -> str:
        return render(self)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame that the notebook's own style cannot reach."""
        return frame(self)

    def to_html(self) -> str:
        """Return the report as one HTML page that needs nothing else, neither files nor network.

        Raises:
            UnsupportedError: if the report was made without the step's graph.
        """
        return page(self)

    def save_html(self, path: str | Path) -> None:
        """Write the report's page to `path`, whole or not at all.

        Raises:
            InputError: if it cannot be written there.
        """
        write_atomically(Path(path), self.to_html().encode())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, times in us and sizes in bytes."""
        return data_of(self)

    def pareto(self) -> tuple[Point, ...]:
        """Return step time against temporary memory, of all that is worth having.

        Orders the step under several limits of memory: as long again as planning took.

        Raises:
            UnsupportedError: if the report was made without the step's graph.
        """
        return pareto_of(self)


def pieces_of(graph: Graph, splits: Sequence[Split]) -> frozenset[str]:
    """Return what the ops that `splits` cut are called, without ordinals: parts keep their scope.

    Args:
        graph: the step that the splits were planned for.
        splits: what is cut.
    """
    blocks = {inside.name: inside for inside, _ in graph.walk()}
    found = set()
    for split in splits:
        block = blocks.get(split.block)
        if block is not None:
            # With one-hot products become rows, a block has more ops than it had.
            last = min(split.last, len(block.ops) - 1)
            places = split.only or range(split.first, last + 1)
            found |= {stem_of(block.ops[p].key) for p in places if not block.ops[p].is_free}
    return frozenset(found)
