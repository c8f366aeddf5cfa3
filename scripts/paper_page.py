"""Writes the page of the evaluation from the cells that there are."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hlo_passes.cost.device import load_profile
from hlo_passes.files import write_atomically
from scripts.paper_cells import (
    BATCHES,
    BUSIEST,
    CLUSTERS,
    CONTENTION,
    REACH_PARTS,
    REACHES,
    SIZES,
    all_cells,
    skewed_load,
)
from scripts.paper_figures import draw_all
from scripts.paper_table import (
    CUTS,
    GATES,
    MEANINGS,
    MODELS,
    ROWS,
    SPEED_UPS,
    Table,
    groups,
    summary,
)


def render(data: dict[str, Any], docs: Path, layers: int | None = None) -> None:
    """Draw the figures and write `results.md` into a folder.

    Args:
        data: the results file.
        docs: the folder.
        layers: cells of this depth instead of the models' own.
    """
    table = Table(data, layers)
    figures = draw_all(table, docs / "figures")
    links = {name: path.relative_to(docs) for name, path in figures.items()}
    lines = [*_head(table, layers), *_beside(table), *_sections(table, links),
             *_every_cell(table), *_how(), *_links(), *_provenance(table)]  # fmt: skip
    write_atomically(docs / "results.md", ("\n".join(lines) + "\n").encode())


def _head(table: Table, layers: int | None) -> Iterator[str]:
    done = len([cell for cell in all_cells() if cell in table.cells])
    yield "# The paper's evaluation, ours beside theirs"
    yield ""
    yield "<!-- Written by `python -m scripts.bench_paper --render`; change that, not this. -->"
    yield ""
    yield (
        "Every figure of ours is **modelled**: each step was **compiled** by XLA for the cluster "
        "it is about, without a GPU, and its final schedule replayed by `lancet_jax.judge`, which "
        "shares prices with the planner and nothing else. None was **measured**. What stands under "
        "*paper* was measured by Lancet's authors (MLSys'24, sections 7.1 to 7.4) on their own "
        "cluster, with their own framework. So compare shapes and shares, not milliseconds."
    )
    yield ""
    missing = len(all_cells()) - done
    rest = f"{missing} say *not run*" if missing else "that is all of them"
    yield f"{done} cells are there; {rest}."
    if layers:
        yield f"**The models were cut down to {layers} layers: these are no results.**"
    yield ""


def _beside(table: Table) -> Iterator[str]:
    """Yield the table of claims."""
    yield "## Claim by claim"
    yield ""
    yield "Highest / mean over models and sizes (how many there are)."
    yield ""
    yield "| | paper | ours: `lancet` | ours: `full` | over |"
    yield "|---|---|---|---|---|"
    for said in SPEED_UPS:
        for over in ("exchange", "off", "none"):
            ours = [summary(table.over_all(said.gate, said.device, row, over, "speed_up"))
                    for row in ("lancet", "full")]  # fmt: skip
            paper = f"{said.highest} / {said.average}" if over == "exchange" else ""
            what = f"speed-up, {GATES[said.gate]}, {CLUSTERS[said.device]} ({said.figure})"
            yield f"| {what} | {paper} | {ours[0]} | {ours[1]} | {ROWS[over]} |"
    for (device, over), share in CUTS.items():
        ours = [summary(table.over_all("switch", device, row, over, "cut"), "{:.0%}")
                for row in ("lancet", "full")]  # fmt: skip
        theirs = {"none": "RAF", "exchange": "Tutel"}[over]
        yield (f"| non-overlapped communication cut, {CLUSTERS[device]} (Fig. 13) "
               f"| up to {share:.0%} over {theirs} | {ours[0]} | {ours[1]} "
               f"| {ROWS[over]} |")  # fmt: skip
    yield (
        f"| parts chosen (section 5.1) | never above 4 | {_parts_of(table, 'lancet')} | "
        f"{_parts_of(table, 'full')} | |"
    )
    yield (
        f"| planning (Fig. 15) | most < 20 min, one GPU | {_planning(table, 'lancet')} | "
        f"{_planning(table, 'full')} | |"
    )
    yield ""
    yield _flow("""
        The paper's baselines are RAF, DeepSpeed and Tutel; it does not print which one a speed-up
        is over. Ours stand in for them: *no overlap* for DeepSpeed and RAF, `exchange` for Tutel.
    """)
    yield ""


def _flow(text: str) -> str:
    """Put a text into one line."""
    return " ".join(text.split())


def _parts_of(table: Table, row: str) -> str:
    counts: dict[str, int] = {}
    for cell, found in table.cells.items():
        if cell.pipeline == row:
            name = ", ".join(map(str, found["parts"])) or "uncut"
            counts[name] = counts.get(name, 0) + 1
    return "; ".join(f"{name}: {n}" for name, n in sorted(counts.items())) or "not run"


def _planning(table: Table, row: str) -> str:
    took = [c["plan_s"] for cell, c in table.cells.items() if cell.pipeline == row]
    return f"{min(took):.0f} to {max(took):.0f} s, no GPU" if took else "not run"


_SECTIONS = {
    "speed-up": """Step speed-up (paper: Figs. 11 and 12)
        Over the same schedule with every exchange waited for. The black line is the bound of the
        uncut step: the longer of its compute and its exchanges, which no schedule beats. A program
        that sends fewer bytes, as ragged parts do, has a bound of its own and may pass it.""",
    "parts": """What a step consists of (paper: Fig. 13)
        Switch gate. Exchanges include the gradient sums. Compute grows where a step is cut:
        smaller products, tables, windows.""",
    "ablation": """Each pass alone (paper: Fig. 16)
        The paper prints no values; it says that either pass alone gives less than both, that
        GPT2-L loses more without dW scheduling, and that on GPT2-S the two are about equal.
        *Partition only* cuts the forward pass and orders it, and leaves all that comes behind the
        loss in XLA's order (`schedule-dw{moves=forward}`). *Partition, XLA's order* leaves the
        order of the forward pass to XLA's scheduler as well.""",
    "ranges": """How much to cut (paper: Fig. 6)
        GPT2-S-MoE, Switch, 16 A100, 32 experts: ranges of fixed length around every MoE layer, the
        forward pass alone, with dW scheduling. The paper plots forward time; here it is the whole
        step, whose other half stays the same. 0 groups are the exchanges and experts alone.""",
    "planning": """Planning time (paper: Fig. 15)
        Seconds in Python on a busy machine with two cores: planning every pass, editing, and
        scheduling. The paper's are below 20 minutes for most models, and take a GPU.""",
    "skew": f"""Skewed routing (not in the paper)
        Planned for a balanced routing, judged at a skewed one: the busiest device is asked for
        {BUSIEST:g} times the mean, the idlest for next to nothing. Whole buffers take as long as
        ever; rows sent as they come take as long as the device that receives most, and its experts
        as many windows as they need. Stock XLA sends whole buffers, so its step is the same.""",
}
"""Title and text by figure."""


def _sections(table: Table, links: dict[str, Path]) -> Iterator[str]:
    for name, words in _SECTIONS.items():
        title, text = words.split("\n", 1)
        yield f"## {title}"
        yield ""
        yield f"*Modelled, from compiled schedules.* {_flow(text)}"
        yield ""
        if name in links:
            yield f"![{title}]({links[name].as_posix()})"
        else:
            yield "*Not run.*"
        yield ""
        if name == "ablation":
            yield from _ablation(table)
        if name == "ranges":
            yield from _range_table(table)


def _ablation(table: Table) -> Iterator[str]:
    columns = {
        "dw": "dW only", "partition": "partition only", "split": "partition, XLA's order",
        "lancet": "both", "full": "`full`",
    }  # fmt: skip
    yield "Speed-up over stock XLA, 32 GPUs:"
    yield ""
    yield "| | " + " | ".join(columns.values()) + " |"
    yield "|---|" + "---|" * len(columns)
    for model in MODELS:
        for device, cluster in CLUSTERS.items():
            found = [table.speed_up(model, "switch", device, "4x8", row, "off") for row in columns]
            cells = [f"{value:.3f}" if value else "not run" for value in found]
            yield f"| {MODELS[model]}, {cluster} | " + " | ".join(cells) + " |"
    yield ""


def _range_table(table: Table) -> Iterator[str]:
    place = ("gpt2_s_moe", "switch", "a100", "2x8")
    yield "| groups | " + " | ".join(map(str, REACHES)) + " |"
    yield "|---|" + "---|" * len(REACHES)
    for parts in REACH_PARTS:
        found = [table.verdict(*place, f"reach={r},k={parts}") for r in REACHES]
        cells = [f"{v['step_us'] / 1e3:,.1f}" if v else "not run" for v in found]
        yield f"| step in ms, {parts} parts | " + " | ".join(cells) + " |"
    steps = {(r, parts): v["step_us"] for r in REACHES for parts in REACH_PARTS
             if (v := table.verdict(*place, f"reach={r},k={parts}"))}  # fmt: skip
    if steps:
        reach, parts = min(steps, key=lambda key: steps[key])
        yield ""
        yield f"Shortest: {reach} groups in {parts} parts. In the paper the best range lies inside."
    yield ""


def _every_cell(table: Table) -> Iterator[str]:
    yield "## Every cell"
    yield ""
    yield _flow(
        """
        Times in ms. *bound*: the longer of compute and exchange of that very program. *of bound*:
        how near the step is to it. *skewed*: the step at the skewed routing. *contended*: the step
        if an exchange slows compute beside it by CONTENTION, which is an assumption. *planner*: by
        how much the planner's own simulation of the same schedule differs from the judge's.
    """.replace("CONTENTION", f"{CONTENTION:.0%}")
    )
    for model, gate in groups():
        for device in CLUSTERS:
            sizes = [s for s in SIZES if any(table.cell(model, gate, device, s, r) for r in ROWS)]
            yield ""
            yield f"### {MODELS[model]}, {GATES[gate]}, {CLUSTERS[device]} ({device.upper()})"
            yield ""
            if not sizes:
                yield "Not run."
                continue
            yield ("| GPUs | | parts | step | x none | x stock | compute | exchange | exposed "
                   "| a2a | bound | of bound | skewed | contended | GB | plan s "
                   "| planner |")  # fmt: skip
            yield "|---|" + "---|" * 16
            for size in sizes:
                for row in ROWS:
                    yield _row(table, model, gate, device, size, row)
    yield ""


def _row(table: Table, model: str, gate: str, device: str, size: str, row: str) -> str:
    nodes, _, per_node = size.partition("x")
    start = f"| {int(nodes) * int(per_node)} | {ROWS[row]} |"
    cell = table.cell(model, gate, device, size, row)
    verdict = table.verdict(model, gate, device, size, row)
    if cell is None or verdict is None:
        return start + " not run |" + " |" * 14
    parts = ", ".join(map(str, cell["parts"])) or "-"
    ratios = [table.speed_up(model, gate, device, size, row, over) for over in ("none", "off")]
    keys = ("compute_us", "exchange_us", "exposed_us", "exposed_all_to_all_us")
    bound = max(verdict["compute_us"], verdict["exchange_us"])
    skewed = table.verdict(model, gate, device, size, row, skewed=True)
    assert skewed is not None
    fits = "" if cell["peak_bytes"] <= cell["memory_bytes"] else " **too large**"
    theirs = cell["planner"]["step_us"] / cell["verdict"]["step_us"] - 1
    values = [
        parts, f"{verdict['step_us'] / 1e3:,.1f}",
        *(f"{ratio:.3f}" if ratio else "not run" for ratio in ratios),
        *(f"{verdict[key] / 1e3:,.1f}" for key in keys),
        f"{bound / 1e3:,.1f}", f"{bound / verdict['step_us']:.0%}",
        f"{skewed['step_us'] / 1e3:,.1f}", _contended(cell, verdict, row),
        f"{cell['peak_bytes'] / 1e9:.1f}{fits}",
        f"{cell['plan_s']:.0f}" if row not in ("none", "off") else "-",
        f"{theirs:+.2%}" if row != "none" else "-",
    ]  # fmt: skip
    return start + " " + " | ".join(values) + " |"


_HOW = {
    "types": """float32 activations on V100 and A100, as the paper's code has it (TF32 products on
        A100); bfloat16 on H100""",
    "experts": "2 a GPU, capacity factor 1, SGD with momentum, as in the paper",
    "compute": """XLA's own cost of every kernel on H100; a roofline on V100 and A100, for which XLA
        has none (`hlo_passes/cost/profiles`, every figure with its source)""",
    "exchanges": """XLA's table inside an H100 node; elsewhere latency and bandwidth by tier, NVLink
        and network, small messages dearer by the byte""",
    "contention": """none, but for one column; on GPUs an exchange takes some SMs and memory
        bandwidth from what runs beside it""",
    "ragged exchanges": """priced by the rows that are sent; XLA's own implementation on GPUs may
        cost more""",
}


def _contended(cell: dict[str, Any], verdict: dict[str, Any], row: str) -> str:
    """Return the contended step in ms; where nothing overlaps there is no contention."""
    found = verdict if row == "none" else cell.get("contended")
    return f"{found['step_us'] / 1e3:,.1f}" if found else "-"


def _links() -> Iterator[str]:
    """Yield every tier of links with its figures and where they are from."""
    yield "## Links"
    yield ""
    yield _flow("""
        What exchanges are priced by: latency, what one GPU gets each way, and the message at which
        half of that is reached, so that small messages cost more by the byte. Source of each below.
    """)
    yield ""
    yield "| | tier | latency us | GB/s | half at KiB | source |"
    yield "|---|---|---|---|---|---|"
    for device, cluster in CLUSTERS.items():
        for tier in load_profile(device).tiers:
            own = [f"{kind} {rate / 1e9:g}" for kind, rate in tier.rates.items()]
            rates = "; ".join([f"{tier.bytes_per_s / 1e9:g}", *own])
            yield (f"| {cluster} | {tier.name} | {tier.latency_us:g} | {rates} "
                   f"| {tier.half_bytes / 1024:g} | {tier.source} |")  # fmt: skip
    yield ""


def _how() -> Iterator[str]:
    loads = {k: skewed_load(k) for k in (2, 4, 8)}
    batches = ", ".join(
        f"{MODELS[model].removesuffix('-MoE')} {CLUSTERS[device]} {count}"
        for (model, device), count in BATCHES.items()
    )
    yield "## How"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for row, text in MEANINGS.items():
        yield f"| {ROWS[row]} | {text} |"
    shares = (f"{k} parts: rows x {load.fill:.2f}, {load.trips} windows"
              for k, load in loads.items())  # fmt: skip
    facts = _HOW | {
        "sequences a GPU": f"of 512 tokens, from the authors' configurations: {batches}",
        "skewed load": "; ".join(shares),
    }
    for title, text in facts.items():
        text = _flow(text)
        yield f"| {title} | {text} |"
    yield ""


def _provenance(table: Table) -> Iterator[str]:
    cells = table.cells.values()
    yield "## Provenance"
    yield ""
    for gate in GATES:
        made = Counter(
            (found["date"], found["commit"])
            for cell, found in table.cells.items()
            if cell.gate == gate
        )
        named = [f"{commit} of {date} ({count})" for (date, commit), count in sorted(made.items())]
        yield f"- commits, and how many cells of {GATES[gate]} are of each: {', '.join(named)}"
    found = sorted({f"{k} {v}" for cell in cells for k, v in cell["versions"].items()})
    yield f"- versions: {', '.join(found) or 'none'}"
    yield f"- compute time of all cells: {sum(cell['seconds'] for cell in cells) / 3600:.1f} h"
    for key, reason in sorted(table.errors.items()):
        yield f"- failed: `{key}`: {reason}"
