"""Prices for a target: measured times, else XLA's own estimates, else a roofline and links."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import msgspec

from hlo_passes.cost.device import shipped
from hlo_passes.cost.fusion import fused_work, is_fused
from hlo_passes.cost.kernels import kernel_names
from hlo_passes.cost.model import Cost, CostSource
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import Cluster
from hlo_passes.errors import OptionError
from hlo_passes.ir.collectives import Collective
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.ir.work import Work, moves_lines


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an op does not know of itself: its operands' types, its kernel, its work in it.

    `access` is the kind of op whose share of the memory's rate it reaches.
    """

    operands: tuple[str, ...]
    work: Work
    kernel: str
    access: str


@dataclass(frozen=True)
class TargetCosts:
    """The `CostModel` of a target.

    A compute op costs what the measured table says, else what XLA wrote beside it, else the longer
    of its flops and its bytes at the device's rates, and a launch. Where the table has measured
    kernels, but not this one, that is scaled by what those of its kind took. An exchange costs what
    the measured table says, else what XLA's estimator says of this device inside a node, else what
    the links say.

    Attributes:
        target: devices and links.
        measured: times that win over everything else.
        xla_compute: whether to take XLA's estimates of compute ops. They are of the device that
            the module was compiled for: say False if that is not the target.
        xla_exchanges: whether to take XLA's estimates of exchanges, where they ship.
        tf32: whether matrix products of f32 use TF32, as XLA does by default.
        program_devices: devices that the priced programs are for; 0 where that is not known.
        places: which of the target's devices runs each partition of the program, as a mesh laid
            them out; () for partition i on device i.
        contention: share by which an exchange in flight slows compute beside it.
    """

    target: Cluster
    measured: CostTable | None = None
    xla_compute: bool = True
    xla_exchanges: bool = True
    tf32: bool = True
    contention: float = 0.0
    program_devices: int = field(default=0, repr=False, compare=False)
    places: tuple[int, ...] = ()
    _facts: dict[Op, _Facts] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.contention < 0:
            raise OptionError("contention", f"{self.contention} is below 0", "give 0.1 for 10%")

    @property
    def name(self) -> str:
        """The target's name."""
        return self.target.name

    @property
    def decide_us(self) -> float:
        """What the target's profile says."""
        return self.target.profile.decide_us

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over every figure that prices depend on."""
        tables = [t.to_json() if t else b"" for t in (self.measured, self._xla_table)]
        options = (self.xla_compute, self.tf32, self.contention, self.target.name, self.places)
        figures = (self.target.profile, self.target.topology.tiers)
        parts = [msgspec.json.encode(figures), *tables, repr(options).encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def for_graph(self, graph: Graph) -> "TargetCosts":
        """Return this model with knowledge of one graph and those inside its loops.

        With it, ops of a graph that XLA has not fused yet are charged for what is left to move
        after fusion, and the measured table is asked for ops by the types of their operands. An op
        of another graph is priced as without it. Where the target has more devices than the graph
        is for, an exchange of all the graph's devices is priced as one of all the target's: a step
        lowered for 8 devices shows what it would do on 64.
        """
        named = self.measured is not None and bool(self.measured.kernels)
        facts = dict(_facts_of(graph, named))
        return replace(self, _facts=facts, program_devices=graph.devices)

    def compute(self, op: Op) -> Cost:
        """Price one execution of a compute op that is no loop."""
        facts = self._facts.get(op)
        if facts is not None and (measured := self._measured_cost(op, facts)) is not None:
            return measured
        if self.xla_compute and op.xla_us is not None:
            return Cost(op.xla_us, CostSource.XLA)
        work = facts.work if facts is not None else Work(op.flops, op.bytes, op.matmul, op.dtype)
        us = self._roofline_us(op.kind, work)
        if us and facts is not None and facts.kernel:
            return Cost(us * self._scale(op.kind, work.matmul), CostSource.FITTED)
        return Cost(self._roofline_us(facts.access, work) if facts else us, CostSource.ROOFLINE)

    def _measured_cost(self, op: Op, facts: _Facts) -> Cost | None:
        """Return what the measured table says of an op: of its kernel, else of its kind."""
        if self.measured is None:
            return None
        if (entry := self.measured.kernels.get(facts.kernel)) is not None:
            return Cost(entry.us, self.measured.cost_source, entry.spread)
        types = self.types_of(op)
        us = None if types is None else self.measured.op_us(op.kind, types, op.dtype)
        return None if us is None else Cost(us, self.measured.cost_source)

    def exchange(self, collective: Collective, fraction: float = 1.0) -> Cost:
        """Price one exchange of `fraction` of the bytes that it sends, nothing else on its links.

        Of a ragged exchange of padded rows only the filled ones are sent, and all wait for the
        device that sends or gets most: `Collective.fill` and `skew`. An opaque exchange takes the
        time that the user has given, whatever the fraction. Those that are issued as one follow
        each other.
        """
        if collective.members:
            costs = [self.exchange(member, fraction) for member in collective.members]
            return replace(max(costs, key=lambda c: c.us), us=sum(c.us for c in costs))
        if collective.us is not None:
            return Cost(collective.us, CostSource.GIVEN)
        size, nodes = self.reach(collective)
        bytes = collective.busiest_bytes * fraction
        if size < 2 or bytes <= 0:
            return Cost(0.0, CostSource.NONE)
        for table in (self.measured, self._xla_table):
            us = table.exchange_us(collective.kind, size, nodes, bytes) if table else None
            if table is not None and us is not None:
                return Cost(us, table.cost_source)
        us = self.target.topology.time_us(collective.kind, bytes, self._groups(collective))
        return Cost(us, CostSource.LINK)

    def reach(self, collective: Collective) -> tuple[int, int]:
        """Return how many devices take part in an exchange, and on how many nodes they are."""
        if collective.members:
            sizes, nodes = zip(*map(self.reach, collective.members), strict=True)
            return max(sizes), max(nodes)
        topology, groups = self.target.topology, self._groups(collective)
        size = len(groups[0]) if groups else topology.devices
        return size, topology.nodes_of(groups) if size > 1 else 1

    def types_of(self, op: Op) -> tuple[str, ...] | None:
        """Return the types of operands by which a table knows a compute op.

        None where they do not say what the op does: a fusion, or a custom call of another kind
        than a matrix product.
        """
        facts = self._facts.get(op)
        if facts is None or op.kind == "fusion" or (op.kind == "custom_call" and not op.matmul):
            return None
        return facts.operands

    def _groups(self, collective: Collective) -> tuple[tuple[int, ...], ...]:
        """Return groups of the target's devices; () for all of them."""
        groups = collective.groups
        if self.places:
            groups = tuple(tuple(self.places[device] for device in row) for row in groups)
        if 1 < self.program_devices == collective.group_size < self.target.topology.devices:
            groups = ()
        return groups

    def _scale(self, kind: str, matmul: bool) -> float:
        """Return what measured kernels of a kind took, over what the roofline says of them."""
        assert self.measured is not None
        found = [op for op in self.measured.kernels.values() if op.kind == kind]
        found = found or [op for op in self.measured.kernels.values() if op.matmul == matmul]
        works = [(op.kind, Work(op.flops, op.bytes, op.matmul, op.dtype)) for op in found]
        said = sum(self._roofline_us(name, work) for name, work in works)
        return sum(op.us for op in found) / said if said else 1.0

    @property
    def _xla_table(self) -> CostTable | None:
        own = self.xla_exchanges and not self.target.links
        return xla_exchange_table(self.target.profile.name) if own else None

    def _roofline_us(self, kind: str, work: Work) -> float:
        """Return the us of one kernel; nothing to do needs no kernel."""
        if work.flops <= 0 and work.bytes <= 0:
            return 0.0
        profile = self.target.profile
        peak = profile.flops_per_s(work.dtype, matmul=work.matmul, tf32=self.tf32)
        flops_us = work.flops / (peak * profile.efficiency["matmul" if work.matmul else "vector"])
        bytes_us = work.bytes / (profile.hbm_bytes_per_s * profile.hbm_share(kind))
        return max(flops_us, bytes_us) * 1e6 + profile.launch_us


@cache
def xla_exchange_table(device: str) -> CostTable | None:
    """Return XLA's own times of exchanges inside one full node of a device; None if none ship.

    They are from its speed-of-light estimator, never measured; `scripts/xla_exchange_costs.py`
    makes them. Below about 8 MiB they rise and fall with the payload; they are left as they are.
    XLA has times for powers of two and between them takes the rate of the next one, so that 24 MiB
    are faster than 16; here straight lines lie between them.
    """
    data = shipped(f"exchange-{device}-1x8.json")
    return None if data is None else CostTable.from_json(data, f"exchange-{device}-1x8.json")


def _facts_of(graph: Graph, named: bool) -> Iterator[tuple[Op, _Facts]]:
    """Yield what is to be known of the compute ops of a graph and of those inside it.

    Args:
        graph: of any stage.
        named: whether kernels are to be named, where the graph is not fused yet.
    """
    fused = is_fused(graph)
    for inside, _ in graph.walk():
        works = None if fused else fused_work(inside)
        names = kernel_names(inside) if named and not fused else {}
        for op in inside.ops:
            if op.inner or op.collective is not None or op.is_free:
                continue
            work = works[op.id] if works else Work(op.flops, op.bytes, op.matmul, op.dtype)
            yield op, _known_of(inside, op, work, names.get(op.id, ""))


def _known_of(graph: Graph, op: Op, work: Work, kernel: str) -> _Facts:
    """Return what is to be known of one op."""
    types = tuple(leaf for v in op.operands for leaf in graph.values[v].leaves)
    made = sum(graph.values[v].bytes for v in op.results)
    access = "hbm" if moves_lines(op.kind, types, made) else op.kind
    return _Facts(tuple(map(str, types)), work, kernel, access)
