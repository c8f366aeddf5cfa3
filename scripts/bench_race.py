"""Does the race take the shortest program? Every candidate compiled in full beside its choice.

    python -m scripts.bench_race --json race.json
    python -m scripts.bench_race --read race.json --page docs/race.md

Every step is compiled for GPUs that are not there: by XLA alone, with pipeline `best`, with `best`
once more from what was kept, and then once per candidate, each on its own: the step as it is, and
every way to cut it, at the number of parts that is predicted to be best, those that the race left
out too. All figures are of final schedules at the same costs; nothing was measured but seconds.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax

import lancet_jax
from hlo_passes.base import Context, Job
from hlo_passes.choose_split import ChooseSplit
from hlo_passes.facts.ties import tied_in
from hlo_passes.files import write_atomically
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.plans import Plan
from hlo_passes.run import Pipeline
from hlo_passes.schedule.timeline import Timeline
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.split_pass import PartsPass, ordered_timeline
from hlo_passes.split_region import SplitRegion
from lancet_jax.aot import Target
from lancet_jax.audit.room import Memory
from lancet_jax.compile.candidate import WHOLE
from lancet_jax.compile.inside_xla import WORTH
from lancet_jax.compile.job import device_memory
from lancet_jax.seams.compiling import XlaOptions
from lancet_jax.seams.xla_options import split_options, ways_apart
from lancet_jax.stages import Compiled, Lowered
from scripts.gpu_steps import GpuStep
from scripts.origin import origin
from scripts.race_steps import STEPS
from scripts.race_table import show

_PAGE = "<!-- table -->"
_FAR = 1.2
"""A program that is so many times as long as the step as it is stays as XLA makes it."""


@dataclass(frozen=True)
class Forward(SplitRegion):
    """Cuts the forward pass as the race has it cut, even if that is predicted to be longer."""

    direction: Literal["both", "forward"] = "forward"

    @property
    def is_settled(self) -> bool:
        """It is cut, whatever comes of it."""
        return True

    def decide(self, graph: Graph, context: Context, before: Timeline) -> Plan:
        """Decide as where XLA's own modules decide in the end.

        Args:
            graph: the step.
            context: what is known besides.
            before: the step as it is, in its best order.
        """
        return super().decide(graph, replace(context, checked=True), before)


@dataclass(frozen=True)
class Form:
    """One program of a step, to be compiled on its own.

    Attributes:
        way: how the step is cut.
        passes: what makes it, whatever is predicted.
        predicted_us: its step before XLA.
        options: XLA options that it needs.
        left_out: what XLA does not do with them.
    """

    way: str
    passes: Pipeline
    predicted_us: float
    options: XlaOptions = field(default_factory=dict)
    left_out: str = ""

    @property
    def name(self) -> str:
        """As in the race."""
        return f"{self.way} ({self.left_out})" if self.left_out else self.way


def main() -> None:
    """Compile, or read rows; print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="h100:8x8")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--json", help="write the rows to this file, after every step")
    parser.add_argument("--read", nargs="*", help="take rows from these files; compile nothing")
    parser.add_argument("--page", help="put the tables between the marks of this page")
    args = parser.parse_args()
    read = [json.loads(Path(path).read_text()) for path in args.read or ()]
    data = {**(read[0] if read else origin() | {"target": args.target}),
            "rows": [row for one in read for row in one["rows"]]}  # fmt: skip
    for name in args.steps.split(",") if args.read is None else ():
        data["rows"].append(row_of(name, lancet_jax.aot.target(args.target)))
        if args.json:
            write_atomically(Path(args.json), json.dumps(data, indent=1).encode())
    tables = show(data)
    print(tables)
    if args.page:
        before, _, after = Path(args.page).read_text().split(_PAGE)
        write_atomically(Path(args.page), _PAGE.join((before, f"\n{tables}\n", after)).encode())


def row_of(name: str, gpus: Target) -> dict[str, Any]:
    """Compile one step in every way.

    Args:
        name: which one, of `STEPS`.
        gpus: for what.
    """
    began = time.perf_counter()
    step = STEPS[name](gpus)
    _say(name, "by XLA alone")
    _, plain, plain_s = _compiled(step, "off")
    with tempfile.TemporaryDirectory() as folder, _kept_in(folder):
        _say(name, "best")
        lowered, best, best_s = _compiled(step, "best")
        _say(name, "best, once more")
        _, again, again_s = _compiled(step, "best")
    # Executables for devices that are not there are not read back: XLA compiles once more.
    assert sum(phase.startswith("XLA ") for phase in again.outcome.phases) == 1
    race = best.outcome.race
    made = list(_made(name, step, forms_of(lowered), {e.name: e.step_us for e in race}, gpus))
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return {
        "step": name,
        "choice": race[0].name if race else WHOLE,
        "choice_us": best.schedule().makespan_us,
        "plain_us": plain.schedule().makespan_us,
        "plain_s": plain_s, "best_s": best_s, "again_s": again_s,
        "xla_runs": sum(phase.startswith("XLA ") for phase in best.outcome.phases),
        "forms": made,
    }  # fmt: skip


def forms_of(lowered: Lowered) -> Iterator[Form]:
    """Yield the step as it is, and the likeliest cut of every way.

    A cut that is predicted to be too long to compete is among them, if a number of parts makes it.

    Args:
        lowered: the step, lowered with pipeline `best`.
    """
    module = lowered.module
    graph = module.snapshot()
    context = Job(costs=lowered.costs, ragged=True, checked=True).context(module, graph)
    before = ordered_timeline(graph, context)
    yield Form(WHOLE, Pipeline((ScheduleDw(),)), before.makespan_us)
    for name, way in ChooseSplit().ways.items():
        plan = way.decide(graph, context, before)
        found = {parts: run.step_us for parts, run in plan.race.items()}
        likeliest = plan.strategy if plan.splits else min(found, key=found.__getitem__, default="")
        parts, forced = re.fullmatch(r"k=(\d+)", likeliest), None
        if name == "lancet" and plan.splits:
            forced = Forward(memory_slack=None)
        elif name != "lancet" and parts and isinstance(way, PartsPass):
            forced = replace(way, k=int(parts[1]))
        if forced is not None:
            yield Form(f"{name} {likeliest}", Pipeline((forced, ScheduleDw())), found[likeliest])


def _made(
    step_name: str, step: GpuStep, forms: Iterable[Form], judged: dict[str, float], gpus: Target
) -> Iterator[dict[str, Any]]:
    """Compile every form in full, with nothing to compete with, and read it back.

    Then once more with XLA kept from tying together what it did, unless it is far too long.
    """
    limit, whole_us, waiting = device_memory(gpus.costs, gpus.devices), 0.0, deque(forms)
    while waiting:
        form = waiting.popleft()
        _say(step_name, form.name)
        _, compiled, seconds = _compiled(step, form.passes, form.options, check_cuts=False)
        timeline, needed = compiled.schedule(), Memory.of(compiled.runtime_executable())
        whole_us = whole_us or timeline.makespan_us
        is_cut = bool(compiled.outcome.cuts)
        is_changed = any(plan.changes for plan in compiled.outcome.made)
        assert is_changed == (form.way != WHOLE), compiled.outcome.notes
        yield {
            "name": form.name, "predicted_us": form.predicted_us,
            "judged_us": judged.get(form.name, 0.0), "compiled_us": timeline.makespan_us,
            "seconds": seconds, "fits": needed is None or limit is None or needed.total <= limit,
        }  # fmt: skip
        if not form.left_out and timeline.makespan_us < whole_us * _FAR:
            tied = _tied(compiled.scheduled, timeline)
            for options, left_out in ways_apart(tied, split_options(gpus.devices, is_cut)):
                waiting.appendleft(replace(form, options=options, left_out=left_out))


def _tied(module: ScheduledModule, timeline: Timeline) -> tuple[str, ...]:
    """Return what XLA ties together in a final schedule, where that may matter."""
    matters, moved = WORTH * timeline.makespan_us, timeline.exposed_all_to_all_us
    others = timeline.exposed_us - moved
    found = tied_in(module) if timeline.exposed_us > matters else {}
    return tuple(kind for kind in found if kind != "exchanges" or others > matters)


def _compiled(
    step: GpuStep, passes: str | Pipeline, options: XlaOptions | None = None, **how: Any
) -> tuple[Lowered, Compiled, float]:
    """Lower and compile; return both, and the seconds that took."""
    wrapped = lancet_jax.jit(
        step.function, pipeline=passes, on_unsupported="raise", **how, **step.jit_options
    )
    started = time.perf_counter()
    lowered = wrapped.lower(*step.arguments)
    compiled = lowered.compile(compiler_options=dict(options or {}))
    return lowered, compiled, time.perf_counter() - started


@contextmanager
def _kept_in(folder: str) -> Iterator[None]:
    """Keep decisions in a folder, beside JAX's cache; that itself is not used meanwhile."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _say(step: str, what: str) -> None:
    print(f"{step}: {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
