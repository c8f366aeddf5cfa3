"""Chooses which stretches of the forward pass are cut, and into how many parts: Lancet's choice.

One pipeline per MoE layer, its range grown from the exchanges and experts over whole groups of ops
before and behind them, by the dynamic program of the paper (section 5.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hlo_passes.cost.model import CostModel
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.ir.graph import Graph
from hlo_passes.layers.capacity.sites import Site
from hlo_passes.plans import Split
from hlo_passes.schedule.paper.pipeline import PartPrices, Unrolled
from hlo_passes.schedule.paper.ranges import choose_ranges, groups_of
from hlo_passes.split.known import BlockLayers
from hlo_passes.split.module import TokenCut, cut_tokens


@dataclass(frozen=True)
class Knobs:
    """The paper's knobs.

    Attributes:
        rho: most parts.
        gamma_us: length of an instruction group in us; None for five between two MoE layers.
        iota_us: longest range beside the exchanges in us; None for one MoE layer's interval.
    """

    rho: int = 8
    gamma_us: float | None = None
    iota_us: float | None = None


@dataclass(frozen=True, eq=False)
class Stretch:
    """What may be cut of one block.

    Attributes:
        layers: the block, and the MoE layers in it.
        ops: places of the ops that may be cut.
    """

    layers: BlockLayers
    ops: range

    @property
    def graph(self) -> Graph:
        """The block's graph."""
        return self.layers.graph

    def cut(self, k: int, *, is_dropless: bool = False) -> TokenCut:
        """Work out how it is cut along its tokens.

        Args:
            k: number of parts.
            is_dropless: whether dropless layers are cut, too.
        """
        known = self.layers
        dropless = known.dropless.layers if is_dropless else ()
        return cut_tokens(known.body, known.sites, known.rows, k, self.ops, dropless)


def choose_forward_splits(
    stretch: Stretch, prices_of: CostModel, knobs: Knobs, *, ragged: bool
) -> tuple[Split, ...]:
    """Return what is cut of a block's forward pass.

    Args:
        stretch: what may be cut.
        prices_of: prices for the target.
        knobs: the paper's.
        ragged: whether the backend has ragged exchanges.

    Raises:
        OptionError: if a knob makes no sense.
    """
    graph, ops = stretch.graph, stretch.ops
    cuts = {k: stretch.cut(k) for k in range(2, knobs.rho + 1)}
    usable = {k: cut for k, cut in cuts.items() if cut.sites.puts or cut.sites.fetches}
    spans = _spans(next(iter(usable.values()), None))
    if not spans:
        return ()
    costs = prices_of.for_graph(graph)
    assert isinstance(costs, TargetCosts)
    serial = [_serial_us(graph, place, costs) for place in ops]
    groups = groups_of(serial, spans, knobs.gamma_us)
    prices = _prices(costs)

    def price(first: int, last: int, k: int) -> float | None:
        places = range(groups[first].start, groups[last].stop)
        return _unrolled(graph, places, usable[k], k, costs, prices)

    ranges = choose_ranges(
        groups,
        [sum(serial[place] for place in group) for group in groups],
        price,
        exchange_spans=spans,
        parts=tuple(sorted(usable)),
        iota_us=knobs.iota_us,
    )
    return tuple(
        Split(
            by="split-region",
            block=graph.name,
            first=groups[chosen.first].start,
            last=groups[chosen.last].stop - 1,
            k=chosen.k,
            ragged=ragged,
        )
        for chosen in ranges.chosen
    )


def splits_of_reach(
    stretch: Stretch,
    prices_of: CostModel,
    k: int,
    reach: int,
    gamma_us: float | None = None,
    *,
    ragged: bool,
) -> tuple[Split, ...]:
    """Return ranges of a given length around every MoE layer, however long that makes the step.

    Args:
        stretch: what may be cut.
        prices_of: prices for the target.
        k: number of parts.
        reach: groups beside a layer's exchanges: half before, half behind, the odd one behind.
        gamma_us: length of a group in us; None for five between two MoE layers.
        ragged: whether the backend has ragged exchanges.

    Raises:
        OptionError: if `gamma_us` makes no sense.
    """
    cut = stretch.cut(k)
    spans = _spans(cut)
    if not spans:
        return ()
    costs = prices_of.for_graph(stretch.graph)
    assert isinstance(costs, TargetCosts)
    serial = [_serial_us(stretch.graph, place, costs) for place in stretch.ops]
    groups = groups_of(serial, spans, gamma_us)
    found, begin = [], 0
    for span in spans:
        layer = next(i for i, group in enumerate(groups) if span.start in group)
        first = max(layer - reach // 2, begin)
        begin = min(layer + reach - reach // 2, len(groups) - 1) + 1
        where = groups[first].start, groups[begin - 1].stop - 1
        block = stretch.graph.name
        found.append(
            Split(by="split-region", block=block, first=where[0], last=where[1], k=k, ragged=ragged)
        )
    return tuple(found)


def _spans(cut: TokenCut | None) -> list[range]:
    """Return, per MoE layer, its ops from writing the buffer to reading the answers."""
    if cut is None:
        return []
    spans = []
    for put in cut.sites.puts:
        reads = [fetch.access for fetch in cut.sites.fetches if fetch.exchange > put.exchange]
        if reads:
            spans.append(range(put.access, min(reads) + 1))
    return spans


def _serial_us(graph: Graph, place: int, costs: TargetCosts) -> float:
    op = graph.ops[place]
    if op.collective is not None:
        return costs.exchange(op.collective).us
    return 0.0 if op.is_free or op.inner else costs.compute(op).us


def _prices(costs: TargetCosts) -> PartPrices:
    profile = costs.target.profile
    return PartPrices(profile.launch_us, profile.hbm_bytes_per_s * profile.hbm_share("copy"))


def _inside(sites: Sequence[Site], places: range) -> list[Site]:
    return [site for site in sites if site.access in places and site.exchange in places]


def _unrolled(
    graph: Graph, places: range, cut: TokenCut, k: int, costs: TargetCosts, prices: PartPrices
) -> float | None:
    """Return the length of a cut range in us; None if it holds no exchange to send in parts."""
    puts = {site.exchange: site for site in _inside(cut.sites.puts, places)}
    fetches = {site.access: site for site in _inside(cut.sites.fetches, places)}
    splits = {i: split for i, split in cut.states.splits.items() if i in places}
    if not puts or not splits:
        return None
    paths = [
        path
        for path in cut.sites.paths
        if path.put.exchange in puts and path.fetch.access in fetches
    ]
    return Unrolled(graph, places, splits, puts, fetches, paths, k, costs, prices).us()
