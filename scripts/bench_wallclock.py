"""Real seconds: a step's plans run by CPU processes over a link of limited rate.

    python -m scripts.bench_wallclock --shares 0.45,0.2,0.6 --json wallclock.json
    python -m scripts.bench_wallclock --ranks 4 --shares 0.45 --prepared FOLDER
    python -m scripts.bench_wallclock --native --ranks 4 --rates 300,600
    python -m scripts.bench_wallclock --render docs/real-seconds.json docs/real-seconds.md

One process a rank, each on a core of its own, over a loopback that a token bucket holds to the rate
(`scripts.shaped_link`); where there can be none, processes pace themselves (`--paced`).

By default every pipeline's StableHLO is replayed (`lancet_jax.replay`): compute in text order,
exchanges beside it, as a GPU does. Plans are made first (`scripts.planned_steps`): at the times
that the step's kernels take on one core here, for links so fast that exchanges take a given share
of the stock step. `--native` runs the jitted step itself, `lancet_jax.jit` with
`jax.distributed` and gloo: XLA:CPU orders by dataflow whatever the plan says.

Pipelines are interleaved, A B C D A B C D; a speed-up is the median of the ratios to `off` of the
same round, with its quartiles and its 95 % interval by bootstrap. The step without exchanges
(`ideal`) runs in the same rounds, and the machine's other load is told.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.origin import origin
from scripts.shaped_link import Job, add_rank_options, prefix

PIPELINES = ("off", "dw", "exchange", "lancet", "full")

SHAPE = "layers=4,every=2,model=192,batch=32,gate=even"


def main() -> None:
    """Measure every rate, and print a table."""
    args = _arguments()
    if args.rank is not None:
        from scripts import native_steps, replayed_steps

        (native_steps if args.native else replayed_steps).work(args)
        return
    if args.render:
        from scripts import real_seconds_page

        real_seconds_page.write(*args.render)
        return
    paced = args.paced or (not args.native and prefix() is None)
    if paced and not args.paced:
        print("no network namespace here (unshare, ip and tc are needed): pacing instead",
              file=sys.stderr)  # fmt: skip
    passed = _without(sys.argv[1:], "--ranks", "--paced")
    with tempfile.TemporaryDirectory() as folder:
        rows = _native(args, passed) if args.native else _replayed(args, passed, paced, folder)
    for rate in dict.fromkeys(row["mbit"] for row in rows):
        show([row for row in rows if row["mbit"] == rate])
    if args.json:
        _keep(Path(args.json), args, paced, rows)


def _keep(path: Path, args: Any, paced: bool, rows: Sequence[dict[str, Any]]) -> None:
    """Add a run to the file."""
    data = json.loads(path.read_text()) if path.exists() else {"runs": []}
    run = {
        "kind": "native jit" if args.native else "replay",
        "ranks": args.ranks, "rounds": args.rounds, "shape": args.shape,
        "link": "paced" if paced else "token bucket", "pairs": args.pairs,
        "note": args.note, **origin(), "rows": rows,
    }  # fmt: skip
    run["commit"] = args.commit or run["commit"]
    data["runs"].append(run)
    path.write_text(json.dumps(data, indent=1) + "\n")


def _native(args: Any, passed: Sequence[str]) -> list[dict[str, Any]]:
    """Run the jitted step at every rate."""
    rows = []
    for rate in map(float, args.rates.split(",")):
        job = Job("scripts.bench_wallclock", passed, rate, args.ranks, 2, args.paced,
                  timeout=args.timeout)  # fmt: skip
        rows += job.run()
    return rows


def _replayed(args: Any, passed: Sequence[str], paced: bool, folder: str) -> list[dict[str, Any]]:
    """Plan for every speed of the link, unless that is done, and play the plans.

    A link that keeps its own rate has one a job; processes that pace themselves have them all.
    """
    from scripts.planned_steps import prepare

    shares, names = list(map(float, args.shares.split(","))), args.pipelines.split(";")
    made = Path(args.prepared or args.prepare or folder)
    if not args.prepared:
        prepare(made, args.shape, args.ranks, shares, names, args.latency_us)
        if args.prepare:
            sys.exit(f"prepared {made}")
    plans = json.loads((made / "plans.json").read_text())
    rates = {plan["share"]: plan["bytes_per_s"] * 8e-6 * args.ranks for plan in plans}
    rows = []
    for share in shares[:1] if paced else shares:
        chosen = shares if paced else [share]
        options = ["--prepared", f"{made}", "--shares", ",".join(map(str, chosen))]
        job = Job("scripts.bench_wallclock", [*passed, *options], rates[share], args.ranks, 1,
                  paced, args.pairs, args.timeout)  # fmt: skip
        rows += job.run()
    return rows


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", default="0.45", help="of the stock step, for exchanges")
    parser.add_argument("--rates", default="150,300,600",
                        help="with --native: Mbit/s of all ranks together")  # fmt: skip
    parser.add_argument("--latency-us", type=float, default=100.0, help="of an exchange, if paced")
    parser.add_argument("--prepare", metavar="FOLDER", help="plan, write the plans here, and end")
    parser.add_argument("--prepared", metavar="FOLDER", help="play the plans in this folder")
    parser.add_argument("--pairs", action="store_true",
                        help="two cores a rank: one of them for its exchanges")  # fmt: skip
    parser.add_argument("--commit", default="", help="where there is no repository to ask")
    parser.add_argument("--note", default="", help="what a reader of the file has to know")
    parser.add_argument("--rows", help="write what is measured so far to this file")
    parser.add_argument("--render", nargs=2, metavar=("JSON", "PAGE"), help="write the page")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pipelines", default=";".join(PIPELINES))
    parser.add_argument("--shape", default=SHAPE, help="layers=2,model=128,batch=8,gate=top_k")
    parser.add_argument("--native", action="store_true", help="one jit instead of a replay")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one rate")
    parser.add_argument("--json", help="add the run to this file")
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
