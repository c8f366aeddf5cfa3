"""The different exchanges of a module, as programs for the devices at hand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hlo_passes.ir.graph import Graph

_PARTS = (1, 2, 4, 8)
"""A cut step sends an exchange in parts: their sizes are measured as well."""

_LEAST = 4096
"""Bytes of the smallest payload: below it is latency alone."""

_AXIS = "all"

_DOERS: dict[str, Callable[[Any, int], Any]] = {
    "all_to_all": lambda x, n: lax.all_to_all(x, _AXIS, 0, 0, tiled=True),
    "all_reduce": lambda x, n: lax.psum(x, _AXIS),
    "all_gather": lambda x, n: lax.all_gather(x[: x.shape[0] // n], _AXIS, tiled=True),
    "reduce_scatter": lambda x, n: lax.psum_scatter(x, _AXIS, tiled=True),
    "collective_permute": lambda x, n: lax.ppermute(x, _AXIS, [(i, (i + 1) % n) for i in range(n)]),
}


@dataclass(frozen=True, order=True)
class Probe:
    """One exchange to be timed.

    Attributes:
        kind: as in `Collective.kind`.
        group_size: devices that take part.
        bytes: payload of one device.
    """

    kind: str
    group_size: int
    bytes: int

    def program(self) -> Callable[[], Any]:
        """Return a function that does it on the first devices and returns once it is done."""
        devices = np.array(jax.devices()[: self.group_size])
        mesh = Mesh(devices, (_AXIS,))
        step = jax.shard_map(
            lambda x: _DOERS[self.kind](x, self.group_size), mesh=mesh,
            in_specs=P(_AXIS), out_specs=P(_AXIS), check_vma=False,
        )  # fmt: skip
        count = self.group_size * (self.bytes // 4)
        data = jax.device_put(jnp.ones(count, jnp.float32), NamedSharding(mesh, P(_AXIS)))
        compiled = jax.jit(step).lower(data).compile()
        return lambda: jax.block_until_ready(compiled(data))


def probes_of(graphs: Sequence[Graph], devices: int) -> list[Probe]:
    """Return what to time: every kind and group of a module's exchanges, over payload.

    Args:
        graphs: the module's, and those of its cuts.
        devices: how many are at hand; exchanges of more are left out.
    """
    return sorted({probe for graph in graphs for probe in _probes(graph, devices)})


def _probes(graph: Graph, devices: int) -> Iterator[Probe]:
    for inside, _ in graph.walk():
        for exchange in inside.exchanges:
            what = inside.ops[exchange].collective
            if what is None:
                continue
            size = what.group_size or graph.devices
            kind = what.kind.removeprefix("ragged_")
            if kind in _DOERS and 2 <= size <= devices:
                for bytes in {what.bytes // part for part in _PARTS} | {_LEAST}:
                    yield Probe(kind, size, max(_LEAST, bytes // (4 * size) * 4 * size))
