"""Tables of `bench_race`: what the race took, and how far its figures are off."""

from collections.abc import Callable, Iterator
from statistics import mean
from typing import Any

from scripts.origin import describe

CLOSE = 0.01
"""The choice may be longer than the best of all by this share."""


def best_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the shortest of a step's programs that fits."""
    return min((form for form in row["forms"] if form["fits"]), key=lambda one: one["compiled_us"])


def worse_by(row: dict[str, Any]) -> float:
    """Return by which share the choice is longer than the best of all."""
    return row["choice_us"] / best_of(row)["compiled_us"] - 1


def errors_of(row: dict[str, Any], which: str) -> dict[str, float]:
    """Return by which share a figure is off, by program: as a ratio to the step as it is.

    A program that XLA is kept from tying together has no prediction of its own.

    Args:
        row: of one step.
        which: `predicted_us` or `judged_us`.
    """
    whole = row["forms"][0]
    return {
        form["name"]: form[which] / whole[which] / (form["compiled_us"] / whole["compiled_us"]) - 1
        for form in row["forms"][1:]
        if form[which] and whole[which] and not (which == "predicted_us" and "(" in form["name"])
    }


def apart_errors_of(row: dict[str, Any]) -> dict[str, float]:
    """Return by which share predictions are off if what XLA makes shorter by keeping things apart
    counts: as a ratio to the step as it is, the shortest of the forms of both.
    """
    predicted, shortest = {}, {}
    for form in row["forms"]:
        way, us = form["name"].partition(" (")[0], form["compiled_us"]
        predicted[way] = form["predicted_us"]
        shortest[way] = min(us, shortest.get(way, us))
    whole = row["forms"][0]["name"]
    return {
        way: us / predicted[whole] / (shortest[way] / shortest[whole]) - 1
        for way, us in predicted.items()
        if way != whole
    }


def needed_of(row: dict[str, Any]) -> tuple[float, float]:
    """Return by which shares the best of all was predicted longer than the shortest prediction, and
    than the step as it is; what is let compete has to reach that far.
    """
    best, predicted = best_of(row), [form["predicted_us"] for form in row["forms"]]
    us = best["predicted_us"]
    return us / min(one for one in predicted if one) - 1, us / predicted[0] - 1


def show(data: dict[str, Any]) -> str:
    """Return all tables as Markdown."""
    rows = data["rows"]
    parts = ["\n".join(_steps(rows)), "\n".join(_errors(rows)), "\n".join(_forms(rows))]
    return "\n\n".join([*parts, f"{data['target']}; {describe(data)}."])


def _steps(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield ("| step | XLA alone us | `best` us | it runs | best of all us | which is | worse by"
           " | XLA alone s | `best` s | XLA runs | once more s |")  # fmt: skip
    yield "|---|---:|---:|---|---:|---|---:|---:|---:|---:|---:|"
    for row in rows:
        best = best_of(row)
        yield (f"| {row['step']} | {row['plain_us']:,.0f} | {row['choice_us']:,.0f} |"
               f" {row['choice']} | {best['compiled_us']:,.0f} | {best['name']} |"
               f" {worse_by(row):.1%} | {row['plain_s']:.1f} | {row['best_s']:.1f} |"
               f" {row['xla_runs']} | {row['again_s']:.1f} |")  # fmt: skip


def _errors(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| figure, beside the step as it is | programs | mean error | worst | of |"
    yield "|---|---:|---:|---:|---|"
    kinds: dict[str, Callable[[dict[str, Any]], dict[str, float]]] = {
        "predicted, of what XLA makes of it": lambda row: errors_of(row, "predicted_us"),
        "predicted, of the shortest that XLA makes of it": apart_errors_of,
        "judged": lambda row: errors_of(row, "judged_us"),
    }
    for name, errors in kinds.items():
        found = {f"{row['step']}, {form}": error for row in rows
                 for form, error in errors(row).items()}  # fmt: skip
        if found:
            worst = max(found, key=lambda place: abs(found[place]))
            yield (f"| {name} | {len(found)} | {mean(map(abs, found.values())):.1%} |"
                   f" {found[worst]:+.1%} | {worst} |")  # fmt: skip
    needed = {row["step"]: needed_of(row) for row in rows}
    for at, than in enumerate(("the shortest prediction", "the step as it is")):
        worst = max(needed, key=lambda step: needed[step][at])
        yield (f"| best of all, predicted longer than {than} by | {len(rows)} | |"
               f" {needed[worst][at]:+.1%} | {worst} |")  # fmt: skip


def _forms(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| step | program | predicted us | judged us | compiled us | beside as it is | |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for row in rows:
        whole = row["forms"][0]
        for form in row["forms"]:
            judged = f"{form['judged_us']:,.0f}" if form["judged_us"] else "-"
            ratio = form["compiled_us"] / whole["compiled_us"] - 1
            runs = "runs" if form["name"] == row["choice"] else ""
            yield (f"| {row['step'] if form is whole else ''} | {form['name']} |"
                   f" {form['predicted_us']:,.0f} | {judged} | {form['compiled_us']:,.0f} |"
                   f" {ratio:+.1%} | {runs if form['fits'] else 'does not fit'} |")  # fmt: skip
