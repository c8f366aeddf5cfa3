"""Makes a table of costs of a profiler capture: what a step's exchanges took on its own cluster.

`calibrate` times programs of its own, on the devices of one process. A capture of one real step
(`jax.profiler.trace`) knows what exchanges between hosts took, beside the compute that ran then.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable, ExchangeTimes, OpTime
from hlo_passes.cost.target import Cluster
from hlo_passes.errors import InputError, OptionError
from hlo_passes.ir.graph import Graph, Op
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.profile.capture import Capture

_NOTE = (
    "a profiler capture: exchanges with the waiting for late devices in them, as far as no larger "
    "payload took less; matrix products beside what ran with them"
)


def table_of_capture(capture: Capture, target: Cluster, where: str) -> CostTable:
    """Return what one run took, as prices for the target.

    Exchanges of one kind, group and payload count with their median. A device that comes late makes
    the others wait, and the profiler counts that in: a payload never counts for more than a larger
    one. Of compute, only matrix products and ops outside fusions are known by their types.

    Args:
        capture: a run of a step.
        target: what it ran on, as `h100:8x8`.
        where: the file, for messages.

    Raises:
        OptionError: if the target has another number of devices.
        InputError: if nothing in it can be used.
    """
    graph = capture.module.snapshot()
    graph = replace(graph, devices=graph.named_devices)
    if graph.devices != target.topology.devices:
        raise OptionError(f"target {target.name!r}", f"the step ran on {graph.devices} devices",
                          "name what it ran on, nodes x devices of a node")  # fmt: skip
    timeline = capture.timeline(graph)
    costs = TargetCosts(target).for_graph(graph)
    exchanges = tuple(_exchanges(graph, timeline, costs))
    ops = tuple(_ops(graph, timeline, costs))
    if not exchanges and not ops:
        raise InputError(
            where, "no exchange and no product ran in it", "capture a whole train step"
        )
    return CostTable(
        source="measured", target=target.name, date=f"{datetime.date.today()}",
        versions={"device": capture.device}, note=_NOTE, exchanges=exchanges, ops=ops,
    )  # fmt: skip


def _exchanges(graph: Graph, timeline: Timeline, costs: TargetCosts) -> Iterator[ExchangeTimes]:
    ops = {op.key: op for inside, _ in graph.walk() for op in inside.ops}
    found: dict[tuple[str, int, int], dict[int, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for window in timeline.windows:
        collective = ops[window.key].collective
        assert collective is not None
        size, nodes = costs.reach(collective)
        bytes = int(collective.busiest_bytes)
        if size > 1 and bytes and window.us and collective.us is None:
            found[collective.kind, size, nodes][bytes].append(window.us)
    for (kind, size, nodes), times in sorted(found.items()):
        points = without_waiting([(bytes, median(us)) for bytes, us in sorted(times.items())])
        yield ExchangeTimes(kind=kind, group_size=size, nodes=nodes, points=points)


def without_waiting(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Return points (bytes, us), by size, none above that of a larger payload."""
    found: list[tuple[int, float]] = []
    for bytes, us in reversed(points):
        found.append((bytes, min(us, found[-1][1]) if found else us))
    return tuple(reversed(found))


def _ops(graph: Graph, timeline: Timeline, costs: TargetCosts) -> Iterator[OpTime]:
    found: dict[tuple[str, tuple[str, ...], str], list[tuple[Op, float]]] = defaultdict(list)
    for slot in timeline.slots:
        op = graph.ops[slot.op]
        types = costs.types_of(op)
        if slot.lane == "compute" and types is not None and not op.inner:
            found[op.kind, types, op.dtype].append((op, slot.us))
    for (kind, types, dtype), runs in sorted(found.items(), key=lambda item: item[0]):
        times = [us for _, us in runs]
        middle = median(times)
        spread = (max(times) - min(times)) / middle if middle else 0.0
        yield OpTime(
            kind=kind, operands=types, dtype=dtype, us=middle, spread=spread,
            matmul=runs[-1][0].matmul,
        )  # fmt: skip
