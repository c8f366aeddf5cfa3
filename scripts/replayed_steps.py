"""One rank of `bench_wallclock`: every pipeline's StableHLO, replayed."""

import json
from typing import Any

import jax

from hlo_passes.ir.module import Module
from lancet_jax.replay import Echo, Player, SocketLink, score_of
from scripts.bench_wallclock import Sample, row_of
from scripts.shaped_link import busy_seconds
from scripts.small_steps import (
    Shape,
    distance,
    local_shards,
    make_step,
    planned,
    profile_costs,
)


def work(args: Any) -> None:
    """Compile all pipelines, play them in rounds, and print the rows as JSON if rank is 0."""
    jax.config.update("jax_num_cpu_devices", args.ranks)
    step, arguments = make_step(Shape.parse(args.shape), jax.devices())
    step = jax.jit(step)
    lowered = step.lower(*arguments)
    module, costs = Module.copy_of(lowered.compiler_ir()), profile_costs(args.mbit, args.ranks)
    inputs = local_shards(lowered, arguments, args.rank)
    link = link_of(args)
    players = {
        name: Player(score_of(planned(module, name, costs)), link)
        for name in args.pipelines.split(";")
    }
    players["ideal"] = Player(players["off"].score, Echo(args.rank, args.ranks))
    expected = [x.addressable_shards[args.rank].data for x in jax.tree.leaves(step(*arguments))]
    worst = {n: distance(expected, p.run(inputs)[0]) for n, p in players.items() if n != "ideal"}
    rounds = [
        {name: sample(player, inputs, link) for name, player in players.items()}
        for _ in range(args.rounds)
    ]
    link.close()
    if args.rank == 0:
        rows = [row_of(args, name, rounds, error=worst.get(name, 0.0)) for name in players]
        print(json.dumps(rows))


def link_of(args: Any) -> SocketLink:
    """Connect to the other ranks."""
    ports = list(map(int, args.ports.split(",")))
    paced = args.mbit * 1e6 / 8 / args.ranks if args.paced else 0.0
    link = SocketLink(args.rank, args.ranks, ports, bytes_per_s=paced, timeout_s=300)
    link.connect()
    return link


def meet(link: SocketLink) -> None:
    """Wait for the other ranks."""
    link.swap({peer: memoryview(b"go") for peer in range(link.size) if peer != link.rank})


def sample(player: Player, inputs: list[Any], link: SocketLink) -> Sample:
    """Play a step once, all ranks at the same time."""
    meet(link)
    busy = busy_seconds()
    _, times = player.run(inputs)
    machine = busy_seconds() - busy
    return Sample(times.step, times.cpu, machine, times.compute, times.exchange)
