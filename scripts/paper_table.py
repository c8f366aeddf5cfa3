"""Results of the evaluation as a table to ask, and what the paper published to set beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from scripts.paper_cells import SIZES, Cell

MODELS = {"gpt2_s_moe": "GPT2-S-MoE", "gpt2_l_moe": "GPT2-L-MoE"}
GATES = {"switch": "Switch", "batch_prioritised": "batch-prioritised"}

ROWS = {
    "none": "no overlap",
    "off": "stock XLA",
    "exchange": "exchange",
    "lancet": "lancet",
    "dw": "dw",
    "full": "full",
}
"""What is compared, in the order of tables and figures."""

MEANINGS = {
    "none": "the schedule of stock XLA, every exchange waited for at once, as DeepSpeed does",
    "off": "XLA alone, its latency-hiding scheduler on",
    "exchange": "`split-exchange,schedule-dw`: exchanges and experts cut along capacity with the "
                "best k (the one that is predicted, or 2 where XLA makes more of that), as Tutel "
                "does, and also weight gradients beside exchanges, which Tutel does not do: a "
                "stronger baseline than Tutel",
    "lancet": "`split-region{direction=forward},schedule-dw`: the paper's two passes",
    "dw": "`schedule-dw`: the order alone",
    "full": "`unroll-loops,split-region,schedule-dw`: forward and backward cut along the tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A figure that the paper prints.

    Attributes:
        figure: where.
        device, gate: which of ours it corresponds to.
        highest, average: its values; None where the paper gives none.
    """

    figure: str
    device: str
    gate: str
    highest: float
    average: float | None = None


SPEED_UPS = (
    Published("Fig. 11", "v100", "switch", 1.30, 1.22),
    Published("Fig. 11", "a100", "switch", 1.21, 1.17),
    Published("Fig. 12", "v100", "batch_prioritised", 1.24, 1.21),
    Published("Fig. 12", "a100", "batch_prioritised", 1.24, 1.17),
)
"""Lancet over the baselines (section 7.1), both models, up to 64 GPUs; measured by its authors."""

CUTS = {
    ("v100", "none"): 0.83, ("a100", "none"): 0.69,
    ("v100", "exchange"): 0.77, ("a100", "exchange"): 0.66,
}  # fmt: skip
"""Fig. 13: largest cut of non-overlapped communication, over RAF (`none`), Tutel (`exchange`)."""


class Table:
    """Cells by what they are; those that failed count as not there.

    Args:
        data: the results file.
        layers: cells of this depth instead of the models' own.
    """

    def __init__(self, data: dict[str, Any], layers: int | None = None) -> None:
        suffix = f"?layers={layers}" if layers else ""
        self.cells = {
            Cell.of(key.removesuffix(suffix)): cell
            for key, cell in data["cells"].items()
            if (key.endswith(suffix) if suffix else "?" not in key) and "error" not in cell
        }
        self.errors = {key: cell["error"] for key, cell in data["cells"].items() if "error" in cell}

    def cell(
        self, model: str, gate: str, device: str, size: str, row: str
    ) -> dict[str, Any] | None:
        """Return a cell, None if it was not run; `none` is kept with `off`.

        Args:
            model: as in `lancet_jax.nn`.
            gate: as in `lancet_jax.nn`.
            device: a profile's name.
            size: nodes x GPUs.
            row: the pipeline, or `none` for no overlap at all.
        """
        return self.cells.get(Cell(model, gate, device, size, "off" if row == "none" else row))

    def verdict(
        self, model: str, gate: str, device: str, size: str, row: str, *, skewed: bool = False
    ) -> dict[str, Any] | None:
        """Return what the judge said, None if it was not asked.

        Args:
            model: as in `lancet_jax.nn`.
            gate: as in `lancet_jax.nn`.
            device: a profile's name.
            size: nodes x GPUs.
            row: the pipeline, or `none` for no overlap at all.
            skewed: whether experts get unequal shares.
        """
        cell = self.cell(model, gate, device, size, row)
        if cell is None:
            return None
        if row == "none":
            return cell["serial"]
        return cell.get("skewed", cell["verdict"]) if skewed else cell["verdict"]

    def speed_up(
        self, model: str, gate: str, device: str, size: str, row: str, over: str, *,
        skewed: bool = False,
    ) -> float | None:  # fmt: skip
        """Return how many times shorter a step is than another; None if one is not there.

        Args:
            model: as in `lancet_jax.nn`.
            gate: as in `lancet_jax.nn`.
            device: a profile's name.
            size: nodes x GPUs.
            row: the pipeline, or `none` for no overlap at all.
            over: the row that it is held against.
            skewed: whether experts get unequal shares.
        """
        ours = self.verdict(model, gate, device, size, row, skewed=skewed)
        theirs = self.verdict(model, gate, device, size, over, skewed=skewed)
        return theirs["step_us"] / ours["step_us"] if ours and theirs else None

    def cut(
        self, model: str, gate: str, device: str, size: str, row: str, over: str
    ) -> float | None:
        """Return which share of another's exposed communication is gone.

        Args:
            model: as in `lancet_jax.nn`.
            gate: as in `lancet_jax.nn`.
            device: a profile's name.
            size: nodes x GPUs.
            row: the pipeline, or `none` for no overlap at all.
            over: the row that it is held against.
        """
        ours = self.verdict(model, gate, device, size, row)
        theirs = self.verdict(model, gate, device, size, over)
        if not ours or not theirs or theirs["exposed_us"] <= 0:
            return None
        return 1 - ours["exposed_us"] / theirs["exposed_us"]

    def over_all(self, gate: str, device: str, row: str, over: str, what: str) -> list[float]:
        """Return `speed_up` or `cut` of every model and size that is there.

        Args:
            gate: as in `lancet_jax.nn`.
            device: a profile's name.
            row: the pipeline, or `none` for no overlap at all.
            over: the row that it is held against.
            what: `speed_up` or `cut`.
        """
        ask = getattr(self, what)
        found = [ask(m, gate, device, size, row, over) for m in MODELS for size in SIZES]
        return [value for value in found if value is not None]

    def largest(self, model: str, gate: str, device: str) -> str | None:
        """Return the largest size of which stock XLA and `full` are there.

        Args:
            model: as in `lancet_jax.nn`.
            gate: as in `lancet_jax.nn`.
            device: a profile's name.
        """
        for size in reversed(SIZES):
            there = [self.cell(model, gate, device, size, row) for row in ("off", "full")]
            if all(there):
                return size
        return None


def summary(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Return the highest and the mean of what is there, or that nothing is."""
    if not values:
        return "not run"
    return f"{form.format(max(values))} / {form.format(mean(values))} ({len(values)})"


def groups() -> Iterator[tuple[str, str]]:
    """Yield model and gate of every group of results."""
    for gate in GATES:
        for model in MODELS:
            yield model, gate
