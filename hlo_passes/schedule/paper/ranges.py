"""The paper's choice of what to split: ranges of the program, each into k pipelined parts.

Source: section 5.1. What the paper leaves open is fixed here: unsplit groups always compete; a
range's length counts what it takes in beside its exchanges, so that length 0 is the exchanges and
their experts alone (the paper's figure 6); ties go to fewer ranges, then to smaller k, then to
shorter ranges, then to program order. Nothing overlaps across the edge of a range.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from hlo_passes.errors import OptionError

_PER_LAYER = 5
"""Groups between two MoE layers (paper section 7)."""

_SLACK = 1e-9
"""Sums that differ by this fraction alone are the same: rounding neither cuts nor splits."""

_TICKS = 1e6
"""Totals are compared in whole ticks, this many to a us: sums are exact in any order."""

type Price = Callable[[int, int, int], float | None]
"""Prices the groups `first` to `last`, both included, in k parts: us, or None: cannot be split."""

type PeakBytes = Callable[[int, int, int], int]
"""Tells how many bytes the step needs at its peak with groups `first` to `last` in k parts."""


@dataclass(frozen=True, order=True)
class SplitRange:
    """Groups that are split together.

    Attributes:
        first: its first group.
        last: its last group, included.
        k: number of parts.
        us: its price in k parts.
    """

    first: int
    last: int
    k: int
    us: float


@dataclass(frozen=True)
class Refused:
    """A range that would have been faster than unsplit but needs too much memory.

    Attributes:
        range: what was refused.
        needed_bytes: what it needs.
        limit_bytes: what there is.
    """

    range: SplitRange
    needed_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class SplitRanges:
    """What to split.

    Attributes:
        chosen: disjoint ranges in program order; groups in none of them stay unsplit.
        total_us: time of all groups with these ranges split.
        serial_us: time of all groups unsplit; never less than `total_us`.
        priced: number of calls of the price function.
        refused: ranges that memory ruled out, in the order of their last group.
    """

    chosen: tuple[SplitRange, ...]
    total_us: float
    serial_us: float
    priced: int
    refused: tuple[Refused, ...]


def groups_of(
    us: Sequence[float], exchange_spans: Sequence[range], gamma_us: float | None = None
) -> tuple[range, ...]:
    """Cut a program into the instruction groups that ranges are made of (paper section 5.1).

    Every span is a group of its own. Elsewhere a group ends once it is as long as `gamma_us`; ops
    that take no time still join it. What is left before a span or the end is a group as well.

    Args:
        us: serial cost of every op, in program order.
        exchange_spans: per MoE layer, its ops from the dispatch exchange to the combine exchange,
            that one included. Spans that overlap are taken for one.
        gamma_us: length of a group. None: a fifth of the median cost between two spans; of the
            stretches before and behind them if there is nothing between any two.

    Returns:
        Consecutive ranges of op indices that cover the program.

    Raises:
        OptionError: `gamma_us` is not positive, or a span is empty or not inside the program.
    """
    if gamma_us is not None and not gamma_us > 0:
        raise OptionError(f"gamma {gamma_us}", "is no length of a group in us",
                          "use a positive length, or none for a fifth of a layer")  # fmt: skip
    spans = _apart(exchange_spans, len(us))
    gamma = _interval_us(us, spans) / _PER_LAYER if gamma_us is None else gamma_us
    groups: list[range] = []
    at = 0
    for span in spans:
        groups += [*_cut(us, range(at, span.start), gamma), span]
        at = span.stop
    return (*groups, *_cut(us, range(at, len(us)), gamma))


def _apart(spans: Sequence[range], size: int) -> list[range]:
    """Sort spans and unite those that overlap."""
    apart: list[range] = []
    for span in sorted(spans, key=lambda s: (s.start, s.stop)):
        if span.step != 1 or not 0 <= span.start < span.stop <= size:
            raise OptionError(f"exchange span {span}", f"is no stretch of the {size} ops",
                              "give the ops from dispatch to combine, in steps of 1")  # fmt: skip
        if apart and span.start < apart[-1].stop:
            apart[-1] = range(apart[-1].start, max(apart[-1].stop, span.stop))
        else:
            apart.append(span)
    return apart


def _interval_us(us: Sequence[float], spans: Sequence[range]) -> float:
    """Return the median cost between two spans; of all stretches beside them if there is none."""
    begins = [0, *(span.stop for span in spans)]
    ends = [*(span.start for span in spans), len(us)]
    gaps = [math.fsum(us[begin:end]) for begin, end in zip(begins, ends, strict=True)]
    for some in (gaps[1:-1], gaps):
        if costly := [gap for gap in some if gap > 0]:
            return median(costly)
    return math.inf


def _cut(us: Sequence[float], stretch: range, gamma_us: float) -> Iterator[range]:
    """Cut a stretch where the cost since the last cut has reached `gamma_us`."""
    start, length = stretch.start, 0.0
    for op in stretch:
        if length >= gamma_us * (1 - _SLACK) and us[op] > 0:
            yield range(start, op)
            start, length = op, 0.0
        length += us[op]
    if stretch:
        yield range(start, stretch.stop)


def choose_ranges(
    groups: Sequence[range],
    serial_us: Sequence[float],
    price: Price,
    *,
    exchange_spans: Sequence[range],
    parts: Sequence[int],
    iota_us: float | None = None,
    memory: PeakBytes | None = None,
    limit_bytes: int | None = None,
) -> SplitRanges:
    """Choose the ranges to split, and into how many parts (paper section 5.1).

    T(n) = min(T(n - 1) + serial(n), min over i and k of T(i) + P(i, n, k)), the best of every
    choice of disjoint ranges. Every k is tried. `price` is called once for every range within the
    limit that holds a whole span, and every k: at most groups * (groups of the longest range) *
    (number of k) times.

    Args:
        groups: consecutive ranges of op indices that cut no span, as of `groups_of`.
        serial_us: cost of every group unsplit.
        price: cost of a range in k parts, with everything that splitting it costs.
        exchange_spans: as in `groups_of`.
        parts: the k that are allowed, ascending: exact divisors of what is split, up to rho.
        iota_us: what the groups of a range without a span may cost together. None: as much as lies
            between two spans (the median, as in `groups_of`), and no range holds two groups with
            spans: one pipeline per MoE layer.
        memory: peak of the step with a range split; asked where splitting would be faster.
        limit_bytes: what that may be.

    Raises:
        OptionError: `parts` are not ascending from 2 on, `iota_us` is negative, `memory` comes
            without `limit_bytes` or the other way round, or the groups do not go with the costs or
            cut a span.
    """
    _check(parts, iota_us, (memory is None) == (limit_bytes is None), len(groups), len(serial_us))
    layers = _layers(groups, exchange_spans)
    if iota_us is None:
        limit = _interval_us(serial_us, [range(g, g + 1) for g in sorted(layers)])
    else:
        limit = iota_us
    pricing = _Pricing(price, parts, memory, limit_bytes)
    ticks = [_ticks(us) for us in serial_us]
    best = [_Best(0, 0, 0, 0, ())]
    for last in range(len(groups)):
        options = [best[last].skip(ticks[last])]
        beside, held, unsplit = 0.0, 0, 0.0
        for first in reversed(range(last + 1)):
            held += first in layers
            beside += 0.0 if first in layers else serial_us[first]
            unsplit += serial_us[first]
            if beside > limit * (1 + _SLACK) or (iota_us is None and held > 1):
                break
            if held:
                options += map(best[first].split, pricing.faster(first, last, unsplit))
        best.append(min(options))
    total, serial = best[-1].ticks / _TICKS, sum(ticks) / _TICKS
    return SplitRanges(best[-1].ranges, total, serial, pricing.calls, tuple(pricing.refused))


def _check(parts: Sequence[int], iota_us: float | None, bound: bool, groups: int, us: int) -> None:
    """Raise OptionError for what makes no sense."""
    if list(parts) != sorted({k for k in parts if k >= 2}):
        raise OptionError(f"parts {tuple(parts)}", "are not ascending numbers from 2 on",
                          "use the divisors of what is split from 2 to rho, rho >= 2")  # fmt: skip
    if iota_us is not None and not iota_us >= 0:
        raise OptionError(f"iota {iota_us}", "is no length of a range in us",
                          "use 0 for exchanges and experts alone, none for a layer")  # fmt: skip
    if not bound:
        raise OptionError("limit_bytes", "bytes and their limit go together",
                          "give both memory and limit_bytes, or neither")  # fmt: skip
    if groups != us:
        raise OptionError("serial_us", f"there are {us} costs for {groups} groups",
                          "give the cost of every group")  # fmt: skip


def _layers(groups: Sequence[range], spans: Sequence[range]) -> set[int]:
    """Return the groups that hold exchange spans."""
    layers: set[int] = set()
    for span in _apart(spans, groups[-1].stop if groups else 0):
        holds = [g for g, ops in enumerate(groups) if span[0] in ops and span[-1] in ops]
        if not holds:
            raise OptionError(f"exchange span {span}", "is cut by the groups",
                              "take the groups that groups_of makes of these spans")  # fmt: skip
        layers.update(holds)
    return layers


class _Best(NamedTuple):
    """A choice for the groups so far; of two the smaller is better."""

    ticks: int
    count: int
    parts: int
    length: int
    ranges: tuple[SplitRange, ...]

    def skip(self, ticks: int) -> "_Best":
        """Add a group unsplit."""
        return self._replace(ticks=self.ticks + ticks)

    def split(self, new: SplitRange) -> "_Best":
        """Add a range."""
        length = self.length + new.last - new.first + 1
        ticks, parts = self.ticks + _ticks(new.us), self.parts + new.k
        return _Best(ticks, self.count + 1, parts, length, (*self.ranges, new))


@dataclass
class _Pricing:
    """Asks for prices and memory, and keeps count."""

    price: Price
    parts: Sequence[int]
    memory: PeakBytes | None
    limit_bytes: int | None
    calls: int = 0
    refused: list[Refused] = field(default_factory=list)

    def faster(self, first: int, last: int, unsplit_us: float) -> Iterator[SplitRange]:
        """Yield a range in every k that makes it faster than `unsplit_us` and fits."""
        for k in self.parts:
            us = self.price(first, last, k)
            self.calls += 1
            if us is None or us >= unsplit_us * (1 - _SLACK):
                continue
            found = SplitRange(first, last, k, us)
            if self.memory is not None and self.limit_bytes is not None:
                needed = self.memory(first, last, k)
                if needed > self.limit_bytes:
                    self.refused.append(Refused(found, needed, self.limit_bytes))
                    continue
            yield found


def _ticks(us: float) -> int:
    """Return a time in whole ticks."""
    return round(us * _TICKS)
