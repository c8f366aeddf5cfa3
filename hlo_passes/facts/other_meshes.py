"""The same step on another number of devices, or with its experts shared out otherwise.

A module is compiled for one mesh; what another would do follows under stated assumptions:

- Work per device stays. On T devices instead of D there are T/D times the tokens, and an exchange
  of all D devices becomes one of all T. A module whose groups are smaller does not say which of its
  mesh axes grows: that is refused.
- So do the experts of a device, e0, and T * e0 = E are all of them. With e on each device instead,
  E/e devices next to each other form a group that all-to-alls stay in, and T / (E/e) such groups
  hold the same E experts. Tokens and capacity
  stay, so a device sends as many bytes, to fewer peers, and its experts compute as much; their
  weights, gradients and updates are e/e0 times as large, and each expert's gradient is summed over
  the groups that hold it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hlo_passes.errors import OptionError
from hlo_passes.facts.exchange_labels import labels_of
from hlo_passes.facts.moe_roles import MoePart, moe_parts_of
from hlo_passes.facts.reach import Reach
from hlo_passes.facts.roles import Role, roles_of
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.ir.types import TensorType

type Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExpertShapes:
    """The experts of a module.

    Attributes:
        per_device: experts on each device.
        shapes: shapes of one device's expert weights.
    """

    per_device: int
    shapes: frozenset[Shape]


def on_devices(graph: Graph, devices: int) -> Graph:
    """Return a step as it would be on another number of devices, work per device unchanged.

    Raises:
        OptionError: if the module's groups do not say how it would grow.
    """
    if devices == graph.devices:
        return graph
    return replace(
        graph,
        ops=tuple(_regrouped(op, graph.devices, devices) for op in graph.ops),
        devices=devices,
    )


def _regrouped(op: Op, before: int, after: int) -> Op:
    """Let an exchange of all devices be one of all the others; do so in loops as well."""
    inner = tuple(on_devices(body, after) for body in op.inner)
    exchange = op.collective
    if exchange is None:
        return replace(op, inner=inner) if inner else op
    size = exchange.group_size
    if exchange.kind == "collective_permute" or size not in (0, before):
        raise OptionError(
            f"{after} devices",
            f"{op.name} exchanges between {size} of the module's {before}: it does not say which "
            "mesh axis grows",
            f"name a target of {before} devices",
        )
    return replace(op, collective=exchange.over(()), inner=inner)


def experts_of(graph: Graph) -> ExpertShapes:
    """Find the expert weights of a module: what experts' forward products read and nobody sent.

    Raises:
        OptionError: if there are none, or they do not agree on how many experts a device has.
    """
    shapes = _expert_weights(graph)
    stacked = {shape[0] for shape in shapes if len(shape) > 2}
    if not shapes:
        raise OptionError("experts per device",
                          "the module's expert weights are in a loop, or it has none",
                          "leave --experts-per-device out")  # fmt: skip
    if len(stacked) > 1:
        raise OptionError("experts per device",
                          f"expert weights begin with {sorted(stacked)}: no stacks of experts",
                          "leave --experts-per-device out")  # fmt: skip
    return ExpertShapes(stacked.pop() if stacked else 1, frozenset(shapes))


def _expert_weights(graph: Graph) -> set[Shape]:
    """Return the shapes of what experts' forward products read and no exchange has sent."""
    roles, reach = roles_of(graph), Reach.of(graph)
    parts = moe_parts_of(graph, roles, labels_of(graph))
    shapes: set[Shape] = set()
    for op in graph.ops:
        if op.matmul and parts[op.id] is MoePart.EXPERT and roles[op.id] is Role.FORWARD:
            for value in op.operands:
                maker = graph.values[value].op
                if maker < 0 or not reach.before[maker]:
                    shapes |= _weights_behind(graph, value)
    return shapes


def _weights_behind(graph: Graph, value: int) -> set[Shape]:
    """Return the shapes of the arguments that a value is made of, matrices and stacks of them."""
    found: set[Shape] = set()
    work, seen = [value], set()
    while work:
        current = work.pop()
        if current in seen:
            continue
        seen.add(current)
        maker = graph.values[current].op
        if maker < 0 or graph.ops[maker].kind == "parameter":
            found |= {leaf.shape for leaf in graph.values[current].leaves if len(leaf.shape) > 1}
        elif not graph.ops[maker].matmul:
            work += graph.ops[maker].operands
    return found


def with_experts(graph: Graph, per_device: int, known: ExpertShapes) -> Graph:
    """Return a step with another number of experts on each device, and as many in all.

    Args:
        graph: on the number of devices that it is to have.
        per_device: experts on each device.
        known: the experts of the module as it is.

    Raises:
        OptionError: if the experts cannot be shared out so.
    """
    if per_device == known.per_device:
        return graph
    size, devices = _devices_of_all_experts(graph, per_device, known), graph.devices
    ratio = per_device / known.per_device
    heavier = _Scaled(graph, known.shapes, ratio).result()
    rows = tuple(tuple(range(at, at + size)) for at in range(0, devices, size))
    local = replace(heavier, ops=tuple(
        replace(op, collective=op.collective.over(rows))
        if op.collective and op.collective.is_all_to_all else op for op in heavier.ops
    ))  # fmt: skip
    twins = tuple(tuple(range(i, devices, size)) for i in range(size))
    return _with_sums(local, _gradients(local, known.shapes, ratio), twins)


def _devices_of_all_experts(graph: Graph, per_device: int, known: ExpertShapes) -> int:
    """Return on how many devices all experts are, if so many are on each; raise if on no number."""
    total, devices = known.per_device * graph.devices, graph.devices
    size, left = divmod(total, per_device)
    if left or size > devices or devices % size:
        raise OptionError(
            f"{per_device} experts per device",
            f"the module has {total} on {devices} devices, {known.per_device} on each",
            f"name a multiple of {known.per_device} that divides {total}",
        )
    if any(_is_part(op.collective, devices) for op in graph.ops if op.collective):
        raise OptionError(f"{per_device} experts per device",
                          "the module exchanges within parts of its mesh already",
                          "leave --experts-per-device out")  # fmt: skip
    return size


def _is_part(exchange: Collective, devices: int) -> bool:
    return exchange.group_size not in (0, devices)


@dataclass
class _Scaled:
    """Multiplies expert weights, what makes them and what reads them."""

    graph: Graph
    shapes: frozenset[Shape]
    ratio: float

    def result(self) -> Graph:
        """Return the graph with larger expert tensors and the work on them."""
        reach, roles = Reach.of(self.graph), roles_of(self.graph)
        grown = [
            v.op < 0 or not reach.before[v.op] or roles[v.op] in (Role.WEIGHT, Role.OPTIMIZER)
            for v in self.graph.values
        ]
        values = tuple(
            replace(v, leaves=tuple(map(self._leaf, v.leaves))) if grow else v
            for v, grow in zip(self.graph.values, grown, strict=True)
        )
        ops = tuple(self._op(op, values) for op in self.graph.ops)
        return replace(self.graph, ops=ops, values=values)

    def _leaf(self, leaf: TensorType) -> TensorType:
        if leaf.shape not in self.shapes:
            return leaf
        # A stack of one expert may be without its first dim: the second then stands for both.
        return TensorType((round(leaf.shape[0] * self.ratio), *leaf.shape[1:]), leaf.dtype)

    def _op(self, op: Op, values: Sequence[Value]) -> Op:
        """Charge an op for the larger tensors; a product's operations stay with its tokens."""
        touched = [*op.operands, *op.results]
        before = sum(self.graph.values[v].bytes for v in touched)
        after = sum(values[v].bytes for v in touched)
        if after == before or not op.bytes:
            return op
        growth = after / before
        return replace(op, bytes=op.bytes * growth, flops=op.flops * (1 if op.matmul else growth),
                       xla_us=None)  # fmt: skip


def _gradients(graph: Graph, shapes: frozenset[Shape], ratio: float) -> list[int]:
    """Return the values that hold expert weight gradients as optimizers read them."""
    roles = roles_of(graph)
    grown = {(round(s[0] * ratio), *s[1:]) for s in shapes}
    return [
        v.id for v in graph.values
        if v.op >= 0 and roles[_unpacked(graph, v.op)] is Role.WEIGHT
        and len(v.leaves) == 1 and v.leaves[0].shape in grown
        and (v.id in graph.returns
             or any(roles[u] is not Role.WEIGHT for u in graph.users[v.id]))
    ]  # fmt: skip


def _unpacked(graph: Graph, op: int) -> int:
    """Return the op that makes what a `get_tuple_element` takes; any other op itself."""
    picked = graph.ops[op].kind == "get_tuple_element"
    return max(graph.values[graph.ops[op].operands[0]].op, 0) if picked else op


def _with_sums(graph: Graph, gradients: list[int], groups: tuple[tuple[int, ...], ...]) -> Graph:
    """Sum gradients over the devices that hold the same experts, right where they are made."""
    after = {graph.values[v].op: v for v in gradients}
    place: dict[int, int] = {}
    summed: dict[int, int] = {}
    ops: list[Op] = []
    values = list(graph.values)
    for op in graph.ops:
        place[op.id] = len(ops)
        operands = tuple(summed.get(v, v) for v in op.operands)
        start = place[op.start] if op.is_done else op.start
        ops.append(replace(op, id=len(ops), operands=operands, start=start))
        if (value := after.get(op.id)) is not None:
            summed[value] = len(values)
            values.append(Value(len(values), len(ops), graph.values[value].leaves))
            exchange = Collective("all_reduce", groups, graph.values[value].bytes)
            ops.append(Op(len(ops), "all_reduce", f"{op.name}.sum", f"{op.key}/sum", (value,),
                          (summed[value],), collective=exchange))  # fmt: skip
    moved = tuple(
        replace(v, op=place[v.op]) if v.op >= 0 and i < len(graph.values) else v
        for i, v in enumerate(values)
    )
    return replace(
        graph, ops=tuple(ops), values=moved,
        returns=tuple(summed.get(v, v) for v in graph.returns),
        ordered=tuple((place[a], place[b]) for a, b in graph.ordered),
    )  # fmt: skip
