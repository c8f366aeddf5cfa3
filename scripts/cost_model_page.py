"""Writes docs/cost-model.md and its figure from the figures of `bench_cost_model`.

python -m scripts.cost_model_page cost-model.json docs/cost-model.md
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from hlo_passes.files import write_atomically
from scripts.origin import describe

_COLOURS = {"profile": "#c9c3e6", "kernels": "#2b6ea6", "segments": "#d9480f"}
_INK = "#57606a"


def write(data: dict[str, Any], path: Path) -> None:
    """Write the page, and beside it the figure under its name with `.svg`."""
    figure = path.with_suffix(".svg")
    draw(data, figure)
    write_atomically(path, _page(data, figure.name).encode())


def draw(data: dict[str, Any], path: Path) -> None:
    """Draw predicted against measured seconds, on two logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "lancet", "font.size": 9, "text.color": _INK}):
        figure, axis = pyplot.subplots(figsize=(4.6, 4.2))
        measured = [row["measured_s"] * 1e3 for row in data["rows"]]
        for kind, colour in _COLOURS.items():
            predicted = [row["predicted"][kind] * 1e3 for row in data["rows"]]
            axis.scatter(measured, predicted, s=18, color=colour, label=kind, zorder=2)
        low, high = min(measured) * 0.8, max(measured) * 1.25
        axis.plot([low, high], [low, high], color=_INK, linewidth=0.8, zorder=1)
        axis.set(xscale="log", yscale="log", xlim=(low, high))
        axis.set_xlabel("measured, ms", color=_INK)
        axis.set_ylabel("predicted, ms", color=_INK)
        axis.tick_params(colors=_INK, which="both")
        axis.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(path, transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def _page(data: dict[str, Any], figure: str) -> str:
    rows, errors = data["rows"], data["errors"]
    load = [row["foreign_cores"] for row in rows]
    foreign, least, most = statistics.median(load), min(load), max(load)
    link = "paced by sleeping" if data["paced"] else "held to its rate by a token bucket"
    where = f"{data['machine']}, {describe(data)}"
    return f"""# The cost model against reality

{len(rows)} configurations of small MoE train steps, replayed by two CPU processes over a loopback
{link}, {data["rounds"]} rounds each. Every number of the column *measured* was
read off a clock; all others were predicted. Nothing here ran on a GPU.

{where}.

| prediction | mean error | worst |
|---|---|---|
{_errors(errors)}
The paper reports 3.83 % mean error on its own GPUs, with profiled operators.

![predicted against measured step time]({figure})

What each prediction rests on:

- *profile*: the planner's simulation at the figures of the CPU's profile, which are assumptions,
  and of the link as it was set up.
- *kernels*: the same simulation at a measured table, as `lancet-jax calibrate` makes one: every
  kernel compiled and timed alone, every exchange timed alone over the link, and the replay's own
  calls on top. Such kernels are what `--costs` gives you.
- *segments*: two streams of the very step's segments, timed in the same rounds without a link. The
  easiest to be right about: it tests the simulation, not the pricing of kernels.

The *kernels* prediction is off by {_signed(rows)} on average,
with its sign. Likely causes, not established: alone, a kernel finds its operands in the cache, and
takes less; but it is not fused with its neighbours either, as it is in a segment, and takes more.

**The machine was {_busy(foreign)}.** Other jobs held {foreign:.2f} of its two cores in the median
configuration ({least:.2f} to {most:.2f}). Pieces and steps were measured in the same rounds, so
that this slows both alike.

{_table(rows)}
Make it again, on a machine that has nothing else to do ({data["seconds"] / 60:.0f} minutes here):

    python -m scripts.bench_cost_model --json cost-model.json --page docs/cost-model.md
"""


def _signed(rows: list[dict[str, Any]]) -> str:
    """Return the mean signed error of the kernels' prediction, by link speed."""
    by_rate: dict[float, list[float]] = {}
    for row in rows:
        error = row["predicted"]["kernels"] / row["measured_s"] - 1
        by_rate.setdefault(row["mbit"], []).append(error)
    return " and ".join(
        f"{statistics.mean(errors):+.0%} at {rate:g} Mbit/s" for rate, errors in by_rate.items()
    )


def _busy(foreign: float) -> str:
    return "not quiet" if foreign > 0.3 else "quiet"


def _errors(errors: dict[str, dict[str, float]]) -> str:
    return "".join(
        f"| {kind} | {error['mean']:.1%} | {error['worst']:.1%} |\n"
        for kind, error in errors.items()
    )


def _table(rows: list[dict[str, Any]]) -> str:
    titles = ("layers, width, tokens per rank", "Mbit/s", "order", "measured ms", "quartiles",
              *_COLOURS)  # fmt: skip
    lines = [f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n"]
    for row in rows:
        shape = dict(part.split("=") for part in row["shape"].split(","))
        low, high = (value * 1e3 for value in row["quartiles_s"])
        said = [row["predicted"][kind] for kind in _COLOURS]
        predicted = " | ".join(f"{s * 1e3:.0f} ({s / row['measured_s'] - 1:+.0%})" for s in said)
        lines.append(
            f"| {shape['layers']}, {shape['model']}, {int(shape['batch']) * 128} "
            f"| {row['mbit']:g} | `{row['pipeline']}` | {row['measured_s'] * 1e3:.0f} "
            f"| {low:.0f}-{high:.0f} | {predicted} |\n"
        )
    return "".join(lines)


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
