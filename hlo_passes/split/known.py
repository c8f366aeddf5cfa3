"""What was found out about a module, kept for as long as the module is: nothing is analysed twice.

A module is never edited once somebody holds it: passes work on copies. So what is true of it stays
true, and several ways to cut it share what they need to know.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from weakref import WeakKeyDictionary

from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.blocks import exchanges_of, ragged_exchanges_of, walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.row_paths import RowPaths, find_row_paths
from hlo_passes.layers.capacity.sites import Sites, find_sites
from hlo_passes.layers.dropless.layers import DroplessLayers, find_layers
from hlo_passes.plans import Split
from hlo_passes.split.module import groups_of


@dataclass(frozen=True, eq=False)
class BlockLayers:
    """The MoE layers of one block.

    Attributes:
        body, graph: the block, and its graph.
        sites: its exchanges that send rows.
        rows: what happens to rows between them.
        dropless: its dropless layers.
    """

    body: Body
    graph: Graph
    sites: Sites
    rows: RowPaths
    dropless: DroplessLayers


@dataclass
class _Known:
    """What is known of one module.

    Attributes:
        layers: of every block that exchanges, by name; None if nobody has asked.
        cut: what splits make of it.
    """

    layers: Mapping[str, BlockLayers] | None = None
    cut: dict[tuple[Split, ...], Module] = field(default_factory=dict)


@cache
def _all() -> "WeakKeyDictionary[Module, _Known]":
    return WeakKeyDictionary()


def _of(module: Module) -> _Known:
    return _all().setdefault(module, _Known())


def layers_of(module: Module, graph: Graph) -> Mapping[str, BlockLayers]:
    """Return the MoE layers of every block of a module that exchanges; its context is active."""
    known = _of(module)
    if known.layers is None:
        graphs = {inside.name: inside for inside, _ in graph.walk()}
        bodies = {name: Body(block) for name, block in walk_blocks(module.body)}
        known.layers = {
            name: _found(body, graphs[name], graph.devices)
            for name, body in bodies.items()
            if exchanges_of(body) or ragged_exchanges_of(body)
        }
    return known.layers


def _found(body: Body, graph: Graph, devices: int) -> BlockLayers:
    sites = find_sites(body)
    dropless = find_layers(body, sites.numbers, groups_of(graph, devices), devices)
    return BlockLayers(body, graph, sites, find_row_paths(body, sites), dropless)


def keep_cut(module: Module, splits: tuple[Split, ...], made: Module) -> None:
    """Keep what splits make of a module, for whoever follows that plan.

    Args:
        module: what is cut.
        splits: how.
        made: what comes of it.
    """
    _of(module).cut[splits] = made


def take_cut(module: Module, splits: tuple[Split, ...]) -> Module | None:
    """Return what was kept for the same splits; it is the caller's from now on."""
    return _of(module).cut.pop(splits, None)
