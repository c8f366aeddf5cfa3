"""The judge's figures of one step."""

from dataclasses import dataclass

from hlo_passes.cost.roofline import TargetCosts
from lancet_jax.judge.host import Host, Load
from lancet_jax.judge.listing import read_listing
from lancet_jax.judge.prices import Prices
from lancet_jax.judge.streams import Replay, TaskKind

_EXCHANGES = (TaskKind.ALL_TO_ALL, TaskKind.OTHER_EXCHANGE)


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
        compute_us, exchange_us: busy time of the compute stream, and of those that exchange.
        sources: lines by where their price is from: `xla`, `roofline`, `link`, `measured`.
        fabric_us: the part of `exchange_us` on the stream of the links inside a node, which runs
            beside the other; 0 unless XLA was told of exchanges that stay there.
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
    fabric_us: float = 0.0

    @property
    def bound_us(self) -> float:
        """What no schedule of this program beats: the longest of compute and exchanges."""
        return max(self.compute_us, self.exchange_us - self.fabric_us, self.fabric_us)


def judge(
    text: str,
    costs: TargetCosts,
    *,
    load: Load | None = None,
    overlaps: bool = True,
    path: str = "<module>",
) -> Verdict:
    """Replay a scheduled module on a compute stream and the streams of its exchanges.

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
    replay.run(host.compute, host.exchange, host.fabric)
    return _verdict(replay, dict(host.sources))


def _verdict(replay: Replay, sources: dict[str, int]) -> Verdict:
    def total(computes: bool, *exchanges: TaskKind) -> float:
        return sum(
            us for (compute, *others), us in replay.times.items()
            if (compute is TaskKind.COMPUTE) is computes
            and (any(kind in exchanges for kind in others) if exchanges else not any(others))
        )  # fmt: skip

    def busy(stream: int) -> float:
        return sum(us for kinds, us in replay.times.items() if kinds[stream] is not None)

    both, alone = total(True, *_EXCHANGES), total(True)
    exposed = total(False, *_EXCHANGES)
    return Verdict(
        step_us=replay.now,
        compute_only_us=alone,
        overlapped_us=both,
        exposed_us=exposed,
        exposed_all_to_all_us=total(False, TaskKind.ALL_TO_ALL),
        idle_us=total(False),
        compute_us=both + alone,
        exchange_us=busy(1) + busy(2),
        sources=sources,
        fabric_us=busy(2),
    )
