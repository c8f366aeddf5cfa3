"""Train steps of small MoE models, planned for a link of limited rate: for the benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from hlo_passes.base import Job
from hlo_passes.cost.links import Topology
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable
from hlo_passes.cost.target import Cluster, parse_target
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.pipelines import parse_pipeline
from hlo_passes.plans import Plan
from lancet_jax import nn
from lancet_jax.nn.gates import Switch


@dataclass(frozen=True)
class Shape:
    """Size of a model.

    Attributes:
        layers, model, batch: as in `nn.Config`; the batch is of one rank.
        gate: name of the gate, or `even` (`EvenGate`).
        seq: tokens of a sequence.
        every: blocks from one MoE layer to the next.
    """

    layers: int = 4
    model: int = 256
    batch: int = 16
    gate: str = "switch"
    seq: int = 128
    every: int = 2

    @staticmethod
    def parse(text: str) -> "Shape":
        """Read `layers=2,model=128`."""
        given = dict(part.split("=") for part in text.split(",") if part)
        return Shape(**{k: v if k == "gate" else int(v) for k, v in given.items()})  # type: ignore


@dataclass(frozen=True)
class EvenGate(Switch):
    """Sends tokens to experts by a hash of their place, weighted by the router's probability.

    As even as chance makes it. A router that was never trained sends most tokens to one or two
    experts, which then drop them.
    """

    def choices(self, scores: Any, token_ids: Any, key: Any) -> tuple[Any, Any]:
        """Return weight and expert of every token, `[T, 1]` both.

        Args:
            scores: `[T, E]`.
            token_ids: not looked at.
            key: not looked at.
        """
        mixed = jnp.arange(scores.shape[0], dtype=jnp.uint32)
        for factor in (0x85EBCA6B, 0xC2B2AE35):
            mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(factor)
        expert = ((mixed >> 16) % scores.shape[1]).astype(jnp.int32)[:, None]
        chosen = expert == jnp.arange(scores.shape[1], dtype=jnp.int32)
        return jnp.where(chosen, scores, 0.0).sum(axis=1, keepdims=True), expert


def make_step(shape: Shape, devices: Sequence[Any]) -> tuple[Any, tuple[Any, Any]]:
    """Return a train step of a small MoE GPT, not jitted, and its arguments."""
    gate = EvenGate() if shape.gate == "even" else shape.gate
    config = replace(
        nn.preset("tiny"), gate=gate, model=shape.model, heads=4, hidden=4 * shape.model,
        seq_len=shape.seq, layers=shape.layers, batch_per_device=shape.batch, experts_per_device=2,
        moe_every=shape.every,
    )  # fmt: skip
    mesh = jax.sharding.Mesh(np.array(devices), ("expert",))
    optimizer = nn.sgd_momentum()
    state = nn.init_state(config, mesh, optimizer, 0)
    tokens = next(iter(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh), 0)))
    return nn.make_train_step(config, mesh, optimizer), (state, tokens)


def profile_costs(mbit: float, ranks: int) -> TargetCosts:
    """Return prices of a CPU core as its profile has them, and of the link as it is set up."""
    profile = parse_target("cpu").profile
    (tier,) = profile.tiers
    rate = mbit * 1e6 / 8 / ranks
    tier = msgspec.structs.replace(tier, bytes_per_s=rate, half_bytes=4096, latency_us=300.0)
    profile = msgspec.structs.replace(
        profile, tiers=(tier,), launch_us=100.0, hbm_bytes_per_s=6e9,
        matmul_flops=dict.fromkeys(profile.matmul_flops, 80e9),
    )  # fmt: skip
    return TargetCosts(Cluster(profile, Topology(1, ranks, (tier,))))


def link_costs(
    ranks: int, bytes_per_s: float, latency_us: float, table: CostTable | None
) -> TargetCosts:
    """Return prices of measured kernels, and of a link that holds every rank to a rate.

    Args:
        ranks: how many share the link.
        bytes_per_s: of every rank.
        latency_us: us of the smallest exchange.
        table: measured kernels; None for the profile's figures.
    """
    target = profile_costs(1.0, ranks).target
    tier = msgspec.structs.replace(
        target.topology.tiers[0], bytes_per_s=bytes_per_s, half_bytes=0, latency_us=latency_us
    )
    profile = msgspec.structs.replace(target.profile, tiers=(tier,))
    return TargetCosts(Cluster(profile, Topology(1, ranks, (tier,))), table)


def planned(module: Module, pipeline: str, costs: TargetCosts) -> Module:
    """Return StableHLO as a pipeline leaves it.

    Args:
        module: the step; it stays as it is.
        pipeline: preset or passes.
        costs: prices for the target.
    """
    return planned_with(module, pipeline, costs)[0]


def planned_with(
    module: Module, pipeline: str, costs: TargetCosts
) -> tuple[Module, tuple[Plan, ...]]:
    """Return StableHLO as a pipeline leaves it, and the plans of its passes.

    Args:
        module: the step; it stays as it is.
        pipeline: preset or passes.
        costs: prices for the target.
    """
    made, plans = parse_pipeline(pipeline).run(module, Job(costs=costs, ragged=True))
    assert isinstance(made, Module)
    return made, plans


def local_shards(compiled: Any, arguments: Any, rank: int) -> list[Any]:
    """Return one rank's shards of a step's arguments, on the first device.

    Args:
        compiled: the step, whose shardings count.
        arguments: of all ranks.
        rank: whose shards.
    """
    shardings = jax.tree.leaves(compiled.input_shardings)
    pairs = zip(jax.tree.leaves(arguments), shardings, strict=True)
    placed = [jax.device_put(x, sharding) for x, sharding in pairs]
    return [jax.device_put(x.addressable_shards[rank].data, jax.devices()[0]) for x in placed]


def distance(expected: Sequence[Any], got: Sequence[Any]) -> float:
    """Return the largest difference, as a share of its array's largest element."""
    pairs = ((np.asarray(a, np.float64), np.asarray(b, np.float64))
             for a, b in zip(expected, got, strict=True))  # fmt: skip
    return max(float(np.abs(a - b).max()) / max(float(np.abs(a).max()), 1e-30) for a, b in pairs)
