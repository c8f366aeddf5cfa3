"""The cells of the paper's evaluation: which there are, and how one is computed.

A cell is one program: model, gate, cluster, pipeline. It is compiled for its own cluster, with
2 experts a GPU as in the paper, read back, and judged (`lancet_jax.judge`), at a balanced routing
and at a skewed one.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import ceil
from typing import Any

import lancet_jax
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.plans import Split
from lancet_jax.judge import Load, Verdict, judge
from lancet_jax.stages import Compiled
from scripts.gpu_steps import model_step
from scripts.origin import commit, versions

PIPELINES = {
    "off": "off",
    "dw": "dw",
    "split": "split-region{direction=forward}",
    "partition": "split-region{direction=forward},schedule-dw{moves=forward}",
    "exchange": "exchange",
    "lancet": "lancet",
    "full": "full",
}
"""What is compiled, by the name in tables."""

ABLATED = ("split", "partition")
"""Of the ablation alone: the cut with XLA's order, and with an order of the forward pass."""

_EXCHANGE_IN_TWO = "split-exchange{k=2},schedule-dw"

REACHES, REACH_PARTS = (0, 1, 2, 3, 4, 5), (2, 4)
"""Fixed ranges, in fifths of a MoE layer's interval, and numbers of parts: the paper's figure 6."""

CLUSTERS = {"v100": "p3dn", "a100": "p4de", "h100": "H100"}
"""What tables call clusters of a device."""

SIZES = ("1x8", "2x8", "4x8", "8x8")

BATCHES = {
    ("gpt2_s_moe", "v100"): 16, ("gpt2_s_moe", "a100"): 48, ("gpt2_s_moe", "h100"): 48,
    ("gpt2_l_moe", "v100"): 8, ("gpt2_l_moe", "a100"): 24, ("gpt2_l_moe", "h100"): 24,
}  # fmt: skip
"""Sequences a GPU, from the configurations that Lancet's authors published; H100 as A100."""

DTYPES = {"v100": "float32", "a100": "float32", "h100": "bfloat16"}
"""Activations: what the paper ran (TF32 products on A100), and today's habit on H100."""

BUSIEST = 2.0
"""Skewed routing: the busiest device is asked for this many times the mean, see `skewed_load`."""

CONTENTION = 0.2
"""What-if: the share by which an exchange in flight slows compute beside it; an assumption."""

_FOLDER = re.compile(r"(?<= )/\S+/(?=src/)")
"""Where the sources lie on the machine that computes a cell."""


@dataclass(frozen=True)
class Cell:
    """One program.

    Attributes:
        model, gate: as in `lancet_jax.nn`.
        device: a profile's name.
        size: nodes x GPUs.
        pipeline: key of `PIPELINES`, or a fixed range as `reach=2,k=4`.
    """

    model: str
    gate: str
    device: str
    size: str
    pipeline: str

    @property
    def key(self) -> str:
        """Its name in the results file."""
        return f"{self.model}/{self.gate}/{self.device}:{self.size}/{self.pipeline}"

    @staticmethod
    def of(key: str) -> "Cell":
        """Read a name back."""
        model, gate, target, pipeline = key.split("/")
        device, _, size = target.partition(":")
        return Cell(model, gate, device, size, pipeline)

    @property
    def spec(self) -> str:
        """The passes that it is compiled with."""
        if self.pipeline.startswith("reach"):
            return f"split-region{{direction=forward,{self.pipeline}}},schedule-dw"
        return PIPELINES[self.pipeline]

    @property
    def target(self) -> str:
        """Where it would run."""
        return f"{self.device}:{self.size}"

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        nodes, _, per_node = self.size.partition("x")
        return int(nodes) * int(per_node)


def all_cells() -> tuple[Cell, ...]:
    """Return every cell once, those that matter most first."""
    return tuple(dict.fromkeys(_by_weight()))


def _by_weight() -> Iterator[Cell]:
    main = [name for name in PIPELINES if name not in ABLATED]
    yield from _grid("gpt2_s_moe", "switch", ("8x8",), main)
    yield from _grid("gpt2_s_moe", "switch", ("4x8",), tuple(PIPELINES))
    yield from _grid("gpt2_s_moe", "switch", ("1x8", "2x8"), main)
    for parts in REACH_PARTS:
        for reach in REACHES:
            yield Cell("gpt2_s_moe", "switch", "a100", "2x8", f"reach={reach},k={parts}")
    yield from _grid("gpt2_l_moe", "switch", ("8x8",), main)
    yield from _grid("gpt2_s_moe", "batch_prioritised", ("8x8",), main)
    yield from _grid("gpt2_l_moe", "switch", ("4x8",), tuple(PIPELINES))
    yield from _grid("gpt2_l_moe", "batch_prioritised", ("8x8",), main)
    yield from _grid("gpt2_s_moe", "batch_prioritised", ("4x8", "2x8", "1x8"), main)
    yield from _grid("gpt2_l_moe", "switch", ("2x8", "1x8"), main)
    yield from _grid("gpt2_l_moe", "batch_prioritised", ("4x8", "2x8", "1x8"), main)


def _grid(model: str, gate: str, sizes: Sequence[str], pipelines: Sequence[str]) -> Iterator[Cell]:
    for size in sizes:
        for device in CLUSTERS:
            for pipeline in pipelines:
                yield Cell(model, gate, device, size, pipeline)


def compute(cell: Cell, layers: int | None = None) -> dict[str, Any]:
    """Compile one cell and judge it; every time in us is modelled."""
    started = time.perf_counter()
    gpus = lancet_jax.aot.target(cell.target)
    step = model_step(
        cell.model, gpus, layers, gate=cell.gate, dtype=DTYPES[cell.device],
        batch_per_device=BATCHES[cell.model, cell.device],
    )  # fmt: skip
    options: dict[str, Any] = {"xla_gpu_enable_latency_hiding_scheduler": True}
    if cell.device == "h100":
        options["xla_gpu_collect_cost_model_stats"] = True
    compiled, seconds = step.compile(cell.spec, cell.target, options)
    costs = TargetCosts(gpus.costs)
    if cell.pipeline == "exchange" and any(split.k != 2 for split in _splits(compiled)):
        # The number of parts is chosen before XLA fuses: a baseline has to have its best.
        other, _ = step.compile(_EXCHANGE_IN_TWO, cell.target, options)
        compiled = min(compiled, other, key=lambda it: judge(it.as_text(), costs).step_us)
    splits = _splits(compiled)
    ragged = max((split.k for split in splits if split.ragged), default=0)
    memory = compiled.memory_analysis()
    return {
        "layers": layers,
        "batch": BATCHES[cell.model, cell.device],
        "dtype": DTYPES[cell.device],
        "parts": sorted({split.k for split in splits}),
        "notes": [_FOLDER.sub("", note) for note in compiled.outcome.notes],
        **_verdicts(compiled.as_text(), costs, ragged, is_stock=cell.pipeline == "off"),
        "planner": _planners(compiled),
        "temp_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "memory_bytes": gpus.costs.profile.memory_bytes,
        "plan_s": compiled.outcome.seconds,
        "compile_s": seconds,
        "seconds": time.perf_counter() - started,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "versions": versions("jax", "jaxlib", "jax-cuda12-pjrt"),
    }


def _splits(compiled: Compiled) -> list[Split]:
    return [split for plan in compiled.outcome.cuts for split in plan.splits]


def _verdicts(text: str, costs: TargetCosts, ragged: int, *, is_stock: bool) -> dict[str, Any]:
    """Judge a compiled step: as it is, with contention, at a skewed routing, without overlap."""
    found: dict[str, Verdict] = {"verdict": judge(text, costs)}
    found["contended"] = judge(text, replace(costs, contention=CONTENTION))
    if ragged:
        found["skewed"] = judge(text, costs, load=skewed_load(ragged))
    if is_stock:
        found["serial"] = judge(text, costs, overlaps=False)
    return {name: asdict(verdict) for name, verdict in found.items()}


def _planners(compiled: Compiled) -> dict[str, float]:
    """Return what the planner's own simulation says of the same schedule."""
    timeline = compiled.schedule()
    names = ("compute_us", "exchange_us", "exposed_us", "exposed_all_to_all_us")
    return {"step_us": timeline.makespan_us} | {name: getattr(timeline, name) for name in names}


def skewed_load(parts: int, busiest: float = BUSIEST) -> Load:
    """Return what a skewed routing means for a step that sends rows as they come, in parts.

    Devices are asked for `busiest` times the mean at most and next to nothing at least, evenly in
    between, all along the batch. A device takes rows until its experts' capacity, at factor 1 the
    mean, is used up, and the rest is dropped: so the busiest fill up early. A part takes as long
    as the device that receives most in it; windows of experts as many trips as that one needs.
    Exchanges of whole buffers are the same whatever the routing.

    Args:
        parts: in how many parts the step sends.
        busiest: requests of the busiest device over the mean, 1 to 2.
    """
    devices = 256
    low = 2 - busiest
    heat = [low + (busiest - low) * i / (devices - 1) for i in range(devices)]
    most = []
    for part in range(parts):
        before, after = part / parts, (part + 1) / parts
        most.append(max(min(h * after, 1.0) - min(h * before, 1.0) for h in heat))
    return Load(fill=sum(most), trips=ceil(max(most) * parts - 1e-9))
