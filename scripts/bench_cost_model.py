"""Predicted against measured step times, on CPU processes over a link of limited rate.

    python -m scripts.bench_cost_model --json cost-model.json --page docs/cost-model.md

Two ranks replay steps (`lancet_jax.replay`) of several models, at several link speeds, in several
orders and cuts; the medians are set against three predictions of the same step:

  profile   the planner's own simulation at the figures of the CPU's profile and of the link as it
            was set up: nothing measured
  kernels   the same simulation at a table of `lancet_jax.calibrate`: every kernel compiled and
            timed alone, every exchange timed alone over the link
  segments  two streams of the replay's own segments and exchanges, each timed in a step without
            a link, and over the link without compute

Pieces and steps are measured in the same rounds, A B C A B C, so that what else the machine does
slows all alike; of every time the mean of its middle half counts.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from scripts.measured_pieces import center
from scripts.origin import origin
from scripts.shaped_link import Job, add_rank_options, prefix

SHAPES = (
    "layers=1,model=256,batch=8",
    "layers=2,model=128,batch=8",
    "layers=2,model=192,batch=16",
)
PIPELINES = (
    "off",
    "dw",
    "split-region{k=2},schedule-dw",
    "split-region{k=4},schedule-dw",
)
KINDS = ("profile", "kernels", "segments")


def main() -> None:
    """Measure every shape at every rate, print a table and write what was asked for."""
    args = _arguments()
    if args.rank is not None:
        work(args)
        return
    paced = args.paced or prefix() is None
    rows, started = [], time.time()
    for shape in args.shapes.split(";"):
        passed = [
            "--rounds",
            str(args.rounds),
            "--pipelines",
            args.pipelines,
            "--rates",
            args.rates,
        ]
        first, *_ = map(float, args.rates.split(","))
        job = Job("scripts.bench_cost_model", [*passed, "--shape", shape], first, 2, 1, paced,
                  timeout=1800)  # fmt: skip
        found = job.run()
        show(found)
        rows += found
    data: dict[str, Any] = {**origin(), "rounds": args.rounds, "paced": paced,
            "seconds": time.time() - started, "rows": rows, "errors": errors_of(rows)}  # fmt: skip
    for kind, error in data["errors"].items():
        print(f"{kind:10} mean error {error['mean']:.1%}, worst {error['worst']:.1%}")
    if args.json:
        Path(args.json).write_text(json.dumps(data, indent=1) + "\n")
    if args.page:
        from scripts import cost_model_page

        cost_model_page.write(data, Path(args.page))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="150,400", help="Mbit/s of both ranks together")
    parser.add_argument("--shapes", default=";".join(SHAPES))
    parser.add_argument("--pipelines", default=";".join(PIPELINES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--page", help="write a page and its figure, as docs/cost-model.md")
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    add_rank_options(parser)
    return parser.parse_args()


def errors_of(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean and worst relative error of every kind of prediction."""
    found = {}
    for kind in KINDS:
        errors = [abs(row["predicted"][kind] / row["measured_s"] - 1) for row in rows]
        found[kind] = {"mean": statistics.mean(errors), "worst": max(errors)}
    return found


# ------------------------------------------------------------------ in one rank


def work(args: Any) -> None:
    """Measure the pieces, then the steps, and print the rows as JSON if rank is 0."""
    import jax

    from hlo_passes.ir.stablehlo.module import Module
    from lancet_jax.replay import Echo, Player, score_of
    from scripts import replayed_steps as replayed
    from scripts import small_steps
    from scripts.measured_pieces import ExchangeTimes, KernelTimes, Pieces, heard

    jax.config.update("jax_num_cpu_devices", args.ranks)
    step, arguments = small_steps.make_step(small_steps.Shape.parse(args.shape), jax.devices())
    lowered = jax.jit(step).lower(*arguments)
    module = Module.copy_of(lowered.compiler_ir())
    profile = small_steps.profile_costs(args.mbit, args.ranks)
    inputs = small_steps.local_shards(lowered.compile(), arguments, args.rank)
    names = args.pipelines.split(";")
    modules = {name: small_steps.planned(module, name, profile) for name in names}
    link = replayed.link_of(args)
    players = {name: Player(score_of(m), link, urgent=True) for name, m in modules.items()}
    alone = {
        name: Player(p.score, Echo(args.rank, args.ranks), urgent=True)
        for name, p in players.items()
    }
    for name in names:
        alone[name].programs = players[name].programs
    sent = {name: heard(player, inputs) for name, player in players.items()}
    kernels = KernelTimes(modules.values(), link)
    rows = []
    for rate in map(float, args.rates.split(",")):
        set_rate(args, link, rate)
        kernels.samples.clear()
        exchanges = ExchangeTimes(sent, link)
        pieces = {name: Pieces(player, inputs, link) for name, player in alone.items()}
        steps: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(args.rounds):
            kernels.measure()
            exchanges.measure()
            for name, player in players.items():
                pieces[name].measure()
                steps[name].append(replayed.sample(player, inputs, link))
        costs = small_steps.profile_costs(rate, args.ranks)
        predict = Predictor(costs, kernels, exchanges)
        for name in names if args.rank == 0 else ():
            said = predict.all(name, modules[name], players[name].score, pieces[name])
            rows.append(row_of(args, rate, name, steps[name], said))
    link.close()
    if args.rank == 0:
        print(json.dumps(rows))


def set_rate(args: Any, link: Any, mbit: float) -> None:
    """Hold the link to another rate, once all ranks are quiet.

    Args:
        args: the command line.
        link: this rank's link.
        mbit: the rate in Mbit/s, of all ranks together.
    """
    from scripts.replayed_steps import meet
    from scripts.shaped_link import shape_command

    meet(link)
    if args.paced:
        link.bytes_per_s = mbit * 1e6 / 8 / args.ranks
    elif args.rank == 0:
        subprocess.run(shape_command(mbit, "change").split(), check=True)
    meet(link)


class Predictor:
    """The three predictions of a step."""

    def __init__(self, profile: Any, kernels: Any, exchanges: Any) -> None:
        self.profile, self.kernels, self.exchanges = profile, kernels, exchanges
        self.contention = exchanges.cpu_share / (1 - exchanges.cpu_share)

    def all(self, name: str, module: Any, score: Any, pieces: Any) -> dict[str, float]:
        """Return seconds by kind of prediction.

        Args:
            name: the pipeline, as exchanges were measured for it.
            module: the StableHLO that it leaves.
            score: the same, to be replayed.
            pieces: seconds of its segments, as measured.
        """
        from dataclasses import replace

        from hlo_passes.schedule.simulate import simulate
        from lancet_jax.replay import predict

        graph = module.snapshot()
        empty, *times = self.kernels.times_us
        measured = replace(self.profile, measured=self._table(times), contention=self.contention)
        calls = len(pieces.segments) * empty / 1e6
        handling = pieces.handling * len(score.exchanges)
        return {
            "profile": simulate(graph, self.profile.for_graph(graph)).makespan_us / 1e6,
            "kernels": simulate(graph, measured.for_graph(graph)).makespan_us / 1e6
            + calls + handling,
            "segments": predict(
                score, pieces.segments, self.exchanges.seconds(name), handling=pieces.handling,
                contention=self.contention,
            ),
        }  # fmt: skip

    def _table(self, times: Sequence[float]) -> Any:
        from msgspec.structs import replace

        from hlo_passes.cost.table import CostTable
        from hlo_passes.cost.table import ExchangeTimes as Curve
        from lancet_jax.calibrate.measure import rising

        ranks = self.profile.target.topology.devices
        curves = tuple(
            Curve(kind=kind, group_size=ranks, points=rising(found))
            for kind, found in self.exchanges.points.items()
        )
        return CostTable(
            source="measured", target=self.profile.name, date=f"{date.today()}",
            exchanges=curves,
            ops=tuple(replace(kernel.entry, us=us)
                      for kernel, us in zip(self.kernels.kernels, times, strict=True)),
        )  # fmt: skip


def row_of(
    args: Any, mbit: float, name: str, samples: Any, predicted: dict[str, float]
) -> dict[str, Any]:
    """Sum up one configuration.

    Args:
        args: the command line.
        mbit: the link's rate, of all ranks together.
        name: the pipeline.
        samples: its runs.
        predicted: seconds by kind of prediction.
    """
    steps = [sample.step for sample in samples]
    low, _, high = statistics.quantiles(steps, n=4)
    foreign = [max(0.0, s.machine - args.ranks * s.cpu) / s.step for s in samples]
    return {
        "shape": args.shape, "mbit": mbit, "pipeline": name, "measured_s": center(steps),
        "quartiles_s": [low, high], "foreign_cores": statistics.median(foreign),
        "predicted": predicted,
    }  # fmt: skip


# ------------------------------------------------------------------ the table


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print one shape's rows."""
    print(f"\n{rows[0]['shape']}: ms measured (quartiles), ms and error of each prediction")
    for row in rows:
        low, high = row["quartiles_s"]
        told = "".join(
            f"{kind:>12} {row['predicted'][kind] * 1e3:4.0f} "
            f"{row['predicted'][kind] / row['measured_s'] - 1:+5.0%}"
            for kind in KINDS
        )
        print(f"  {row['mbit']:4g} Mbit/s {row['pipeline']:30}{row['measured_s'] * 1e3:5.0f} "
              f"({low * 1e3:.0f}-{high * 1e3:.0f}){told}  foreign {row['foreign_cores']:.2f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
