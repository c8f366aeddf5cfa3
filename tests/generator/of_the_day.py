"""Which steps a run draws: from the day's date, or from what `LANCET_STEP_SEED` says."""

import datetime
import os

from tests.generator.recipe import Recipe, draw

COUNT = 60
"""Steps of a run."""


def seed_of_the_run() -> str:
    return os.environ.get("LANCET_STEP_SEED") or datetime.date.today().isoformat()


def recipe_of(number: int, seed: str) -> Recipe:
    return draw(f"{seed}/{number}")


def how_to_repeat(number: int, seed: str) -> str:
    return f"python -m scripts.fuzz_steps --seed {seed} --only {number}"
