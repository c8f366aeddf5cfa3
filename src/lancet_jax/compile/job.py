"""What is known of one compile before anything is decided."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import msgspec
from jaxlib.mlir import ir

from hlo_passes.base import Job, Stage
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import Cluster, parse_target, target_of_devices
from hlo_passes.pin_order import PinOrder
from hlo_passes.run import Pipeline
from lancet_jax.compile.options import Options
from lancet_jax.peers.agree import Peers
from lancet_jax.seams import backends
from lancet_jax.seams.step_module import fingerprint

_QUICK = 2
"""How many programs compete in a quick search: the step as it is, and the likeliest other."""

_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
"""Environment variable with the share of a GPU's memory that JAX takes."""
_DEFAULT_FRACTION = 0.75
"""What it takes by default (JAX's documentation on GPU memory)."""


@dataclass(frozen=True)
class StepJob:
    """One step to be compiled: for whom, how, at what prices, with whom.

    Attributes:
        options: as the user gave them.
        module: what jit lowered; not ours to edit.
        devices: who runs it, in the order of its partitions.
        costs: prices for the target.
        memory_limit: bytes of a device for arguments, results and temporaries; None if unknown.
        peers: the processes that compile it, too; None if this one is alone.
        xla_options: what the user asked XLA for.
    """

    options: Options
    module: ir.Module
    devices: tuple[Any, ...]
    costs: TargetCosts
    memory_limit: int | None = None
    peers: Peers | None = None
    xla_options: tuple[str, ...] = ()

    @staticmethod
    def of(
        options: Options,
        module: ir.Module,
        devices: Sequence[Any],
        peers: Peers | None = None,
        xla_options: tuple[str, ...] = (),
    ) -> "StepJob":
        """Look up prices and limits.

        Args:
            options: as the user gave them.
            module: what jit lowered.
            devices: who runs it.
            peers: who compiles it, too.
            xla_options: what the user asked XLA for.

        Raises:
            OptionError: if the devices are of a kind that no profile describes, or not of the kind
                that the table of costs was measured on.
            InputError: if that table cannot be read.
            PeerError: if a peer does not come.
        """
        costs = costs_of(options, devices)
        limit = options.limit
        if limit is None:
            limit = device_memory(costs.target, devices)
            if peers is not None and limit is not None:
                said = peers.gather_once("memory", msgspec.json.encode(limit))
                limit = min(msgspec.json.decode(mine, type=int) for mine in said)
        return StepJob(options, module, tuple(devices), costs, limit, peers, xla_options)

    @property
    def platform(self) -> str:
        """Where it runs: `cpu` or `gpu`."""
        return self.devices[0].platform

    @cached_property
    def is_judged(self) -> bool:
        """Whether XLA's own modules decide between programs; else predictions do."""
        return (
            self.options.check_cuts
            and self.platform == "gpu"
            and backends.has_post_scheduler(self.platform)
        )

    @property
    def why_not_judged(self) -> str:
        """Why predictions decide between programs, where that was not asked for."""
        if backends.has_post_scheduler(self.platform):
            return f"what XLA fuses for {self.platform} says nothing of a GPU"
        return f"XLA does not hand out its module on {self.platform}"

    @property
    def has_choice(self) -> bool:
        """Whether a pass leaves it open whether it does anything."""
        return any(not step.is_settled for step in self.before_xla.passes)

    @cached_property
    def is_open(self) -> bool:
        """Whether XLA's own modules decide what passes do."""
        return self.is_judged and self.has_choice

    @property
    def entrants(self) -> int:
        """How many programs compete at most, the step as it is included."""
        given = self.options.entrants
        return min(given, _QUICK) if self.options.search == "quick" else given

    @property
    def is_pinned(self) -> bool:
        """Whether the order is held by barriers, for want of a schedule to edit."""
        return not backends.has_post_scheduler(self.platform)

    @cached_property
    def before_xla(self) -> Pipeline:
        """The passes that work on StableHLO; where XLA does not hand out its schedule, all."""
        passes = self.options.passes
        if not self.is_pinned:
            return passes.at(Stage.BEFORE_XLA)
        pins = () if PinOrder() in passes.passes else (PinOrder(),)
        return Pipeline((*passes.passes, *pins))

    @cached_property
    def behind_scheduler(self) -> Pipeline:
        """The passes that work on XLA's schedule; none where it does not hand that out."""
        return Pipeline(()) if self.is_pinned else self.options.passes.at(Stage.BEHIND_SCHEDULER)

    def for_passes(self, *, checked: bool = False) -> Job:
        """Return what passes may know.

        Args:
            checked: whether XLA's modules decide later what memory and time a program takes.
        """
        return Job(
            costs=self.costs,
            ragged=self.platform == "gpu",
            memory_limit=self.memory_limit,
            checked=checked,
        )

    @cached_property
    def question(self) -> dict[str, str]:
        """What the answer depends on, prices aside; see `question_of`."""
        return question_of(self.options, self.module)

    def salt(self, prices: str) -> str:
        """Return 16 hex digits over all that the program depends on; all processes have the same.

        Args:
            prices: name and fingerprint of the costs that it is decided with.
        """
        parts = [f"{name}={said}" for name, said in self.options.salted().items()]
        versions = [version("lancet-jax"), version("jaxlib")]
        devices = f"{len(self.devices)} {self.devices[0].device_kind}"
        about = [fingerprint(self.module), repr(self.memory_limit), devices]
        return digest(*versions, *parts, prices, *about)

    def key(self, prices: str) -> str:
        """Return 16 hex digits over all that the choice of a program depends on, on this process.

        Args:
            prices: as for `salt`.
        """
        return digest(self.salt(prices), *self.xla_options)

    @property
    def prices(self) -> str:
        """Name and fingerprint of the costs."""
        return f"{self.costs.name} {self.costs.fingerprint}"


def question_of(options: Options, module: ir.Module) -> dict[str, str]:
    """Return what the answer depends on, prices aside; all processes have the same.

    Args:
        options: as the user gave them.
        module: what jit lowered.
    """
    return {
        "lancet-jax": version("lancet-jax"),
        "jaxlib": version("jaxlib"),
        **options.compared(),
        "module": fingerprint(module),
    }


def digest(*parts: str) -> str:
    """Return 16 hex digits over texts."""
    return sha256("\0".join(parts).encode()).hexdigest()[:16]


def costs_of(options: Options, devices: Sequence[Any]) -> TargetCosts:
    """Return prices for the given target, or for the one that `devices` are.

    XLA's own costs count only if it compiles for the target.

    Raises:
        OptionError: if the devices are of a kind that no profile describes, or not of the kind
            that the table was measured on.
        InputError: if the table cannot be read.
    """
    target = resolve_target(options.target, devices)
    is_same = devices[0].device_kind in target.profile.device_kinds
    table = CostTable.load(options.costs) if options.costs is not None else None
    if table is not None:
        table.check_device(target)
    return TargetCosts(
        target, table, xla_compute=is_same, program_devices=len(devices), places=_places(devices)
    )


def resolve_target(target: Any, devices: Sequence[Any]) -> Cluster:
    """Return the named target, or the one that `devices` are.

    Raises:
        OptionError: if the name or the kind of device is not known.
    """
    if target is not None:
        return parse_target(target)
    return target_of_devices(devices[0].device_kind, len(devices), _devices_per_node(devices))


def device_memory(target: Cluster, devices: Sequence[Any]) -> int | None:
    """Return the bytes of a device that a step may take; None if nobody knows.

    That is what the fullest device of this process says that JAX may use; of devices that are not
    there, the share of their memory that JAX would take.

    Args:
        target: what is planned for.
        devices: who runs it.
    """
    if devices[0].device_kind in target.profile.device_kinds and not _is_described(devices):
        local = [d for d in devices if d.process_index == d.client.process_index()]
        stats = [device.memory_stats() or {} for device in local]
        given = [s["bytes_limit"] for s in stats if "bytes_limit" in s]
        if given:
            return min(given)
    if not target.profile.compute_capability:
        return None
    return int(target.profile.memory_bytes * _fraction())


def _fraction() -> float:
    """Return the share of a device's memory that JAX takes."""
    try:
        return float(os.environ[_FRACTION])
    except (KeyError, ValueError):
        return _DEFAULT_FRACTION


def _is_described(devices: Sequence[Any]) -> bool:
    return backends.is_compile_only(devices[0])


def _places(devices: Sequence[Any]) -> tuple[int, ...]:
    """Return the place of every partition's device among all, by their ids; () if it is its own.

    Groups of exchanges name partitions, and a mesh says in which order devices run those.
    """
    by_id = sorted(range(len(devices)), key=lambda partition: devices[partition].id)
    place = {partition: i for i, partition in enumerate(by_id)}
    places = tuple(place[partition] for partition in range(len(devices)))
    return () if places == tuple(range(len(devices))) else places


def _devices_per_node(devices: Sequence[Any]) -> int | None:
    """Devices that share a process, where that tells nodes apart; one process a GPU does not."""
    per_process = len(devices) // len({device.process_index for device in devices})
    return per_process if per_process > 1 else None
