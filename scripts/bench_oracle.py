"""The schedulers beside the exact optimum, on random small steps.

    python -m scripts.bench_oracle --json oracle.json       # from the repository's root

Three of four graphs are shaped like a backward pass, the others not at all. For each the optimum is
found by mixed-integer programming; printed is how much longer the orders of the paper's greedy, of
the list scheduler and the better of both are.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from hlo_passes.schedule.list.policies import list_order
from hlo_passes.schedule.oracle import optimal_makespan
from hlo_passes.schedule.paper.greedy import greedy_order
from hlo_passes.schedule.problem import Problem
from hlo_passes.schedule.simulate import execute
from tests.problems import backward_like, unstructured

EDGES = (0.0001, 0.01, 0.02, 0.05, 0.10, 0.20)
"""Upper ends of the histogram's bars; the first holds the orders that are optimal."""


def main() -> None:
    """Solve, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first graph")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds per graph")
    parser.add_argument("--json", help="write every graph's figures to this file")
    args = parser.parse_args()
    rows = []
    for seed in range(args.seed, args.seed + args.graphs):
        rows.append(measure(seed, args.time_limit))
        if len(rows) % 20 == 0:
            print(f"{len(rows)} of {args.graphs} graphs", file=sys.stderr, flush=True)
    print(table(rows))
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"summary": summary(rows), "graphs": rows}, file, indent=1)


def graph(seed: int) -> tuple[str, Problem]:
    """Return the shape's name and the graph that belong to a seed."""
    rng = random.Random(seed)
    if seed % 4:
        return "backward", backward_like(rng, layers=3 + seed % 2)
    return "unstructured", unstructured(rng, count=rng.randint(8, 14))


def measure(seed: int, time_limit_s: float) -> dict[str, Any]:
    """Return lengths of all orders of one graph in us."""
    shape, problem = graph(seed)
    orders = {
        "program": tuple(range(problem.size)),
        "greedy": greedy_order(problem).order,
        "list": list_order(problem),
    }
    us = {name: execute(problem, order).makespan_us for name, order in orders.items()}
    known = orders[min(us, key=us.__getitem__)]
    with quiet():
        best = optimal_makespan(problem, time_limit_s, known)
    return {
        "seed": seed,
        "shape": shape,
        "timed_ops": sum(length > 0 for length in problem.us),
        **us,
        "best of both": min(us["greedy"], us["list"]),
        "optimum": best.makespan_us,
        "proven": best.proven,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return mean, largest gap and histogram per scheduler."""
    found = {}
    for name in ("program", "greedy", "list", "best of both"):
        gaps = [row[name] / row["optimum"] - 1 for row in rows]
        bars = [sum(gap <= edge for gap in gaps) for edge in EDGES] + [len(gaps)]
        found[name] = {
            "mean": sum(gaps) / len(gaps),
            "max": max(gaps),
            "histogram": [bars[0]] + [b - a for a, b in pairwise(bars)],
        }
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the summary as text."""
    names = ["optimal", *(f"<={edge:.0%}" for edge in EDGES[1:]), f">{EDGES[-1]:.0%}"]
    lines = ["".join(f"{n:>9}" for n in ("", "", "mean", "max", *names))]
    for scheduler, figures in summary(rows).items():
        cells = f"{scheduler:<18}{figures['mean']:>9.2%}{figures['max']:>9.2%}"
        lines.append(cells + "".join(f"{count:>9}" for count in figures["histogram"]))
    proven = sum(row["proven"] for row in rows)
    lines.append(f"{len(rows)} graphs, {proven} optima proven; gaps are to the optimum")
    return "\n".join(lines)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the solver's C++ prints off the standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


if __name__ == "__main__":
    main()
