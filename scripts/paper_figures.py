"""The figures of the evaluation, after those of the paper. Every time in them is modelled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.paper_cells import CLUSTERS, REACH_PARTS, REACHES, SIZES
from scripts.paper_table import GATES, MODELS, ROWS, SPEED_UPS, Table, groups

_INK = "#57606a"
_COLOURS = {
    "none": "#d0d7de", "off": "#8a9bb0", "exchange": "#e3a54a", "lancet": "#74a9cf",
    "dw": "#9fc693", "full": "#1f5f99", "partition": "#c6b3dc",
}  # fmt: skip
_COMPUTE, _BOTH, _EXPOSED, _IDLE = "#8a9bb0", "#9ecae1", "#d9480f", "#e6e6e6"
_GPUS = {"1x8": 8, "2x8": 16, "4x8": 32, "8x8": 64}


def draw_all(table: Table, folder: Path) -> dict[str, Path]:
    """Draw every figure for which there is a cell; return the files by the figure's name."""
    folder.mkdir(parents=True, exist_ok=True)
    drawers: dict[str, Callable[[Any, Table], Any]] = {
        "speed-up": _speed_up, "parts": _parts, "ablation": _ablation, "ranges": _ranges,
        "planning": _planning, "skew": _skew,
    }  # fmt: skip
    made = {}
    for name, drawer in drawers.items():
        path = folder / f"{name}.svg"
        if _save(drawer, table, path):
            made[name] = path
    return made


def _save(drawer: Callable[[Any, Table], Any], table: Table, path: Path) -> bool:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {
        "svg.hashsalt": "lancet", "svg.fonttype": "none", "font.size": 8,
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
        "text.color": _INK, "axes.labelcolor": _INK,
        "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": "#c8ccd1",
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 8,
        "axes.titlecolor": _INK, "legend.frameon": False,
    }  # fmt: skip
    with pyplot.rc_context(style):
        figure = drawer(pyplot, table)
        if figure is None:
            return False
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    return True


def _cluster(device: str) -> str:
    name = device.upper()
    return name if CLUSTERS[device] == name else f"{CLUSTERS[device]} ({name})"


def _speed_up(pyplot: Any, table: Table) -> Any:
    """Speed-up over no overlap by size (the paper's figures 11 and 12), with the bound."""
    shown = [pair for pair in groups() if any((c.model, c.gate) == pair for c in table.cells)]
    if not shown:
        return None
    figure, axes = pyplot.subplots(
        len(CLUSTERS), len(shown), sharey="row", squeeze=False,
        figsize=(max(8.4, 1.0 + 2.4 * len(shown)), 5.6), layout="constrained",
    )  # fmt: skip
    for row, device in enumerate(CLUSTERS):
        highest = 1.1
        for column, (model, gate) in enumerate(shown):
            axis = axes[row][column]
            highest = max(highest, _speed_up_bars(axis, table, model, gate, device))
            if row == 0:
                axis.set_title(f"{MODELS[model]}, {GATES[gate]}")
            if column == 0:
                axis.set_ylabel(f"{_cluster(device)}\nspeed-up over no overlap")
            if row == len(CLUSTERS) - 1:
                axis.set_xlabel("GPUs")
        axes[row][0].set_ylim(1, 1 + (highest - 1) * 1.05)
    names = [name for name in ROWS if name != "none"]
    _legend(figure, pyplot, [(ROWS[n], _COLOURS[n]) for n in names],
            lines=[("bound: longer of compute and exchange, uncut", "black", "-"),
                   ("the paper's highest over its baselines", "#b35900", ":")])  # fmt: skip
    return figure


def _speed_up_bars(axis: Any, table: Table, model: str, gate: str, device: str) -> float:
    """Draw one panel, and return its highest value."""
    names = [name for name in ROWS if name != "none"]
    wide, highest = 0.8 / len(names), 1.0
    for place, size in enumerate(SIZES):
        stock = table.verdict(model, gate, device, size, "off")
        for i, name in enumerate(names):
            value = table.speed_up(model, gate, device, size, name, "none")
            if value is not None:
                at = place - 0.4 + (i + 0.5) * wide
                axis.bar(at, value - 1, wide * 0.92, bottom=1, color=_COLOURS[name])
                highest = max(highest, value)
            elif stock is not None:
                axis.text(place - 0.4 + (i + 0.5) * wide, 1.005, "not run", rotation=90,
                          ha="center", va="bottom", fontsize=4.5)  # fmt: skip
        if stock is None:
            axis.text(place, 1.005, "not run", rotation=90, ha="center", va="bottom", fontsize=6)
            continue
        serial = table.verdict(model, gate, device, size, "none")
        assert serial is not None
        bound = serial["step_us"] / max(stock["compute_us"], stock["exchange_us"])
        axis.plot([place - 0.42, place + 0.42], [bound, bound], color="black", linewidth=1)
        highest = max(highest, bound)
    for published in SPEED_UPS:
        if (published.device, published.gate) == (device, gate):
            axis.axhline(published.highest, color="#b35900", linestyle=":", linewidth=1)
    axis.set_xticks(range(len(SIZES)), [str(_GPUS[size]) for size in SIZES])
    axis.set_xlim(-0.55, len(SIZES) - 0.45)
    axis.tick_params(length=0)
    return highest


def _parts(pyplot: Any, table: Table) -> Any:
    """Compute alone, both, exchange alone (the paper's figure 13), at the largest size there is."""
    shown = [
        (model, device, size)
        for model in MODELS
        for device in CLUSTERS
        if (size := table.largest(model, "switch", device))
    ]
    if not shown:
        return None
    rows = len({model for model, _, _ in shown})
    devices = [device for device in CLUSTERS if any(device == found for _, found, _ in shown)]
    figure, axes = pyplot.subplots(
        rows, len(devices), squeeze=False, layout="constrained",
        figsize=(max(6.0, 0.4 + 3.0 * len(devices)), 0.9 + 1.9 * rows),
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_visible(False)
    order = list(dict.fromkeys(model for model, _, _ in shown))
    for model, device, size in shown:
        axis = axes[order.index(model)][devices.index(device)]
        axis.set_visible(True)
        _stack(axis, table, model, device, size)
        axis.set_title(f"{MODELS[model]}, {_GPUS[size]} GPUs, {_cluster(device)}",
                       loc="left")  # fmt: skip
        axis.set_xlabel("ms")
    _legend(figure, pyplot, [("compute alone", _COMPUTE), ("compute and exchange", _BOTH),
                             ("exchange alone: exposed", _EXPOSED)],
            lines=[("bound: longer of the two", "black", "-")])  # fmt: skip
    return figure


def _stack(axis: Any, table: Table, model: str, device: str, size: str) -> None:
    names = list(ROWS)
    longest = max(
        (v["step_us"] for n in names if (v := table.verdict(model, "switch", device, size, n))),
        default=0.0,
    )
    for place, name in enumerate(names):
        verdict = table.verdict(model, "switch", device, size, name)
        if verdict is None:
            axis.text(0, place, " not run", va="center", fontsize=7)
            continue
        left = 0.0
        for key, colour in (("compute_only_us", _COMPUTE), ("overlapped_us", _BOTH),
                            ("exposed_us", _EXPOSED), ("idle_us", _IDLE)):  # fmt: skip
            axis.barh(place, verdict[key] / 1e3, 0.72, left=left / 1e3, color=colour)
            left += verdict[key]
        axis.text(left / 1e3, place, f" {left / 1e3:,.0f}", va="center", fontsize=7)
        bound = max(verdict["compute_us"], verdict["exchange_us"]) / 1e3
        axis.plot([bound, bound], [place - 0.45, place + 0.45], color="black", linewidth=1.2)
    axis.set_yticks(range(len(names)), [ROWS[name] for name in names])
    axis.set_xlim(0, longest / 1e3 * 1.14)
    axis.invert_yaxis()
    axis.tick_params(length=0)


def _ablation(pyplot: Any, table: Table) -> Any:
    """Each pass alone and both, over stock XLA, on 32 GPUs (the paper's figure 16)."""
    names = {"dw": "dW scheduling only", "partition": "partition only",
             "lancet": "both (the paper's)", "full": "full"}  # fmt: skip
    panels = [m for m in MODELS if any(
        table.cell(m, "switch", d, "4x8", n) for d in CLUSTERS for n in names)]  # fmt: skip
    if not panels:
        return None
    figure, axes = pyplot.subplots(
        1, len(panels), sharey=True, squeeze=False, figsize=(1 + 3.6 * len(panels), 2.6),
        layout="constrained",
    )  # fmt: skip
    for axis, model in zip(axes[0], panels, strict=True):
        for place, device in enumerate(CLUSTERS):
            for i, name in enumerate(names):
                at = place - 0.3 + 0.2 * i
                value = table.speed_up(model, "switch", device, "4x8", name, "off")
                if value is None:
                    axis.text(at, 1.002, "not run", rotation=90, ha="center", fontsize=6)
                    continue
                axis.bar(at, value - 1, 0.18, bottom=1, color=_COLOURS[name])
                axis.text(at, max(value, 1), f"{value:.2f}", ha="center", va="bottom", fontsize=6)
        axis.axhline(1, color=_INK, linewidth=0.8)
        axis.set_xticks(range(len(CLUSTERS)), [_cluster(device) for device in CLUSTERS])
        axis.set_title(f"{MODELS[model]}, Switch, 32 GPUs", loc="left")
        axis.tick_params(length=0)
    axes[0][0].set_ylabel("speed-up over stock XLA")
    _legend(figure, pyplot, [(text, _COLOURS[name]) for name, text in names.items()])
    return figure


def _ranges(pyplot: Any, table: Table) -> Any:
    """Step over the length of the ranges that are cut (the paper's figure 6), 16 A100."""
    place = ("gpt2_s_moe", "switch", "a100", "2x8")
    curves = {
        k: [(r, v["step_us"] / 1e3) for r in REACHES
            if (v := table.verdict(*place, f"reach={r},k={k}"))]
        for k in REACH_PARTS
    }  # fmt: skip
    if not any(curves.values()):
        return None
    figure, axis = pyplot.subplots(figsize=(5.2, 2.7), layout="constrained")
    for (k, points), colour in zip(curves.items(), (_COLOURS["lancet"], _COLOURS["full"]),
                                   strict=True):  # fmt: skip
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour,
                      label=f"{k} parts")  # fmt: skip
    for name, style in (("off", "-"), ("dw", "--"), ("lancet", ":")):
        if verdict := table.verdict(*place, name):
            axis.axhline(verdict["step_us"] / 1e3, color=_INK, linewidth=0.9, linestyle=style)
            axis.annotate(f" {ROWS[name]}", (1, verdict["step_us"] / 1e3), fontsize=7,
                          xycoords=("axes fraction", "data"), va="center")  # fmt: skip
    axis.set_xticks(REACHES)
    axis.set_xlabel("groups cut beside the exchanges (5 groups: one MoE layer's interval)")
    axis.set_ylabel("step, ms")
    axis.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


def _planning(pyplot: Any, table: Table) -> Any:
    """Seconds of planning and editing (the paper's figure 15), Switch gate."""
    names = ("dw", "exchange", "lancet", "full")
    if not any(c.pipeline in names for c in table.cells):
        return None
    figure, axes = pyplot.subplots(1, len(MODELS), sharey=True, figsize=(8, 2.5), squeeze=False,
                                   layout="constrained")  # fmt: skip
    for axis, model in zip(axes[0], MODELS, strict=True):
        for i, name in enumerate(names):
            for place, size in enumerate(SIZES):
                took = [c["plan_s"] for d in CLUSTERS
                        if (c := table.cell(model, "switch", d, size, name))]  # fmt: skip
                at = place - 0.3 + 0.2 * i
                if took:
                    axis.bar(at, max(took), 0.18, color=_COLOURS[name])
                else:
                    axis.text(at, 0.5, "not run", rotation=90, ha="center", fontsize=6)
        axis.set_xticks(range(len(SIZES)), [str(_GPUS[size]) for size in SIZES])
        axis.set_xlabel("GPUs")
        axis.set_title(f"{MODELS[model]}, Switch; slowest cluster", loc="left")
        axis.tick_params(length=0)
    axes[0][0].set_ylabel("planning, s")
    _legend(figure, pyplot, [(ROWS[name], _COLOURS[name]) for name in names])
    return figure


def _skew(pyplot: Any, table: Table) -> Any:
    """Speed-up over stock XLA at a balanced routing and at a skewed one, 64 GPUs."""
    names = ("lancet", "full")
    pairs = [
        (f"{MODELS[m].removesuffix('-MoE')} {GATES[g]}, {d.upper()}", n, balanced, skewed)
        for m, g in groups()
        for d in CLUSTERS
        for n in names
        if (balanced := table.speed_up(m, g, d, "8x8", n, "off"))
        and (skewed := table.speed_up(m, g, d, "8x8", n, "off", skewed=True))
    ]
    if not pairs:
        return None
    figure, axis = pyplot.subplots(figsize=(6.6, 0.9 + 0.19 * len(pairs)), layout="constrained")
    for place, (_, name, balanced, skewed) in enumerate(pairs):
        colour = _COLOURS[name]
        axis.plot([skewed, balanced], [place, place], color=colour, linewidth=1.4)
        axis.plot(balanced, place, "o", color=colour, markersize=5)
        axis.plot(skewed, place, "o", markerfacecolor="white", color=colour, markersize=5)
    labels = [f"{text}, {ROWS[name]}" for text, name, _, _ in pairs]
    axis.set_yticks(range(len(pairs)), labels, fontsize=7)
    axis.axvline(1, color=_INK, linewidth=0.8)
    axis.invert_yaxis()
    axis.set_xlabel("speed-up over stock XLA, 64 GPUs: filled balanced, hollow skewed routing")
    axis.tick_params(length=0)
    return figure


def _legend(
    figure: Any,
    pyplot: Any,
    patches: Sequence[tuple[str, str]],
    lines: Sequence[tuple[str, str, str]] = (),
) -> None:
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour, label=text) for text, colour in patches]
    handles += [pyplot.Line2D([], [], color=colour, linestyle=style, linewidth=1, label=text)
                for text, colour, style in lines]  # fmt: skip
    most = 5 if figure.get_figwidth() > 8 else 4
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), most),
                  fontsize=7)  # fmt: skip
