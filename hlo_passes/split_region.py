"""Cuts a step along its tokens, so that exchanges of one part run beside compute of another.

Contract
    Ops before and after the exchanges of a MoE layer run once per part. Parts are contiguous in the
    order of tokens, and a prefix count of used capacity goes on from part to part, so that every
    token goes where it went and the same ones are dropped. Tokens are sent as rows. Experts that
    treat every row alone run on the rows of one part, in batches of fixed size, as many as it takes
    (`split/row_batches.py`), so that no part waits for another; what others read of that is put
    together where the whole exchange would have put it. Other experts run once, on the same buffer
    as ever. A gate that needs the whole batch stays whole; then only what follows it is cut.
    A dropless layer has no capacity to share: every part counts, sorts, sends and groups rows of
    its own, in buffers of a k-th of the room, and keeps them there for the backward pass.

Before and after
    attention, gate, scatter, all_to_all, experts, all_to_all, gather, attention
    ->  attention_0, gate_0, rows_0 [ attention_1, gate_1 ], rows_1 [ experts_0 ],
        answers_0 [ experts_1 ], answers_1 [ attention_0 ], attention_1

Steps
    1. Where tokens are dispatched and combined by products with a one-hot mask, write and read
       their rows by index instead (`split/index_rows.py`), if the mask is proved to be one
       (`proofs/one_hot.py`). Only a step that is then cut keeps that.
    2. Find where tokens are put into, and fetched from, buffers that are exchanged, and prove that
       no two tokens share a row there (`proofs/distinct.py`). Of ragged exchanges, prove that
       rows are grouped by expert, fit in any case, and are treated one by one in between
       (`layers/dropless/`).
    3. Spread the cut from there over everything that has a rule.
    4. For every k that divides the tokens, cut a copy, order it and simulate the whole step; the
       best k wins, and no cut at all competes. Forward only: the paper's dynamic program chooses
       ranges and their k first (`forward_ranges`); what it chose, what it would choose if there
       were halves alone, and no cut compete.

Numerics
    REASSOCIATES: sums over tokens (gradients of weights and biases, losses) are added up part by
    part. Routing and drops are identical. A sum of n terms of magnitude m in a type of precision u
    may differ by 2 n u m; totals of 16-bit numbers are kept in 32 bits and rounded once.
    Where the step itself jumps (the derivative of a ReLU at zero, two experts with equal scores),
    rounding may fall on either side, as it may between any two programs.
    A product with a one-hot mask turns one number that is not finite into a whole buffer of NaN,
    rows by index do not: a step that overflows may have fewer NaN than it had.

Limits
    Without `ragged_all_to_all` (XLA:CPU) the room for k parts is sent: for tests, not for speed.
    One-hot products stay where the mask is a sum of several whose rows are counted apart (GShard's
    two choices, written out), or slots are not counted as a prefix sum of one-hot experts.
    Dropless layers stay whole whose buffer may overflow, whose rows are grouped otherwise than by
    expert, or which are cut in the forward pass alone: its rows lie elsewhere in buffers of parts,
    where the backward pass would not find them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from hlo_passes.base import Context
from hlo_passes.errors import OptionError
from hlo_passes.facts.roles import Role, roles_of
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.blocks import exchanges_of, ragged_exchanges_of
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Refusal, Split
from hlo_passes.split.forward_ranges import Knobs, Stretch, choose_forward_splits, splits_of_reach
from hlo_passes.split.known import layers_of
from hlo_passes.split.unmask import Indexed, index_module
from hlo_passes.split_pass import CutVariant, PartsPass


@dataclass(frozen=True)
class SplitRegion(PartsPass):
    """Cut a step along its tokens.

    Attributes:
        k: number of parts; none to try every number up to `rho`.
        direction: `both`, or `forward` alone as the paper does.
        rho: most parts.
        gamma_us: forward only: length of an instruction group; none for five between MoE layers.
        iota_us: forward only: longest range beside the exchanges; none for one layer's interval.
        reach: forward only: groups to cut beside every MoE layer's exchanges, half of them before
            and half behind, instead of what the dynamic program chooses: the paper's figure 6.
        memory_limit: bytes of temporary memory that a cut step may need; none for no limit.
        memory_slack: share by which that may grow over the uncut step's; none for any. The default
            counts where predictions decide and no number of parts is given: where XLA's own
            modules decide, the device's memory does.
    """

    direction: Literal["both", "forward"] = "both"
    gamma_us: float | None = None
    iota_us: float | None = None
    reach: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether parts, or a range, are given."""
        return self.reach is not None or super().is_settled

    def candidates(self, module: Module, graph: Graph, context: Context) -> Iterator[CutVariant]:
        """Yield the cut into every number of parts, or what the dynamic program chooses.

        Raises:
            OptionError: if `reach` is negative, or given for both directions.
        """
        indexed = self._indexed(module, graph)
        is_new = indexed.module is not module
        with indexed.module.ir.context:
            now = indexed.module.snapshot() if is_new else graph
            for candidate in self._candidates(indexed.module, now, context):
                yield _in_terms_of(graph, candidate, indexed)

    def _indexed(self, module: Module, graph: Graph) -> Indexed:
        """Return the module with one-hot products replaced by rows, where it may be cut."""
        regions = {inside.name: self._region(inside) for inside, _ in graph.walk()}
        return index_module(module, regions)

    def _candidates(self, module: Module, graph: Graph, context: Context) -> Iterator[CutVariant]:
        """Yield the cuts of a module without one-hot products."""
        stretches = tuple(self._stretches(module, graph))
        if self.reach is not None:
            if self.reach < 0 or self.direction == "both":
                raise OptionError(self.spec, "reach counts groups of the forward pass",
                                  "say direction=forward,reach=0")  # fmt: skip
            for k in self.parts:
                yield CutVariant(self._reaching(stretches, context, k, self.reach))
            return
        if self.direction == "both" or self.k is not None:
            for k in self.parts:
                yield _candidate(stretches, k, context.ragged)
            return
        told = _candidate(stretches, self.parts[0], context.ragged).refusals
        # The program prices every range by itself, so that it cuts too finely where exchanges of
        # several layers and gradients queue up: its choice of halves competes in the whole step.
        halves = self._ranges(stretches, context, 2)
        chosen = self._ranges(stretches, context, self.rho) if self.rho > 2 else halves
        for splits in dict.fromkeys((halves, chosen)):
            yield CutVariant(splits, told)

    def _stretches(self, module: Module, graph: Graph) -> Iterator[Stretch]:
        """Yield what may be cut of every block that exchanges."""
        for layers in layers_of(module, graph).values():
            yield Stretch(layers, self._region(layers.graph))

    def _ranges(
        self, stretches: Sequence[Stretch], context: Context, rho: int
    ) -> tuple[Split, ...]:
        """Return the ranges of every block that the paper's dynamic program chooses."""
        knobs = Knobs(rho, self.gamma_us, self.iota_us)
        return tuple(
            split
            for stretch in stretches
            for split in choose_forward_splits(stretch, context.costs, knobs, ragged=context.ragged)
        )

    def _reaching(
        self, stretches: Sequence[Stretch], context: Context, k: int, reach: int
    ) -> tuple[Split, ...]:
        """Return ranges of a given length, in every block."""
        return tuple(
            split
            for stretch in stretches
            for split in splits_of_reach(
                stretch, context.costs, k, reach, self.gamma_us, ragged=context.ragged
            )
        )

    def _region(self, graph: Graph) -> range:
        """Return the ops that may be cut: all, or the forward pass."""
        if self.direction == "both":
            return range(len(graph.ops))
        forward = [i for i, role in enumerate(roles_of(graph)) if role is Role.FORWARD]
        return range(1 + max(forward, default=0))


def _candidate(stretches: Sequence[Stretch], k: int, ragged: bool) -> CutVariant:
    """Return what is cut into k parts, and what is not although it might."""
    splits: list[Split] = []
    refusals: list[Refusal] = []
    for stretch in stretches:
        known, graph, ops = stretch.layers, stretch.graph, stretch.ops
        body, sites, layers = known.body, known.sites, known.dropless
        found = stretch.cut(k, is_dropless=True)
        waits = known.rows.refusals.items()
        whole = [
            *sites.refusals, *layers.refusals, *found.refusals,
            *sorted(found.states.refusals.items()), *waits,
        ]  # fmt: skip
        refusals += [_refusal(graph, place, f"stays whole: {reason}") for place, reason in whole]
        if found.sites.any:
            splits.append(
                Split(
                    by="split-region",
                    block=graph.name,
                    first=ops.start,
                    last=ops.stop - 1,
                    k=k,
                    ragged=ragged,
                )
            )
        else:
            has_sites = sites.puts or sites.fetches or layers.layers
            why = f"its tokens have no {k} equal parts" if has_sites else (
                "no exchange sends rows by index, or by a mask that is proved to be one-hot"
            )  # fmt: skip
            reason = f"nothing is cut into {k} parts: {why}"
            place = min(exchanges_of(body) + ragged_exchanges_of(body))
            refusals.append(_refusal(graph, place, reason))
    return CutVariant(tuple(splits), tuple(refusals))


def _in_terms_of(graph: Graph, candidate: CutVariant, indexed: Indexed) -> CutVariant:
    """Return a cut of a module with rows as one of the module that has products instead."""
    names = indexed.names
    splits = tuple(
        replace(split, block=names[split.block], indexed=indexed.chosen.get(names[split.block], ()))
        for split in candidate.splits
    )
    graphs = {inside.name: inside for inside, _ in graph.walk()}
    told = tuple(
        _refusal(graphs[name], place, f"its one-hot products stay: {reason}")
        for name, place, reason in indexed.refusals
    )
    return CutVariant(splits, (*candidate.refusals, *told))


def _refusal(graph: Graph, place: int, reason: str) -> Refusal:
    op = graph.ops[place]
    return Refusal(op=op.key, reason=reason, source=op.source)
