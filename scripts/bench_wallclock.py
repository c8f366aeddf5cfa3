"""Real seconds: a step's plans run by CPU processes over a link of limited rate.

    python -m scripts.bench_wallclock --rates 150,300,600 --json wallclock.json
    python -m scripts.bench_wallclock --native --ranks 4 --rates 300,600

One process a rank, each on a core of its own, over a loopback that a token bucket holds to the rate
(`scripts.shaped_link`); where there can be none, processes pace themselves (`--paced`).

By default every pipeline's StableHLO is replayed (`lancet_jax.replay`): compute in text order,
exchanges beside it, as a GPU does. `--native` runs the jitted step itself, `lancet_jax.jit` with
`jax.distributed` and gloo: XLA:CPU orders by dataflow whatever the plan says.

Pipelines are interleaved, A B C D A B C D; a speed-up is the median of the ratios to `off` of the
same round, with its 95 % interval by bootstrap. The step without exchanges (`ideal`) runs in the
same rounds, and the machine's other load is told.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from scripts.shaped_link import Job, add_rank_options, prefix

PIPELINES = ("off", "dw", "exchange", "full")


@dataclass(frozen=True)
class Sample:
    """Seconds of one run of one step on one rank.

    Attributes:
        step, cpu: wall time and this process's CPU time.
        machine: CPU time of the whole machine meanwhile.
        compute, exchange: in segments and in exchanges, where it is known.
    """

    step: float
    cpu: float
    machine: float
    compute: float | None = None
    exchange: float | None = None


def main() -> None:
    """Measure every rate, and print a table."""
    args = _arguments()
    if args.rank is not None:
        from scripts import native_steps, replayed_steps

        (native_steps if args.native else replayed_steps).work(args)
        return
    paced = args.paced or (not args.native and prefix() is None)
    if paced and not args.paced:
        print("no network namespace here (unshare, ip and tc are needed): pacing instead",
              file=sys.stderr)  # fmt: skip
    rows = []
    for rate in map(float, args.rates.split(",")):
        passed = _without(sys.argv[1:], "--ranks", "--paced")
        job = Job("scripts.bench_wallclock", passed, rate, args.ranks, 2 if args.native else 1,
                  paced, args.timeout)  # fmt: skip
        rows += job.run()
        show([row for row in rows if row["mbit"] == rate])
    if args.json:
        data = {"jax": version("jax"), "kind": "native jit" if args.native else "replay",
                "ranks": args.ranks, "rounds": args.rounds, "rows": rows}  # fmt: skip
        with open(args.json, "w") as file:
            json.dump(data, file, indent=1)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="150,300,600", help="Mbit/s of all ranks together")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pipelines", default=";".join(PIPELINES))
    parser.add_argument("--shape", default="", help="layers=2,model=128,batch=8,gate=top_k")
    parser.add_argument("--native", action="store_true", help="one jit instead of a replay")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one rate")
    parser.add_argument("--json", help="write the rows to this file")
    add_rank_options(parser)
    return parser.parse_args()


def _without(arguments: Sequence[str], *names: str) -> list[str]:
    """Return a command line without some options; `--ranks` takes a value, `--paced` none."""
    kept, skip = [], False
    for argument in arguments:
        if argument in names:
            skip = argument == "--ranks"
        elif skip:
            skip = False
        else:
            kept.append(argument)
    return kept


# ------------------------------------------------------------------ figures


def row_of(
    args: Any, name: str, rounds: Sequence[dict[str, Sample]], **more: Any
) -> dict[str, Any]:
    """Sum up one step's runs."""
    mine = [took[name] for took in rounds]
    ratios = [took["off"].step / took[name].step for took in rounds]
    return {
        "mbit": args.mbit, "paced": args.paced, "native": args.native, "ranks": args.ranks,
        "pipeline": name,
        "step_s": statistics.median(s.step for s in mine),
        "compute_s": _median([s.compute for s in mine]),
        "exchange_s": _median([s.exchange for s in mine]),
        "cpu_s": statistics.median(s.cpu for s in mine),
        "foreign_cores": statistics.median(
            max(0.0, s.machine - args.ranks * s.cpu) / s.step for s in mine
        ),
        "speed_up": statistics.median(ratios),
        "interval": interval(ratios),
        "steps_s": [s.step for s in mine],
    } | more  # fmt: skip


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """Return the interval of the median by bootstrap, always the same for the same values."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    edge = int(len(medians) * (1 - share) / 2)
    return medians[edge], medians[-1 - edge]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f}"


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print one rate's rows."""
    by_name = {row["pipeline"]: row for row in rows}
    stock, ideal = by_name["off"], by_name["ideal"]
    comp = ideal["step_s"]
    comm = stock["step_s"] - comp if stock["native"] else stock["exchange_s"]
    kind = ("native jit, " if stock["native"] else "replay, ") + (
        "paced" if stock["paced"] else "token bucket"
    )
    share, bound = comm / stock["step_s"], stock["step_s"] / max(comm, comp)
    print(f"\n{stock['mbit']:g} Mbit/s, {stock['ranks']} ranks ({kind}): measured; exchanges are "
          f"{share:.0%} of the stock step; bound {bound:.2f} x")  # fmt: skip
    print(f"  {'':26}{'step ms':>9}{'x stock':>9}{'95 %':>13}{'hidden':>8}{'compute':>9}"
          f"{'exchange':>9}{'CPU ms':>8}{'foreign':>8}{'error':>9}")  # fmt: skip
    for row in rows:
        hidden = (comp + comm - row["step_s"]) / min(comp, comm)
        told = "-" if row is ideal else f"{hidden:.0%}"
        low, high = row["interval"]
        print(f"  {row['pipeline']:26}{row['step_s'] * 1e3:>9.0f}{row['speed_up']:>9.2f}"
              f"{f'{low:.2f}-{high:.2f}':>13}{told:>8}{_ms(row['compute_s']):>9}"
              f"{_ms(row['exchange_s']):>9}{_ms(row['cpu_s']):>8}"
              f"{row['foreign_cores']:>8.2f}{row['error']:>9.0e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
