"""Draw train steps, cut them, and hold them against plain `jax.jit` on 8 virtual CPU devices.

    python -m scripts.fuzz_steps --count 200                      # today's steps, and more of them
    python -m scripts.fuzz_steps --seed 2026-11-30 --only 17      # one of them again
    python -m scripts.fuzz_steps --recipe "counter=float8" --simplify

A step that is wrong, or that the cut makes fail, is printed with the recipe that makes it; with
`--simplify` parts are made plain one after the other as long as it stays wrong. Exit code 1 if
there is one.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Iterator

import jax

from tests.generator.compare import Verdict, check
from tests.generator.of_the_day import COUNT, recipe_of, seed_of_the_run
from tests.generator.recipe import Recipe, parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw train steps and hold cut ones against plain")
    parser.add_argument("--seed", default=seed_of_the_run(), help="by default the day")
    parser.add_argument("--count", type=int, default=COUNT, help="how many steps")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--only", type=int, help="one step of the run")
    parser.add_argument("--recipe", type=read, action="append", default=[], help="this step")
    parser.add_argument("--simplify", action="store_true", help="make a wrong step plainer")
    parser.add_argument("--notes", action="store_true", help="say what the passes said")
    return parser.parse_args()


def read(text: str) -> Recipe:
    """Read a recipe, or tell the user what is wrong with it."""
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def recipes(given: argparse.Namespace) -> Iterator[tuple[str, Recipe]]:
    """Yield what is asked for, each with a name."""
    if given.recipe:
        yield from ((f"recipe {i}", recipe) for i, recipe in enumerate(given.recipe))
        return
    first, count = (given.only, 1) if given.only is not None else (given.first, given.count)
    for number in range(first, first + count):
        yield f"{given.seed}/{number}", recipe_of(number, given.seed)


def outcome(recipe: Recipe) -> tuple[str, Verdict | None]:
    """Return "right", "wrong" or what was raised."""
    try:
        verdict = check(recipe)
    except Exception as error:  # whatever a step makes the compiler raise is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} {where.filename}:{where.lineno}", None
    return ("right" if verdict.is_right else "wrong"), verdict


def how(verdict: Verdict | None) -> str:
    """Return in a few words whether a step was cut, and whether experts run part by part."""
    if verdict is None or not verdict.is_cut:
        return "whole"
    return "cut with windows" if verdict.first.has_windows else "cut"


def simplest(recipe: Recipe, kind: str) -> Recipe:
    """Make parts plain as long as what comes of the step stays the same."""
    for plainer in recipe.simpler():
        if outcome(plainer)[0] == kind:
            return simplest(plainer, kind)
    return recipe


def main() -> int:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)
    given, cut, bad, done = arguments(), 0, 0, 0
    for name, recipe in recipes(given):
        begun = time.perf_counter()
        kind, verdict = outcome(recipe)
        seconds = time.perf_counter() - begun
        is_cut = verdict is not None and verdict.is_cut
        done, cut, bad = done + 1, cut + is_cut, bad + (kind != "right")
        print(f"{name}: {kind}, {how(verdict)}, {seconds:.1f} s: {recipe}", flush=True)
        if verdict is not None and (kind != "right" or given.notes):
            print(f"  {verdict}\n  " + "\n  ".join(verdict.first.notes))
        if kind != "right" and given.simplify:
            print(f"  simplest: {simplest(recipe, kind)}", flush=True)
    print(f"{done} steps, {cut} cut, {bad} wrong")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
