"""One rank of `bench_wallclock --native`: every pipeline through `lancet_jax.jit`, over gloo."""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import jax
from jaxlib.mlir import ir

import lancet_jax
from hlo_passes.cost.table import CostTable, ExchangeTimes
from lancet_jax.calibrate import Probe
from lancet_jax.calibrate.measure import rising
from lancet_jax.seams import compiling
from lancet_jax.seams.step_module import copied
from scripts.shaped_link import busy_seconds
from scripts.small_steps import Shape, distance, make_step
from scripts.wallclock_samples import Sample, row_of

_SIZES = (4096, 1 << 17, 1 << 20)


def work(args: Any) -> None:
    """Compile all pipelines, run them in rounds, and print the rows as JSON if rank is 0."""
    address = f"127.0.0.1:{args.ports.split(',')[0]}"
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address, args.ranks, args.rank, heartbeat_timeout_seconds=60, shutdown_timeout_seconds=15
    )
    step, arguments = make_step(Shape.parse(args.shape), jax.devices())
    table = _measured_link(args)
    steps = {
        name: _named(step, name, table).lower(*arguments).compile()
        for name in args.pipelines.split(";")
    }
    with compiling.rewriting(WithoutExchanges()):
        steps["ideal"] = jax.jit(_renamed(step, "ideal")).lower(*arguments).compile()
    _barrier()()
    table.unlink(missing_ok=True)
    expected = _local(steps["off"](*arguments))
    worst = {n: distance(expected, _local(s(*arguments))) for n, s in steps.items() if n != "ideal"}
    jax.block_until_ready(steps["ideal"](*arguments))
    meet = _barrier()
    rounds = [
        {name: _sample(run, arguments, meet) for name, run in steps.items()}
        for _ in range(args.rounds)
    ]
    if args.rank == 0:
        plans = {n: getattr(s, "plan", None) for n, s in steps.items()}
        moves = {n: len(plan.moves) for n, plan in plans.items() if plan is not None}
        rows = [
            row_of(args, name, rounds, error=worst.get(name, 0.0), moves=moves.get(name, 0))
            for name in steps
        ]
        print(json.dumps(rows), flush=True)
    jax.distributed.shutdown()


def _named(step: Any, pipeline: str, table: Path) -> Any:
    """Wrap a step; the first rank plans for all, at the link's measured times."""
    if pipeline == "off":
        return jax.jit(_renamed(step, "off"))
    return lancet_jax.jit(
        _renamed(step, pipeline), pipeline=pipeline, costs=table, plan_on="first",
        on_unsupported="raise", peer_timeout_s=300,
    )  # fmt: skip


def _renamed(step: Any, name: str) -> Any:
    """Return the step under a name of its own, so that jit's caches keep the pipelines apart."""

    def renamed(*args: Any) -> Any:
        return step(*args)

    renamed.__name__ = "".join(c if c.isalnum() else "_" for c in name)
    return renamed


def _measured_link(args: Any) -> Path:
    """Measure gloo's exchanges over this link, and write a table that all ranks read."""
    path = Path(tempfile.gettempdir()) / f"lancet-link-{args.ports.replace(',', '-')}.json"
    points: dict[str, list[tuple[int, float]]] = {}
    for kind in ("all_to_all", "all_reduce"):
        for size in _SIZES:
            run = Probe(kind, args.ranks, size).program()
            points.setdefault(kind, []).append((size, time_once(run)))
    if args.rank == 0:
        CostTable(
            source="measured", target=f"cpu:1x{args.ranks}", date=f"{date.today()}",
            exchanges=tuple(
                ExchangeTimes(kind=kind, group_size=args.ranks, points=rising(found))
                for kind, found in points.items()
            ),
        ).save(path)  # fmt: skip
    _barrier()()
    return path


def time_once(run: Any) -> float:
    """Return the us of an exchange: the median of five, one run a sample on every rank."""
    run()
    found = []
    for _ in range(5):
        started = time.perf_counter()
        run()
        found.append((time.perf_counter() - started) * 1e6)
    return sorted(found)[2]


def _barrier() -> Any:
    """Return a function that waits for all ranks, by the smallest exchange there is."""
    return Probe("all_reduce", jax.device_count(), 4096).program()


def _sample(run: Any, arguments: Sequence[Any], meet: Any) -> Sample:
    """Run a step once, all ranks at the same time."""
    meet()
    busy, cpu, started = busy_seconds(), time.process_time(), time.perf_counter()
    jax.block_until_ready(run(*arguments))
    took = time.perf_counter() - started
    return Sample(took, time.process_time() - cpu, busy_seconds() - busy)


def _local(tree: Any) -> list[Any]:
    return [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(tree)]


@dataclass(frozen=True)
class WithoutExchanges:
    """Compiles a step whose exchanges give back what they are given, in another shape at most."""

    def compile(self, request: compiling.Request, xla: compiling.Xla) -> Any:
        """Compile the module without its exchanges."""
        clone = copied(request.module)
        found: list[ir.Operation] = []

        def visit(op: ir.Operation) -> ir.WalkResult:
            if op.name in ("stablehlo.all_to_all", "stablehlo.all_reduce"):
                found.append(op)
            return ir.WalkResult.ADVANCE

        clone.operation.walk(visit)
        with clone.context:
            for op in found:
                _pass_through(op)
        return xla.compile(clone)


def _pass_through(exchange: ir.Operation) -> None:
    for given, result in zip(list(exchange.operands), list(exchange.results), strict=True):
        local = given
        if given.type != result.type:
            with ir.InsertionPoint(exchange), exchange.location:
                (local,) = ir.Operation.create(
                    "stablehlo.reshape", results=[result.type], operands=[given]
                ).results
        result.replace_all_uses_with(local)
    exchange.erase()
