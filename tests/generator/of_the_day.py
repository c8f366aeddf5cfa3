"""Which steps a run draws: from the day's date, or from what `LANCET_STEP_SEED` says."""

import datetime
import os

from tests.generator.parts import PARTS
from tests.generator.recipe import Recipe, draw

COUNT = 60
"""Steps of a run."""
STRAIGHT = 6
"""So many of them have experts that run part by part, whatever is drawn around them."""

_ON_THE_WAY = (
    "across", "back", "combine", "dispatch", "mixer", "place", "priority", "scores", "spot",
    "spread", "there", "turn", "weigh",
)  # fmt: skip


def seed_of_the_run() -> str:
    return os.environ.get("LANCET_STEP_SEED") or datetime.date.today().isoformat()


def recipe_of(number: int, seed: str) -> Recipe:
    if number >= STRAIGHT:
        return draw(f"{seed}/{number}")
    plain = {part: PARTS[part].plain for part in _ON_THE_WAY}
    return draw(
        f"{seed}/{number}", **plain, choices="lax_argmax", counter="inclusive", cut="region2"
    )


def how_to_repeat(number: int, seed: str) -> str:
    return f"python -m scripts.fuzz_steps --seed {seed} --only {number}"
