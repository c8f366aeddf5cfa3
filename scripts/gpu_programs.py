"""Compiles the steps that `bench_gpu` runs on one GPU, and makes their exchanges emulated ones.

A speed of the links is set so that exchanges take a given share of the stock step, as the judge has
it. Every pipeline is planned and compiled for 8 GPUs on links of that speed, without a GPU; of each
final schedule the rewritten text, the modelled time of every exchange and the judge's verdict are
kept. Nothing here is measured.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lancet_jax
from hlo_passes.cost.links import LinkTier, Topology
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.table import CostTable, ExchangeTimes
from hlo_passes.cost.target import parse_target
from lancet_jax.judge import Verdict, judge
from lancet_jax.judge.listing import read_listing
from lancet_jax.judge.prices import Prices, exchange_kind
from lancet_jax.stages import Compiled
from scripts import origin
from scripts.emulated_exchanges import emulate
from scripts.gpu_steps import GpuStep, model_step

GPUS = "h100:1x8"
SHARES = (0.2, 0.45, 0.6)
"""Of the stock step's length: what all its exchanges take together."""

PIPELINES = {
    "off": "off",
    "dw": "dw",
    "exchange": "exchange",
    "full": "full",
    "cut": "unroll-loops,split-region{k=2},schedule-dw",
}
"""By the name in tables; `cut` is `full` where the planner is not free to leave the step whole."""

_OPTIONS = {
    "xla_gpu_enable_latency_hiding_scheduler": True,
    "xla_gpu_collect_cost_model_stats": True,
}
_KINDS = ("all_to_all", "all_reduce", "all_gather", "reduce_scatter", "collective_broadcast")


@dataclass(frozen=True)
class Size:
    """What is trained.

    Attributes:
        model, gate: as in `lancet_jax.nn`.
        layers: blocks, every second one with a MoE layer.
        batch: sequences a GPU.
        dtype: of activations.
    """

    model: str = "gpt2_s_moe"
    gate: str = "switch"
    layers: int = 12
    batch: int = 48
    dtype: str = "bfloat16"

    def step(self) -> GpuStep:
        """Return the train step."""
        return model_step(
            self.model, lancet_jax.aot.target(GPUS), self.layers, gate=self.gate,
            dtype=self.dtype, batch_per_device=self.batch,
        )  # fmt: skip


@dataclass(frozen=True)
class Links:
    """Links between 8 GPUs, each of which is on the network by itself.

    Attributes:
        bytes_per_s: what one GPU gets, each way.
        latency_us, half_bytes: as in `LinkTier`; of the H100 profile's network.
    """

    bytes_per_s: float
    latency_us: float
    half_bytes: int

    def table(self) -> CostTable:
        """Return the exchanges' modelled times as the table that `lancet_jax.jit(costs=)` takes."""
        tier = LinkTier(name="network", participants=0, latency_us=self.latency_us,
                    bytes_per_s=self.bytes_per_s, half_bytes=self.half_bytes,
                    source="chosen, see docs/real-gpu.md")  # fmt: skip
        topology = Topology(8, 1, (tier,))
        sizes = [1 << n for n in range(6, 33)]
        return CostTable(
            source="measured", target=GPUS, date=datetime.now(UTC).date().isoformat(),
            note="modelled by link tiers, in the form of a measured table",
            exchanges=tuple(
                ExchangeTimes(kind=kind, group_size=8, points=tuple(
                    (size, topology.time_us(kind, size)) for size in sizes
                )) for kind in _KINDS
            ),
        )  # fmt: skip

    def costs(self) -> TargetCosts:
        """Return the judge's prices: XLA's of compute, these of exchanges."""
        return TargetCosts(parse_target(GPUS), measured=self.table())


def prepare(
    folder: Path,
    size: Size,
    shares: Sequence[float] = SHARES,
    pipelines: Sequence[str] = tuple(PIPELINES),
) -> None:
    """Write everything that a GPU needs to run to a folder.

    Args:
        folder: where to.
        size: the model and its batch.
        shares: of the stock step that exchanges take.
        pipelines: names in `PIPELINES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    step = size.step()
    stock, _ = step.compile("off", GPUS, _OPTIONS)
    programs: list[dict[str, Any]] = []
    commit = origin.commit()  # of the sources that run, whatever is committed meanwhile
    for share in shares:
        links = links_of(stock.as_text(), share)
        table = folder / f"links-{share}.json"
        links.table().save(table)
        for pipeline in pipelines:
            compiled = stock if pipeline == "off" else compile_for(step, pipeline, table)
            programs.append(_write(folder, share, pipeline, compiled, links))
            print({k: v for k, v in programs[-1].items() if k != "exchanges"}, flush=True)
            _save(folder, size, programs, commit)
    (folder / "emulated_exchanges.cu").write_text(
        Path(__file__).with_name("emulated_exchanges.cu").read_text()
    )


def compile_for(step: GpuStep, pipeline: str, table: Path) -> Compiled:
    """Plan and compile a step for links of a table.

    Args:
        step: the step.
        pipeline: a name in `PIPELINES`.
        table: a file of measured times.
    """
    wrapped = lancet_jax.jit(
        step.function, pipeline=PIPELINES[pipeline], target=GPUS, costs=table, **step.jit_options
    )
    return wrapped.lower(*step.arguments).compile(compiler_options=_OPTIONS)


def links_of(stock: str, share: float) -> Links:
    """Return the links on which exchanges take a share of the stock step, as the judge has it."""
    network: LinkTier = parse_target("h100:8x8").topology.tiers[-1]
    slow, fast = 1e9, 1e13
    for _ in range(20):
        middle = (slow * fast) ** 0.5
        links = Links(middle, network.latency_us, network.half_bytes)
        verdict = judge(stock, links.costs())
        if verdict.exchange_us / verdict.step_us > share:
            slow = middle
        else:
            fast = middle
    return links


def exchange_times(text: str, costs: TargetCosts) -> dict[str, float]:
    """Return the us of every exchange of a module by the name of the line that starts it."""
    listing = read_listing(text)
    prices = Prices(listing, costs)
    return {
        line.name: prices.exchange(line, block)[0]
        for block in listing.blocks.values()
        for line in block.lines
        if exchange_kind(line) and not line.opcode.endswith("-done")
    }


def _write(
    folder: Path, share: float, pipeline: str, compiled: Compiled, links: Links
) -> dict[str, Any]:
    """Write one program, and return what is known of it."""
    text, costs = compiled.as_text(), links.costs()
    emulated = emulate(text, exchange_times(text, costs))
    name = f"{pipeline}-{share}"
    (folder / f"{name}.hlo").write_text(emulated.text)
    (folder / "scheduled").mkdir(exist_ok=True)
    (folder / "scheduled" / f"{name}.hlo").write_text(text)
    verdict: Verdict = judge(text, costs)
    memory = compiled.memory_analysis()
    return {
        "name": name,
        "pipeline": pipeline,
        "share": share,
        "link_bytes_per_s": links.bytes_per_s,
        "exchanges": [asdict(e) for e in emulated.exchanges],
        "kinds": dict(Counter(e.kind for e in emulated.exchanges)),
        "parts": sorted({s.k for plan in compiled.outcome.cuts for s in plan.splits}),
        "predicted": asdict(verdict),
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "notes": list(compiled.outcome.notes),
    }


def _save(folder: Path, size: Size, programs: list[dict[str, Any]], commit: str) -> None:
    names = ("jax", "jaxlib", "jax-cuda12-pjrt")
    about = {
        "size": asdict(size),
        "gpus": GPUS,
        "compiled": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit,
            "versions": origin.versions(*names),
        },
        "programs": programs,
    }
    (folder / "programs.json").write_text(json.dumps(about, indent=1))
