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

Kernels and segments are measured before the steps are, never during them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from scripts.shaped_link import Job, add_rank_options, prefix

SHAPES = (
    "layers=2,model=256,batch=8",
    "layers=4,model=128,batch=8",
    "layers=2,model=256,batch=16",
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
        for rate in map(float, args.rates.split(",")):
            passed = ["--rounds", str(args.rounds), "--pipelines", args.pipelines]
            job = Job("scripts.bench_cost_model", [*passed, "--shape", shape], rate, 2, 1, paced)
            rows += job.run()
            show(rows[-len(args.pipelines.split(";")) :])
    data = {"date": f"{date.today()}", "rounds": args.rounds, "paced": paced,
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

    from hlo_passes.ir.module import Module
    from lancet_jax.replay import Echo, Player, score_of
    from scripts import replayed_steps as replayed
    from scripts import small_steps

    jax.config.update("jax_num_cpu_devices", args.ranks)
    step, arguments = small_steps.make_step(small_steps.Shape.parse(args.shape), jax.devices())
    lowered = jax.jit(step).lower(*arguments)
    module = Module.copy_of(lowered.compiler_ir())
    profile = small_steps.profile_costs(args.mbit, args.ranks)
    inputs = small_steps.local_shards(lowered, arguments, args.rank)
    names = args.pipelines.split(";")
    modules = {name: small_steps.planned(module, name, profile) for name in names}
    link = replayed.link_of(args)
    players = {name: Player(score_of(m), link) for name, m in modules.items()}
    alone = {name: Player(p.score, Echo(args.rank, args.ranks)) for name, p in players.items()}
    for name in names:
        alone[name].programs = players[name].programs
    sent = {name: heard(player, inputs) for name, player in players.items()}
    kernels = KernelTimes(args, modules.values(), link)
    exchanges = exchange_times(sent, link, max(3, args.rounds // 2))
    pieces = {name: Pieces(player, inputs, args.rounds, link) for name, player in alone.items()}
    rounds = [
        {name: replayed.sample(player, inputs, link) for name, player in players.items()}
        for _ in range(args.rounds)
    ]
    link.close()
    if args.rank == 0:
        predict = Predictor(profile, kernels, exchanges)
        rows = [
            row_of(args, name, [took[name] for took in rounds],
                   predict.all(name, modules[name], players[name].score, pieces[name]))
            for name in names
        ]  # fmt: skip
        print(json.dumps(rows))


@dataclass(frozen=True)
class Sent:
    """One exchange of a step, with the arrays that it was given.

    Attributes:
        key: the same for exchanges that take the same time.
        what, arrays: see `lancet_jax.replay.exchanges.exchange`.
        bytes: payload of this rank.
    """

    key: tuple[Any, ...]
    what: Any
    arrays: list[Any]
    bytes: int


def heard(player: Any, inputs: Any) -> list[Sent]:
    """Run a step once, which also compiles it, and return what it sent."""
    from lancet_jax.replay import Player

    found: list[Sent] = []

    class Listening(Player):
        def _exchange(self, what: Any, arrays: Any) -> Any:
            size = sum(array.nbytes for array in arrays)
            key: tuple[Any, ...] = (what.kind, size)
            if what.kind == "ragged_all_to_all":  # what it sends is in its arrays, on every rank
                key = (what.kind, id(player), len(found))
                size = int(arrays[3].sum()) * arrays[0][:1].nbytes
            found.append(Sent(key, what, arrays, size))
            return super()._exchange(what, arrays)

    listening = Listening(player.score, player.link)
    listening.programs = player.programs
    listening.run(inputs)
    return found


class KernelTimes:
    """Table entries of all kernels; every rank measures, so that all are as busy.

    Attributes:
        entries: with times.
        empty_s: seconds of a program that does nothing.
    """

    def __init__(self, args: Any, modules: Any, link: Any) -> None:
        from msgspec.structs import replace

        from lancet_jax.calibrate import kernels_of, time_all
        from lancet_jax.calibrate.measure import empty_run, runner
        from scripts.replayed_steps import meet

        found = kernels_of(list(modules)).values()
        runs = [empty_run(), *(runner(kernel.program, kernel.inputs) for kernel in found)]
        meet(link)
        empty, *timings = time_all(runs, args.rounds)
        meet(link)
        net = [timing.less(empty) for timing in timings]
        self.entries = [
            replace(k.entry, us=t.us, spread=t.spread) for k, t in zip(found, net, strict=True)
        ]
        self.empty_s = empty.us / 1e6


@dataclass(frozen=True)
class ExchangeTimes:
    """What exchanges take, nothing beside them.

    Attributes:
        seconds: of every exchange of every step.
        points: (bytes, us) by kind.
        cpu_share: CPU time of this rank over wall time.
    """

    seconds: dict[str, list[float]]
    points: dict[str, list[tuple[int, float]]]
    cpu_share: float


def exchange_times(sent: dict[str, list[Sent]], link: Any, rounds: int) -> ExchangeTimes:
    """Time every different exchange over the link."""
    from lancet_jax.replay.exchanges import exchange
    from scripts.replayed_steps import meet

    wanted = {one.key: one for found in sent.values() for one in found}
    wall: dict[Any, list[float]] = {key: [] for key in wanted}
    cpu = time.process_time()
    for _ in range(rounds):
        for key, one in wanted.items():
            meet(link)
            started = time.perf_counter()
            exchange(one.what, one.arrays, link)
            wall[key].append(time.perf_counter() - started)
    cpu = time.process_time() - cpu
    median = {key: statistics.median(times) for key, times in wall.items()}
    points: dict[str, list[tuple[int, float]]] = {}
    for key, one in wanted.items():
        points.setdefault(one.what.kind, []).append((one.bytes, median[key] * 1e6))
    seconds = {name: [median[one.key] for one in found] for name, found in sent.items()}
    return ExchangeTimes(seconds, points, min(cpu / sum(map(sum, wall.values())), 0.9))


class Pieces:
    """Times of a score's segments, played in order with nothing sent.

    Attributes:
        segments: median seconds of every segment.
        handling: median seconds of everything else, per exchange.
    """

    def __init__(self, player: Any, inputs: Any, rounds: int, link: Any) -> None:
        from scripts.replayed_steps import meet

        times = []
        for _ in range(rounds):
            meet(link)
            times.append(player.run(inputs)[1])
        self.segments = [statistics.median(s) for s in zip(*(t.segments for t in times),
                                                           strict=True)]  # fmt: skip
        rest = statistics.median(t.step - t.compute for t in times)
        self.handling = rest / max(len(player.score.exchanges), 1)


class Predictor:
    """The three predictions of a step."""

    def __init__(self, profile: Any, kernels: KernelTimes, exchanges: ExchangeTimes) -> None:
        self.profile, self.kernels, self.exchanges = profile, kernels, exchanges
        self.contention = exchanges.cpu_share / (1 - exchanges.cpu_share)

    def all(self, name: str, module: Any, score: Any, pieces: Pieces) -> dict[str, float]:
        """Return seconds by kind of prediction."""
        from dataclasses import replace

        from hlo_passes.plan.simulate import simulate
        from lancet_jax.replay import predict

        graph = module.snapshot()
        measured = replace(self.profile, measured=self._table(), contention=self.contention)
        calls = len(pieces.segments) * self.kernels.empty_s
        handling = pieces.handling * len(score.exchanges)
        return {
            "profile": simulate(graph, self.profile.for_graph(graph)).makespan_us / 1e6,
            "kernels": simulate(graph, measured.for_graph(graph)).makespan_us / 1e6
            + calls + handling,
            "segments": predict(
                score, pieces.segments, self.exchanges.seconds[name], handling=pieces.handling,
                contention=self.contention,
            ),
        }  # fmt: skip

    def _table(self) -> Any:
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
            exchanges=curves, ops=tuple(self.kernels.entries),
        )  # fmt: skip


def row_of(args: Any, name: str, samples: Any, predicted: dict[str, float]) -> dict[str, Any]:
    """Sum up one configuration."""
    steps = [sample.step for sample in samples]
    low, middle, high = statistics.quantiles(steps, n=4)
    foreign = [max(0.0, s.machine - args.ranks * s.cpu) / s.step for s in samples]
    return {
        "shape": args.shape, "mbit": args.mbit, "pipeline": name, "measured_s": middle,
        "quartiles_s": [low, high], "foreign_cores": statistics.median(foreign),
        "predicted": predicted,
    }  # fmt: skip


# ------------------------------------------------------------------ the table


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print one shape's rows at one rate."""
    print(f"\n{rows[0]['shape']} at {rows[0]['mbit']:g} Mbit/s: ms, and error of each prediction")
    for row in rows:
        low, high = row["quartiles_s"]
        told = "".join(
            f"{kind:>12} {row['predicted'][kind] * 1e3:4.0f} "
            f"{row['predicted'][kind] / row['measured_s'] - 1:+5.0%}"
            for kind in KINDS
        )
        print(f"  {row['pipeline']:32}{row['measured_s'] * 1e3:5.0f} "
              f"({low * 1e3:.0f}-{high * 1e3:.0f}){told}  foreign {row['foreign_cores']:.2f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
