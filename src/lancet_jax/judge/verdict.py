"""The judge's figures of one step."""

from dataclasses import dataclass

from hlo_passes.cost.roofline import TargetCosts
from lancet_jax.judge.host import Host, Load
from lancet_jax.judge.listing import read_listing
from lancet_jax.judge.prices import Prices
from lancet_jax.judge.streams import Kind, Replay

_EXCHANGES = (Kind.ALL_TO_ALL, Kind.OTHER_EXCHANGE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One step, replayed from its final schedule. All times in us, modelled and not measured.

    Attributes:
        step_us: its length; the three parts below and `idle_us` add up to it.
        compute_only_us: compute with no exchange beside it.
        overlapped_us: compute and an exchange at once.
        exposed_us: an exchange with no compute beside it.
        exposed_all_to_all_us: the part of `exposed_us` that all-to-alls cause.
        idle_us: neither: the host decides how to go on.
        compute_us, exchange_us: busy time of the two streams.
        sources: lines by where their price is from: `xla`, `roofline`, `link`, `measured`.
    """

    step_us: float
    compute_only_us: float
    overlapped_us: float
    exposed_us: float
    exposed_all_to_all_us: float
    idle_us: float
    compute_us: float
    exchange_us: float
    sources: dict[str, int]

    @property
    def bound_us(self) -> float:
        """What no schedule of this program beats: the longer of compute and exchange."""
        return max(self.compute_us, self.exchange_us)


def judge(
    text: str,
    costs: TargetCosts,
    *,
    load: Load | None = None,
    overlaps: bool = True,
    path: str = "<module>",
) -> Verdict:
    """Replay a scheduled module on a compute stream and an exchange stream.

    Args:
        text: HLO as XLA left it: `compiled.as_text()`.
        costs: figures of the target.
        load: how the routing loads the busiest device; balanced by default.
        overlaps: False to wait for every exchange at once, as a framework without any overlap does.
        path: where the text came from, for messages.

    Raises:
        InputError: if the text is no scheduled HLO, or the schedule is illegal.
    """
    listing = read_listing(text, path)
    host = Host(listing, Prices(listing, costs), costs.decide_us, load or Load(), overlaps)
    host.queue()
    replay = Replay(costs.contention)
    replay.run(host.compute, host.exchange)
    return _verdict(replay, dict(host.sources))


def _verdict(replay: Replay, sources: dict[str, int]) -> Verdict:
    def total(computes: bool, *exchanges: Kind | None) -> float:
        return sum(
            us for (compute, exchange), us in replay.times.items()
            if (compute is Kind.COMPUTE) is computes and exchange in exchanges
        )  # fmt: skip

    both, alone = total(True, *_EXCHANGES), total(True, None)
    exposed = total(False, *_EXCHANGES)
    return Verdict(
        step_us=replay.now,
        compute_only_us=alone,
        overlapped_us=both,
        exposed_us=exposed,
        exposed_all_to_all_us=total(False, Kind.ALL_TO_ALL),
        idle_us=total(False, None),
        compute_us=both + alone,
        exchange_us=both + exposed,
        sources=sources,
    )
