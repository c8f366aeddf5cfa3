"""Tells XLA which exchanges stay on the fast links inside a node, so that they get a stream there.

Contract
    Marks exchanges whose groups each lie in one node with XLA's frontend attribute
    `collective_communication_domain`; ops, values and order stay. XLA:GPU (jax 0.12) then runs them
    on a stream of their own, beside an exchange between nodes, which has other links. It overlaps
    no two that share more than one device, which could wait for each other for ever.

Before and after
    all_to_all(8 of a node), reduce_scatter(8 nodes)     one after the other
    ->  all_to_all {scale_up_fabric}, reduce_scatter     side by side

Steps
    1. Ask the target's topology, and the order in which a mesh lays out devices, who is where.
    2. Mark a copy, order it with two streams of exchanges, and simulate the whole step; one stream
       competes.

Numerics
    EXACT.

Limits
    Opt-in: XLA calls it experimental. Two exchanges at once are priced as if they shared no link.
    One between nodes whose group has several devices of a node uses the links inside it too, and
    that is not priced. Loops are marked, branches are not. A step lowered for another number of
    devices than the target has stays as it is. An all-to-all that splits one dim and joins another
    becomes the ops that XLA makes of it; ragged ones stay on the other stream.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxlib.mlir import ir
from msgspec.structs import replace

from hlo_passes.base import AnyModule, Context, Pass, PassResult, Tier
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.errors import PlanError
from hlo_passes.ir.collectives import DOMAIN, FABRIC
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.stablehlo.blocks import walk_blocks
from hlo_passes.ir.stablehlo.build import all_to_all, reshape, transpose
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.read import integer, shape_of
from hlo_passes.plans import Plan, Refusal, Stream
from hlo_passes.schedule.timeline import prediction_of
from hlo_passes.split_pass import ordered_timeline

_WORTH = 1e-3
"""A gain below this share of the step does not pay for another program."""

_FRONTEND = "mhlo.frontend_attributes"


@dataclass(frozen=True)
class SeparateTiers(Pass):
    """Give exchanges inside a node a stream of their own, where that makes the step shorter."""

    tier: ClassVar[Tier] = Tier.EXACT
    answers: ClassVar[frozenset[str]] = frozenset({"streams of exchanges"})
    per_device: ClassVar[bool] = True

    def plan(self, graph: Graph, context: Context) -> Plan:
        """Decide which exchanges are marked.

        Raises:
            PlanError: if there is no StableHLO module to mark.
        """
        if context.module is None:
            raise PlanError(self.spec, "only StableHLO can be marked, not a schedule",
                            "pass the module before XLA: lower(...).as_text()")  # fmt: skip
        plan = Plan(module=context.fingerprint, target=context.costs.name, passes=(self.spec,),
                    strategy="one stream")  # fmt: skip
        known = {name for name, _ in walk_blocks(context.module.body)}
        domains = {
            inside.name: ops for inside, _ in graph.walk()
            if inside.name in known and (ops := tuple(_inside(inside, context)))
        }  # fmt: skip
        reason = _why_not(graph, context, domains)
        if reason:
            return replace(plan, refusals=(Refusal(op=graph.name, reason=reason),))
        before = ordered_timeline(graph, context)
        after = ordered_timeline(_marked(context.module, domains).snapshot(), context)
        race = {"one stream": prediction_of(before), "two streams": prediction_of(after)}
        plan = replace(plan, race=race, before=race["one stream"], after=race["one stream"])
        if after.makespan_us > before.makespan_us * (1 - _WORTH):
            why = "exchanges inside a node stay on one stream with the others: two are not shorter"
            return replace(plan, refusals=(Refusal(op=graph.name, reason=why),))
        edits = tuple(
            Stream(by=self.pass_name(), block=block, exchanges=tuple(domains[block]))
            for block in sorted(domains)
        )
        return replace(plan, strategy="two streams", edits=edits, after=race["two streams"])

    def apply(self, module: AnyModule, plan: Plan) -> PassResult:
        """Mark the exchanges.

        Raises:
            PlanError: if the plan is another module's.
        """
        plan.check(module.fingerprint)
        if not plan.streams:
            return PassResult(module, False)
        assert isinstance(module, Module)
        return PassResult(_marked(module, plan.streams), True)


def _inside(graph: Graph, context: Context) -> Iterator[int]:
    """Yield the exchanges whose groups each lie in one node."""
    if isinstance(context.costs, TargetCosts):
        for op in _exchanges(graph):
            assert op.collective is not None
            if op.collective.kind == "ragged_all_to_all":
                continue  # a custom call, on which XLA refuses the mark
            _, nodes = context.costs.reach(op.collective)
            if not op.collective.domain and nodes == 1:
                yield op.id


def _exchanges(graph: Graph) -> Iterator[Op]:
    """Yield the exchanges that talk at all and are XLA's own."""
    for i in graph.exchanges:
        collective = graph.ops[i].collective
        if collective is not None and not collective.opaque and collective.group_size != 1:
            yield graph.ops[i]


def _why_not(graph: Graph, context: Context, domains: Mapping[str, Sequence[int]]) -> str:
    """Say why there is nothing to mark; "" if there is."""
    assert context.module is not None
    if not isinstance(context.costs, TargetCosts):
        return "its costs know no links"
    links = context.costs.target.topology
    if links.nodes == 1:
        return f"all devices of {context.costs.name} are in one node: there is one kind of link"
    if not context.module.is_local:
        return "XLA has not partitioned this step yet: its exchanges are not known"
    if graph.devices != links.devices:
        return f"it is lowered for {graph.devices} devices, and {links.devices} are planned for"
    count = sum(1 for inside, _ in graph.walk() for _ in _exchanges(inside))
    marked = sum(map(len, domains.values()))
    if marked == count:
        return "no exchange leaves its node"
    return "" if marked else "every exchange leaves its node"


def _marked(module: Module, domains: Mapping[str, Sequence[int]]) -> Module:
    """Return a copy with marks on the given ops of every block."""
    clone = module.copy()
    with clone.ir.context:
        for name, block in walk_blocks(clone.body):
            ops = [view.operation for view in block.operations]
            for i in domains.get(name, ()):
                _mark(_in_place(ops[i]))
    clone.verify()
    return clone


def _mark(op: ir.Operation) -> None:
    said = {}
    if _FRONTEND in op.attributes:
        said = {named.name: named.attr for named in ir.DictAttr(op.attributes[_FRONTEND])}
    said[DOMAIN] = ir.StringAttr.get(FABRIC)
    op.attributes[_FRONTEND] = ir.DictAttr.get(said)


def _in_place(op: ir.Operation) -> ir.Operation:
    """Return an exchange that moves no dims, written anew if it does.

    XLA makes several ops of an all-to-all that splits one dim and joins another, hands the mark to
    all of them, and then refuses it on those that exchange nothing. So the same ops are made here.
    """
    if op.name != "stablehlo.all_to_all":
        return op
    split, concat = integer(op, "split_dimension"), integer(op, "concat_dimension")
    if split == concat:
        return op
    dims, peers = shape_of(op.operands[0]), integer(op, "split_count")
    with ir.InsertionPoint(op), op.location:
        blocks = (*dims[:split], peers, dims[split] // peers, *dims[split + 1 :])
        rest = [d for d in range(len(blocks)) if d != split]
        sent = transpose(reshape(op.operands[0], blocks), [split, *rest])
        exchanged = all_to_all(sent, op)
        back = [*range(1, concat + 1), 0, *range(concat + 1, len(blocks))]
        made = reshape(transpose(exchanged, back), shape_of(op.results[0]))
    op.results[0].replace_all_uses_with(made)
    op.erase()
    return exchanged.owner
