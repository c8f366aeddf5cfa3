"""One rank of `bench_wallclock`: every pipeline's StableHLO, replayed."""

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from hlo_passes.ir.stablehlo.module import Module
from lancet_jax.replay import Echo, Player, SocketLink, score_of
from lancet_jax.seams import programs
from scripts.shaped_link import busy_seconds
from scripts.small_steps import Shape, distance, local_shards, make_step
from scripts.wallclock_samples import Sample, row_of

_COMPILERS = 8
"""Threads that compile segments."""


def work(args: Any) -> None:
    """Compile all plans, play them in rounds, and print the rows as JSON if rank is 0."""
    jax.config.update("jax_num_cpu_devices", args.ranks)
    folder = Path(args.prepared)
    plans = json.loads((folder / "plans.json").read_text())
    step, arguments = make_step(Shape.parse(args.shape), jax.devices())
    compiled = jax.jit(step).lower(*arguments).compile()
    inputs = local_shards(compiled, arguments, args.rank)
    link = link_of(args)
    own = (args.exchange_core,) if args.exchange_core is not None else ()
    made = jax.tree.leaves(compiled(*arguments))
    expected = [leaf.addressable_shards[args.rank].data for leaf in made]
    rows: list[dict[str, Any]] = []
    segments: dict[str, Any] = {}
    for share in map(float, args.shares.split(",")):
        mine = {}
        for plan in plans:
            if plan["share"] == share:
                module = Module.parse((folder / plan["file"]).read_bytes())
                mine[plan["pipeline"]] = plan, Player(score_of(module), link, own, urgent=True)
        started = time.perf_counter()
        compile_all([player for _, player in mine.values()], segments)
        _say(args, f"{share:.0%}: compiled in {time.perf_counter() - started:.0f} s")
        rows += one_speed(args, share, mine, inputs, expected)
        _say(args, f"{share:.0%}: played in {time.perf_counter() - started:.0f} s")
        if args.rank == 0 and args.rows:
            Path(args.rows).write_text(json.dumps(rows))
    link.close()
    if args.rank == 0:
        print(json.dumps(rows))


def _say(args: Any, text: str) -> None:
    """Tell how far the first rank is."""
    if args.rank == 0:
        print(text, file=sys.stderr, flush=True)


def one_speed(
    args: Any, share: float, mine: Any, inputs: Any, expected: Any
) -> list[dict[str, Any]]:
    """Play all plans for one speed of the link, in rounds, and sum up.

    Args:
        args: the command line.
        share: of the stock step that exchanges take at this speed.
        mine: plan and player by pipeline.
        inputs: this rank's shards of the arguments.
        expected: this rank's results by plain jit.
    """
    plans = {name: plan for name, (plan, _) in mine.items()}
    players = {name: player for name, (_, player) in mine.items()}
    stock = next(iter(players.values()))
    link = stock.link
    args.mbit = next(iter(plans.values()))["bytes_per_s"] * 8e-6 * args.ranks
    if args.paced:
        link.bytes_per_s = args.mbit * 1e6 / 8 / args.ranks
        link.latency_us = next(iter(plans.values()))["latency_us"]
    players["ideal"] = Player(stock.score, Echo(args.rank, args.ranks), stock.cores, stock.urgent)
    players["ideal"].programs = stock.programs
    for player in players.values():
        player.run(inputs)
    worst = {n: distance(expected, p.run(inputs)[0]) for n, p in players.items() if n != "ideal"}
    rounds = [
        {name: sample(player, inputs, link) for name, player in players.items()}
        for _ in range(args.rounds)
    ]
    return [
        row_of(args, name, rounds, error=worst.get(name, 0.0),
               **({"share": share} | plans.get(name, {})),
               exchanges=len(player.score.exchanges))
        for name, player in players.items()
    ]  # fmt: skip


def compile_all(players: Sequence[Player], made: dict[str, Any]) -> None:
    """Compile every different segment that is not `made` yet, several at a time."""
    wanted = dict.fromkeys(text for player in players for text in player.score.programs)
    texts = [text for text in wanted if text not in made]
    own = os.sched_getaffinity(0)
    everywhere = range(os.cpu_count() or 1)
    with ThreadPoolExecutor(_COMPILERS, initializer=os.sched_setaffinity,
                            initargs=(0, everywhere)) as threads:  # fmt: skip
        made.update(zip(texts, threads.map(programs.compile_segment, texts), strict=True))
    assert os.sched_getaffinity(0) == own
    for player in players:
        player.programs = [made[text] for text in player.score.programs]


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
    link.settle(0.0)


def sample(player: Player, inputs: list[Any], link: SocketLink) -> Sample:
    """Play a step once, all ranks at the same time.

    Args:
        player: plays the step.
        inputs: this rank's shards of the arguments.
        link: to the other ranks.
    """
    meet(link)
    busy = busy_seconds()
    _, times = player.run(inputs)
    machine = busy_seconds() - busy
    kinds = [one.kind for one in player.score.exchanges]
    waits: dict[str, float] = {
        kind: sum((s for s, k in zip(times.waits, kinds, strict=True) if k == kind), start=0.0)
        for kind in dict.fromkeys(kinds)
    }
    return Sample(times.step, times.cpu, machine, times.compute, times.exchange, waits)
