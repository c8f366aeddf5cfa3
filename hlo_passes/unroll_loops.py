"""Runs microbatches of gradient accumulation side by side, as parts that are cut already.

Contract
    A counted loop whose body exchanges does several trips at once. What they compute and the order
    in which results are added up stay the same.

Before and after
    loop 4: [ all_to_all, experts ]  ->  loop 2: [ all_to_all_0, all_to_all_1 [ experts_0 ], ... ]

Steps
    1. Find counted loops with an all-to-all in their body.
    2. For every k that divides the trips of one, unroll a copy, order it and simulate the whole
       step; the best k wins, and the step as it is competes. Where trips wait for each other, as
       layers do, nothing is gained, and nothing changes.

Numerics
    EXACT.

Limits
    Twice the activations are alive. Loops whose trips are not a constant are left as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hlo_passes.base import Context, Tier
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.blocks import exchanges_of, walk_blocks
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Refusal, Split
from hlo_passes.split.loops import counted_trips
from hlo_passes.split_pass import CutVariant, PartsPass


@dataclass(frozen=True)
class UnrollLoops(PartsPass):
    """Run several trips of a loop at once.

    Attributes:
        k: trips to run at once; none to try every number up to `rho`.
        rho: most trips at once.
        memory_limit: bytes of temporary memory that an unrolled step may need; none for no limit.
        memory_slack: share by which that may grow over the uncut step's; none for any. The default
            counts where predictions decide and no number of parts is given: where XLA's own
            modules decide, the device's memory does.
    """

    tier: ClassVar[Tier] = Tier.EXACT
    answers: ClassVar[frozenset[str]] = frozenset({"number of trips at once"})

    def candidates(self, module: Module, graph: Graph, context: Context) -> Iterator[CutVariant]:
        """Yield the loops unrolled by every number, and why others are not."""
        loops = [
            (name, len(block.operations), counted_trips(block.owner.operation))
            for name, block in walk_blocks(module.body)
            if name != "main" and exchanges_of(Body(block))
        ]
        for k in self.parts:
            splits, refusals = [], []
            for name, size, trips in loops:
                if trips and trips % k == 0:
                    splits.append(
                        Split(
                            by="unroll-loops",
                            block=name,
                            first=0,
                            last=size - 1,
                            k=k,
                            along="trips",
                        )
                    )
                else:
                    many = f"its {trips} trips are no multiple of {k}" if trips else (
                        "it does not count from 0 to a constant"
                    )  # fmt: skip
                    refusals.append(Refusal(op=name, reason=f"is not unrolled: {many}"))
            yield CutVariant(tuple(splits), tuple(refusals))
