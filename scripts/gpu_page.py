"""Writes docs/real-gpu.md from docs/real-gpu.json, which `bench_gpu --collect` makes."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

from hlo_passes.files import write_atomically
from scripts.gpu_results import ratios, summary

DATA, PAGE = Path("docs/real-gpu.json"), Path("docs/real-gpu.md")
_GOAL_RATIO, _GOAL_HIDDEN, _GOAL_SHARE = 1.5, 0.75, 0.45
_COLUMNS = (
    "| pipeline | parts | step, ms | quartiles | over stock | quartiles | compute, ms "
    "| exchanges, ms | exposed, ms | hidden | judge, ms | error |"
)
_NAMES = {"cut": "`full` at k=2"}


def render(data: Path = DATA, page: Path = PAGE) -> None:
    """Write the page."""
    write_atomically(page, Results(json.loads(data.read_text())).page().encode())


class Results:
    """The figures of a run.

    Args:
        data: what `gpu_results.collect` returned.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.programs = {p["name"]: p for p in data["programs"]}
        self.rows = {(r["share"], r["kind"], r["pipeline"]): r for r in data["rows"]}
        self.shares = sorted({r["share"] for r in data["rows"]})
        self.pipelines = list(dict.fromkeys(r["pipeline"] for r in data["rows"]))

    def page(self) -> str:
        """Return the page's text."""
        parts = [self._head(), self._goal()]
        parts += [self._table(share, "share") for share in self.shares]
        parts += [self._errors(), self._compute(), self._kernels(), _LIMITS]
        return "\n".join(parts)

    def facts(self, share: float, kind: str, pipeline: str) -> dict[str, Any]:
        """Return what the clock says of one program under one scale of exchange times.

        Args:
            share: of the stock step that exchanges take.
            kind: of exchange times: `modelled`, `share` or `none`.
            pipeline: the program.
        """
        row, without = self.rows[share, kind, pipeline], self.rows[share, "none", pipeline]
        stock = self.rows[share, kind, "off"]
        step, low, high = summary(row["us"])
        compute = summary(without["us"])[0]
        exchange = self.programs[row["name"]]["exchange_us"] * row["scale"]
        exposed = step - compute
        return {
            "step": step, "low": low, "high": high, "compute": compute, "exchange": exchange,
            "exposed": exposed, "hidden": 1 - exposed / exchange if exchange else 1.0,
            "ratio": ratios(stock["us"], row["us"]), "predicted": row["predicted_us"],
            "error": row["predicted_us"] / step - 1,
        }  # fmt: skip

    def _head(self) -> str:
        data = self.data
        size, made, machine = data["size"], data["compiled"], data["machine"]
        gpu, driver, memory = machine["gpu"].split(", ")
        made_with = ", ".join(f"{n} {v}" for n, v in made["versions"].items())
        ran_with = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
        turns = len(data["rows"][0]["us"])
        what = (f"{size['model']}, {size['gate']} gate, {size['layers']} blocks, {size['batch']} "
                f"sequences a\nGPU, {size['dtype']}")  # fmt: skip
        return f"""# Seconds on a GPU

<!-- Written by `python -m scripts.bench_gpu --render`; change that, not this. -->

{len(self.programs)} programs of one train step ({what}), planned and compiled for 8 H100 without a GPU, then run on one {gpu}.

- **compiled**: the schedules. Each is the one that XLA made for 8 GPUs and that the judge prices: its
  fusions, kernels, order and memory, taken as they are, exchanges apart.
- **measured**: compute, and how exchanges overlap with it, by the host's clock around
  {data["steps_per_turn"]} steps in a row.
- **modelled**: how long an exchange takes. In its place stand two custom calls. The first copies its
  bytes on a stream of its own and then holds that stream, with one block of threads, until the time
  that the link tiers give is over; the second makes the compute stream wait for it. There was no
  second GPU, no NCCL and no network.

Programs took turns, {turns} rounds of them; every turn began with the state of a fresh model. A ratio is
the median of the ratios within rounds, with its quartiles.

Run on {machine["date"]}: one {gpu}, {memory}, driver {driver}, Python {machine["python"]}, {ran_with}.
Compiled on {made["date"]} at commit {made["commit"]}: {made_with}.
"""  # noqa: E501

    def _goal(self) -> str:
        rows = {p: self.facts(_GOAL_SHARE, "share", p) for p in self.pipelines}
        full, best = rows["full"], max(self.pipelines, key=lambda p: rows[p]["ratio"][0])
        most = max(self.pipelines[1:], key=lambda p: rows[p]["hidden"])
        stock = rows["off"]
        bound = stock["step"] / max(stock["compute"], stock["exchange"])
        met = full["ratio"][0] >= _GOAL_RATIO and full["hidden"] >= _GOAL_HIDDEN
        said = next((n for n in self.programs[f"full-{_GOAL_SHARE}"]["notes"]
                     if n.startswith("predicted")), "nothing")  # fmt: skip
        return f"""## The goal

Where exchanges take {_GOAL_SHARE:.0%} of the stock step, `full` should be {_GOAL_RATIO} times as fast as stock XLA and
hide {_GOAL_HIDDEN:.0%} of its exchange time. **{"It does" if met else "It does not"}**: `full` is {full["ratio"][0]:.2f} times as fast and hides
{full["hidden"]:.0%}. The fastest is {_name(best)}, {rows[best]["ratio"][0]:.2f} times as fast; most is hidden by {_name(most)},
{rows[most]["hidden"]:.0%}. With every exchange behind the stock step's compute, and that no slower, the ratio
would be {bound:.2f}. Of `full` at this speed the planner said: *{said}*.
"""  # noqa: E501

    def _table(self, share: float, kind: str) -> str:
        rate = next(p for p in self.data["programs"] if p["share"] == share)["link_bytes_per_s"]
        scale = self.rows[share, kind, "off"]["scale"]
        lines = [
            f"## Exchanges take {share:.0%} of the stock step\n",
            f"Links of {rate / 1e9:.1f} GB/s a GPU, every exchange {scale:.2f} times as long as",
            "they say: so its share is that of the measured step.\n",
            _COLUMNS,
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for pipeline in self.pipelines:
            f = self.facts(share, kind, pipeline)
            parts = self.programs[f"{pipeline}-{share}"]["parts"]
            k = ", ".join(map(str, parts)) or "uncut"
            ratio, low, high = f["ratio"]
            cells = [
                _name(pipeline), k, _ms(f["step"]), f"{_ms(f['low'])} to {_ms(f['high'])}",
                f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", _ms(f["compute"]), _ms(f["exchange"]),
                _ms(f["exposed"]), f"{f['hidden']:.0%}", _ms(f["predicted"]), f"{f['error']:+.1%}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def _errors(self) -> str:
        lines = [
            "## The judge against the clock\n",
            "The judge's step time over the measured one, of all programs and speeds. Its prices",
            "of compute are XLA's own, those of exchanges the very ones that were emulated.\n",
            "| judged | exchange times | programs | mean error | worst | mean with its sign |",
            "|---|---|---|---|---|---|",
        ]
        said = {"none": "0 (compute alone)", "modelled": "as modelled", "share": "set to the share"}
        for when in ("before the run", "today"):
            for kind, words in said.items():
                errors = {
                    key: us / self.facts(*key)["step"] - 1
                    for key in self.rows
                    if key[1] == kind and (us := self._judged(when, key)) is not None
                }
                if not errors:
                    continue
                worst = max(errors, key=lambda key: abs(errors[key]))
                lines.append(
                    f"| {when} | {words} | {len(errors)} "
                    f"| {mean(map(abs, errors.values())):.1%} "
                    f"| {errors[worst]:+.1%}, {_name(worst[2])} at {worst[0]:.0%} "
                    f"| {mean(errors.values()):+.1%} |"
                )
        order = [self._order(share) for share in self.shares]
        return "\n".join([*lines, "", _CHANGED, "", *order, ""])

    def _judged(self, when: str, key: tuple[float, str, str]) -> float | None:
        """Return the judge's step: as it was when the program was compiled, or as it is now."""
        row = self.rows[key]
        if when == "today":
            return row["predicted_us"]
        said = self.programs[row["name"]]["predicted"]
        before = {"none": said["compute_us"] + said["idle_us"], "modelled": said["step_us"]}
        return before.get(key[1])

    def _order(self, share: float) -> str:
        """Say whether the judge ranks the programs as the clock does."""
        found = {p: self.facts(share, "share", p) for p in self.pipelines}
        clock = sorted(found, key=lambda p: found[p]["step"])
        judge = sorted(found, key=lambda p: found[p]["predicted"])
        return (f"- at {share:.0%}, fastest first: {', '.join(map(_name, clock))} by the clock, "
                f"{', '.join(map(_name, judge))} by the judge")  # fmt: skip

    def _compute(self) -> str:
        lines = [
            "## Compute alone\n",
            "Every exchange a copy and no wait. What a cut costs is the compute that it adds.\n",
            "| pipeline | speed | measured, ms | over `off` | judge, ms | over `off` |",
            "|---|---|---|---|---|---|",
        ]
        for share in self.shares:
            off = self.facts(share, "none", "off")
            for pipeline in self.pipelines:
                f = self.facts(share, "none", pipeline)
                lines.append(
                    f"| {_name(pipeline)} | {share:.0%} | {_ms(f['step'])} "
                    f"| {f['step'] / off['step'] - 1:+.1%} | {_ms(f['predicted'])} "
                    f"| {f['predicted'] / off['predicted'] - 1:+.1%} |"
                )
        graphs = map(self._without_graphs, self.data.get("without_graphs", ()))
        return "\n".join(lines) + "\n\n" + "\n".join(graphs) + "\n"

    def _without_graphs(self, name: str) -> str:
        pipeline, _, share = name.partition("-")
        us = summary(self.data["without_graphs"][name])[0]
        graphs = self.facts(float(share), "modelled", pipeline)["step"]
        return (f"{_name(pipeline)} at {float(share):.0%}, exchanges as modelled: {_ms(us)} ms "
                f"without CUDA graphs, {_ms(graphs)} with them.")  # fmt: skip

    def _kernels(self) -> str:
        lines = []
        for name, found in self.data["kernels"].items():
            pipeline, _, share = name.partition("-")
            kinds = found["kinds"]
            total = {key: sum(k[key] for k in kinds.values())
                     for key in ("kernels", "measured_us", "predicted_us")}  # fmt: skip
            lines += [
                f"## Kernels of {_name(pipeline)} at {float(share):.0%}\n",
                f"The mean of {found['runs']} steps in a profiler's capture, exchanges as",
                "modelled, by the kernels' names, against the judge's prices of the ops.",
                self.data["capture_note"] + "\n",
                "| | kernels | measured, ms | judge, ms | judge / measured |",
                "|---|---|---|---|---|",
            ]
            for kind, k in [*kinds.items(), ("all", total)]:
                lines.append(
                    f"| {kind} | {k['kernels']:.0f} | {_ms(k['measured_us'])} "
                    f"| {_ms(k['predicted_us'])} | {k['predicted_us'] / k['measured_us']:.2f} |"
                )
            asked = self.programs[name]["exchange_us"]
            trips = " and ".join(f"{n} with {t} trips" if int(t) > 1 else f"{n} with one trip"
                                 for t, n in found["trips"].items())  # fmt: skip
            lines.append(
                f"\nThe step took {_ms(found['step_us'])} ms; its exchanges "
                f"{_ms(found['exchange_us'])} ms, where {_ms(asked)} were asked for."
            )
            if trips:
                lines.append(f"Loops over windows of the experts' rows: {trips}.")
            lines.append("")
        return "\n".join(lines)


def _name(pipeline: str) -> str:
    return _NAMES.get(pipeline, f"`{pipeline}`")


def _ms(us: float) -> str:
    return f"{us / 1e3:.1f}"


_CHANGED = """*Before the run* is what the judge said when the programs were compiled. The run
showed why it said too little: beside fusions that XLA gives to Triton, here those of attention's
softmax, XLA writes a price of 0.01 us whatever their size. They are now priced by the roofline.
*Today* is therefore not a prediction: it was made with these measurements at hand. All plans are
from before."""

_LIMITS = """## What this does not show

- Exchanges of 8 GPUs: NCCL's kernels take more of the chip than one block of threads, wait for
  the slowest GPU, and share memory bandwidth for as long as they run. Here an exchange copies its
  bytes at once and then waits. A gradient sum, which is done in place, copies nothing.
- Routing of trained models. Rows that a peer would send are the device's own, put at the begin of
  the buffer; the router is that of a fresh model on even random tokens, near to balance.
- Tuned kernels. The schedules were compiled without a GPU, so no algorithm of a product was chosen
  by trying; cuBLAS ran the first that it proposes.
"""
