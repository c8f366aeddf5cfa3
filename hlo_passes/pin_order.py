"""Makes an order stick in StableHLO, where XLA has no post-scheduler stage to put it into.

Contract
    Ties exchanges to the ops that stand beside them in the module's own order, with
    `stablehlo.optimization_barrier`. Values pass through unchanged; nothing is added but barriers.
    A barrier is alive while XLA's latency-hiding scheduler runs and is gone afterwards.

Before and after
    %a = all_to_all(%x)            %x1, %l1 = barrier(%x, %l)     # D may not run before A may start
    %d = dot_general(%l, %r)       %a = all_to_all(%x1)
    %y = use(%a)                   %d = dot_general(%l1, %r)
                                   %a1, %d1 = barrier(%a, %d)     # who waits for A waits for D
                                   %y = use(%a1)

Steps
    1. For every all-to-all, take the matrix products between it and its first reader.
    2. Follow each product through the transposes and casts that only it feeds: a barrier right on
       the product costs a copy of every expert gradient.
    3. Tie results behind the exchange, and operands in front of it where they are there by then.
    4. Sort the block: a reader that stood before a barrier moves behind it.

Numerics
    REASSOCIATES. The program computes the same in the same order, but XLA does not fuse across a
    barrier: XLA:CPU has been seen to round one weight of one step differently, by 2e-8 of its
    largest element. Without the barriers the same order is bit-identical.

Limits
    XLA must run its latency-hiding scheduler (default on Hopper and Blackwell, a flag elsewhere)
    and may still move an op just before the window. XLA:CPU drops barriers.
"""

from dataclasses import dataclass
from typing import ClassVar

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.errors import PlanError
from hlo_passes.facts.reach import Reach
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.stablehlo.edit import barrier, sort_block, tie
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.plans import Pin, Plan, Refusal

_PASSING = frozenset({"transpose", "reshape", "convert"})


@dataclass(frozen=True)
class PinOrder(Pass):
    """Tie every all-to-all to the matrix products that stand beside it.

    Attributes:
        before: also keep those products from starting before the exchange can.
    """

    tier: ClassVar[Tier] = Tier.REASSOCIATES
    answers: ClassVar[frozenset[str]] = frozenset({"pins"})

    before: bool = True

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Read the windows off the module's order."""
        reach = Reach.of(graph)
        pins, refusals = [], []
        taken: set[int] = set()
        for exchange in graph.exchanges:
            collective = graph.ops[exchange].collective
            if collective is None or not collective.is_all_to_all:
                continue
            pin = self._pin(graph, reach, exchange, taken)
            if pin.sinks:
                pins.append(pin)
            else:
                op = graph.ops[exchange]
                reason = "no matrix product stands between the exchange and its first reader"
                refusals.append(Refusal(op=op.key, reason=reason, source=op.source))
        return Plan(
            module=context.fingerprint,
            target=context.costs.name,
            passes=(self.spec,),
            strategy="barriers",
            edits=tuple(pins),
            refusals=tuple(refusals),
        )

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Insert the barriers.

        Raises:
            PlanError: if the module is scheduled HLO, or the plan is another module's.
        """
        if not isinstance(module, Module):
            raise PlanError(module.path, "barriers go into StableHLO, this is HLO",
                            "use schedule-dw, which edits the schedule itself")  # fmt: skip
        plan.check(module.fingerprint)
        if not plan.pins:
            return PassResult(module, False)
        clone = module.copy()
        with clone.ir.context:
            _insert(clone, plan)
        clone.verify()
        return PassResult(clone, True)

    def _pin(self, graph: Graph, reach: Reach, exchange: int, taken: set[int]) -> Pin:
        """Collect the products in one exchange's window that no earlier window has taken."""
        readers = graph.succs[exchange]
        last = min(readers, default=exchange)
        products = [
            op.id
            for op in graph.ops[exchange + 1 : last]
            if op.matmul and op.id not in taken and reach.may_overlap(op.id, exchange)
        ]
        taken.update(products)
        # A barrier in front of the exchange and one in front of its first reader keep the block's
        # order, and so close no circle, if all they wait for stands before them and whoever waits
        # for them behind.
        sinks = {product: _sink(graph, product, last) for product in products}
        tied = [p for p in products if all(r >= last for r in graph.succs[sinks[p]])]
        starts = [p for p in tied if self.before and all(b < exchange for b in graph.preds[p])]
        return Pin(
            by=self.pass_name(),
            exchange=exchange,
            sinks=tuple(sinks[p] for p in tied),
            starts=tuple(starts),
        )


def _sink(graph: Graph, product: int, before: int) -> int:
    """Follow a product through ops that only rearrange or cast it, as long as nobody else reads."""
    op = product
    while True:
        readers = graph.users[graph.ops[op].results[0]]
        if len(readers) != 1 or readers[0] >= before:
            return op
        if graph.ops[readers[0]].kind not in _PASSING:
            return op
        op = readers[0]


def _insert(module: Module, plan: Plan) -> None:
    """Add the barriers of every pin, then sort."""
    ops = [view.operation for view in module.body.operations]
    for pin in plan.pins:
        exchange = ops[pin.exchange]
        if pin.starts:
            operands = [exchange.operands[0], *(ops[s].operands[0] for s in pin.starts)]
            tied = barrier(module.body, operands)
            for op, value in zip([exchange, *(ops[s] for s in pin.starts)], tied, strict=True):
                op.operands[0] = value
        ends = [exchange.results[0], *(ops[s].results[0] for s in pin.sinks)]
        tie(module.body, ends)
    sort_block(module.body)
