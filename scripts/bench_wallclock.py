"""Real seconds: a step's plans replayed by CPU processes over a link of limited rate.

    python -m scripts.bench_wallclock --rates 150,300,600 --json wallclock.json

Every rate gets a network namespace of its own (`unshare -n`, as root or in a user namespace), with
nothing in it but a loopback that a token bucket holds to the rate; it is gone with its last
process. Where the rights or `tc` are missing, it says so, and processes pace themselves instead
(`--paced`).

In it, one process a rank, on a core of its own, runs every pipeline's StableHLO as a replay does
(`lancet_jax.replay`): compute in text order, exchanges beside it. Pipelines are interleaved,
A B C D A B C D; a speed-up is the median of the ratios to `off` of the same round, with its
quartiles. The step without exchanges (`ideal`) runs in the same rounds. Not through one jit:
XLA:CPU orders by dataflow whatever the plan says.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

PIPELINES = ("off", "dw", "exchange", "full")
_BURST = "72kb"
"""Of the token bucket: more than one packet of the loopback, and little free credit."""


def main() -> None:
    """Measure every rate, and print a table."""
    args = _arguments()
    if args.rank is not None:
        work(args)
        return
    if args.inside:
        run_ranks(args)
        return
    rows = []
    for rate in map(float, args.rates.split(",")):
        rows += measure(args, rate)
        show([row for row in rows if row["mbit"] == rate])
    if args.json:
        from importlib.metadata import version

        data = {"jax": version("jax"), "ranks": args.ranks, "rounds": args.rounds, "rows": rows}
        with open(args.json, "w") as file:
            json.dump(data, file, indent=1)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="150,300,600", help="Mbit/s of all ranks together")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pipelines", default=";".join(PIPELINES))
    parser.add_argument("--gate", default="switch")
    parser.add_argument("--paced", action="store_true", help="no namespace: sleep instead")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one rate")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ports", help=argparse.SUPPRESS)
    return parser.parse_args()


# ------------------------------------------------------------------ around the ranks


def measure(args: Any, rate: float) -> list[dict[str, Any]]:
    """Run all ranks at one rate, in a namespace if there can be one, and return the rows."""
    command = [sys.executable, "-m", "scripts.bench_wallclock", *sys.argv[1:],
               "--inside", "--rate", str(rate)]  # fmt: skip
    prefix = [] if args.paced else _namespace()
    if prefix is None:
        print("no network namespace here (unshare, ip and tc are needed): pacing instead",
              file=sys.stderr)  # fmt: skip
        command, prefix = [*command, "--paced"], []
    done = subprocess.run([*prefix, *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the ranks at {rate:g} Mbit/s ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _namespace() -> list[str] | None:
    """Return what to put before a command to run it in a network of its own; None if it fails."""
    if not all(map(shutil.which, ("unshare", "ip", "tc"))):
        return None
    for prefix in (["unshare", "-n"], ["unshare", "-U", "-r", "-n"]):
        script = f"ip link set lo up && {_shape(1000)}"
        tried = subprocess.run([*prefix, "sh", "-c", script], capture_output=True, check=False)
        if tried.returncode == 0:
            return prefix
    return None


def _shape(mbit: float) -> str:
    """Return the command that holds the loopback to a rate."""
    return f"tc qdisc add dev lo root tbf rate {mbit}mbit burst {_BURST} latency 400ms"


def run_ranks(args: Any) -> None:
    """Set up the link, start one process a rank, and end all if one fails."""
    if not args.paced:
        for line in ("ip link set lo up", _shape(args.rate)):
            subprocess.run(line.split(), check=True)
    ports = ",".join(map(str, _free_ports(args.ranks)))
    cores = sorted(os.sched_getaffinity(0))
    environment = {**os.environ, "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu",
                   "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592",
                   "MALLOC_TOP_PAD_": "67108864"}  # fmt: skip
    ranks = []
    for rank in range(args.ranks):
        command = [sys.executable, "-m", "scripts.bench_wallclock", *sys.argv[1:],
                   "--rank", str(rank), "--ports", ports]  # fmt: skip
        core = cores[rank % len(cores)]
        ranks.append(subprocess.Popen(
            command, env=environment, stdout=None if rank == 0 else subprocess.DEVNULL,
            preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}),
        ))  # fmt: skip
    deadline = time.monotonic() + args.timeout
    try:
        while any(process.poll() is None for process in ranks):
            for rank, process in enumerate(ranks):
                if process.poll():
                    sys.exit(f"rank {rank} ended with code {process.returncode}")
            if time.monotonic() > deadline:
                sys.exit(f"not done after {args.timeout:.0f} s: --timeout allows more")
            time.sleep(0.2)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


# ------------------------------------------------------------------ in one rank


def work(args: Any) -> None:
    """Compile all pipelines, play them in rounds, and print the rows as JSON if rank is 0."""
    import jax

    jax.config.update("jax_num_cpu_devices", args.ranks)
    from lancet_jax.replay import Echo, Player, SocketLink, score_of

    step, arguments = make_step(args)
    modules = {name: planned(step, arguments, name, args) for name in args.pipelines.split(";")}
    inputs = local_shards(step.lower(*arguments), arguments, args.rank)
    ports = list(map(int, args.ports.split(",")))
    paced = args.rate * 1e6 / 8 / args.ranks if args.paced else 0.0
    link = SocketLink(args.rank, args.ranks, ports, bytes_per_s=paced, timeout_s=120)
    link.connect()
    players = {name: Player(score_of(module), link) for name, module in modules.items()}
    players["ideal"] = Player(players["off"].score, Echo(args.rank, args.ranks))
    expected = [x.addressable_shards[args.rank].data for x in jax.tree.leaves(step(*arguments))]
    worst = {n: _distance(expected, p.run(inputs)[0]) for n, p in players.items() if n != "ideal"}
    rounds = []
    for _ in range(args.rounds):
        took = {}
        for name, player in players.items():
            link.swap({peer: memoryview(b"go") for peer in range(args.ranks) if peer != args.rank})
            busy = _busy_seconds()
            _, times = player.run(inputs)
            took[name] = (times, _busy_seconds() - busy)
        rounds.append(took)
    link.close()
    if args.rank == 0:
        print(json.dumps([_row(args, name, rounds, players, worst) for name in players]))


def make_step(args: Any) -> tuple[Any, tuple[Any, Any]]:
    """Return a jitted train step of a small MoE GPT, and its arguments."""
    import jax
    import numpy as np

    from lancet_jax import nn

    config = replace(
        nn.preset("tiny"), gate=args.gate, model=256, heads=4, hidden=1024, seq_len=128, layers=4,
        batch_per_device=16, experts_per_device=2,
    )  # fmt: skip
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("expert",))
    optimizer = nn.sgd_momentum()
    state = nn.init_state(config, mesh, optimizer, 0)
    tokens = next(iter(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh), 0)))
    return jax.jit(nn.make_train_step(config, mesh, optimizer)), (state, tokens)


def planned(step: Any, arguments: Any, pipeline: str, args: Any) -> Any:
    """Return the step's StableHLO as a pipeline leaves it, planned for this link."""
    import msgspec

    from hlo_passes.cost.links import Topology
    from hlo_passes.cost.roofline import TargetCosts
    from hlo_passes.cost.target import Target, parse_target
    from hlo_passes.ir.module import Module
    from hlo_passes.pipelines import parse_pipeline
    from lancet_jax.driver import run_on_stablehlo

    profile = parse_target("cpu").profile
    per_rank = args.rate * 1e6 / 8 / args.ranks
    (tier,) = profile.tiers
    tier = msgspec.structs.replace(tier, bytes_per_s=per_rank, half_bytes=4096, latency_us=300.0)
    profile = msgspec.structs.replace(
        profile, tiers=(tier,), launch_us=100.0, hbm_bytes_per_s=6e9,
        matmul_flops=dict.fromkeys(profile.matmul_flops, 80e9),
    )  # fmt: skip
    costs = TargetCosts(Target(profile, Topology(1, args.ranks, (tier,))))
    module = Module.copy_of(step.lower(*arguments).compiler_ir())
    passes = parse_pipeline(pipeline).passes
    return run_on_stablehlo(module, passes, costs, ragged=True)[0]


def local_shards(lowered: Any, arguments: Any, rank: int) -> list[Any]:
    """Return one rank's shards of a step's arguments, on the first device."""
    import jax

    shardings = jax.tree.leaves(lowered.compile().input_shardings)
    pairs = zip(jax.tree.leaves(arguments), shardings, strict=True)
    placed = [jax.device_put(x, sharding) for x, sharding in pairs]
    return [jax.device_put(x.addressable_shards[rank].data, jax.devices()[0]) for x in placed]


def _distance(expected: Sequence[Any], got: Sequence[Any]) -> float:
    """Return the largest difference, as a share of its array's largest element."""
    import numpy as np

    pairs = ((np.asarray(a, np.float64), np.asarray(b, np.float64))
             for a, b in zip(expected, got, strict=True))  # fmt: skip
    return max(float(np.abs(a - b).max()) / max(float(np.abs(a).max()), 1e-30) for a, b in pairs)


def _busy_seconds() -> float:
    """Return the CPU seconds that all of the machine has spent so far."""
    with open("/proc/stat") as file:
        numbers = list(map(int, file.readline().split()[1:]))
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


def _row(
    args: Any, name: str, rounds: Sequence[Any], players: Any, worst: dict[str, float]
) -> dict[str, Any]:
    steps = [took[name][0].step for took in rounds]
    ratios = [took["off"][0].step / took[name][0].step for took in rounds]
    own = statistics.median(took[name][0].cpu for took in rounds)
    score = players[name].score
    return {
        "mbit": args.rate, "paced": args.paced, "pipeline": name,
        "step_s": statistics.median(steps),
        "compute_s": statistics.median(took[name][0].compute for took in rounds),
        "exchange_s": statistics.median(took[name][0].exchange for took in rounds),
        "cpu_s": own,
        "foreign_cores": statistics.median(
            max(0.0, took[name][1] - args.ranks * took[name][0].cpu) / took[name][0].step
            for took in rounds
        ),
        "speed_up": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3,
        "exchanges": len(score.exchanges), "segments": len(score.steps) - 2 * len(score.exchanges),
        "error": worst.get(name, 0.0),
    }  # fmt: skip


# ------------------------------------------------------------------ the table


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print one rate's rows."""
    by_name = {row["pipeline"]: row for row in rows}
    stock, ideal = by_name["off"], by_name["ideal"]
    comm, comp = stock["exchange_s"], ideal["step_s"]
    kind = "paced" if stock["paced"] else "token bucket"
    bound = stock["step_s"] / max(comm, comp)
    print(f"\n{stock['mbit']:g} Mbit/s ({kind}): measured; exchanges are "
          f"{comm / stock['step_s']:.0%} of the stock step; bound {bound:.2f} x")  # fmt: skip
    print(f"  {'':30}{'step ms':>9}{'x stock':>9}{'quartiles':>13}{'hidden':>8}{'compute':>9}"
          f"{'exchange':>9}{'CPU ms':>8}{'foreign':>8}{'error':>9}")  # fmt: skip
    for row in rows:
        hidden = (comp + comm - row["step_s"]) / min(comp, comm)
        low, _, high = row["quartiles"]
        print(f"  {row['pipeline']:30}{row['step_s'] * 1e3:>9.0f}{row['speed_up']:>9.2f}"
              f"{f'{low:.2f}-{high:.2f}':>13}{hidden:>8.0%}{row['compute_s'] * 1e3:>9.0f}"
              f"{row['exchange_s'] * 1e3:>9.0f}{row['cpu_s'] * 1e3:>8.0f}"
              f"{row['foreign_cores']:>8.2f}{row['error']:>9.0e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
