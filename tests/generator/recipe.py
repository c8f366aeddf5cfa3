"""A recipe: one choice for every part of a step. Drawn from a seed, written as text, read again.

    counter=float8 place=cut_off mesh=ab22

What is not named has its plainest choice, so that a short text is a small step.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.generator.parts import PARTS


@dataclass(frozen=True)
class Recipe:
    """A name for every part; see `PARTS`."""

    names: Mapping[str, str]

    def __getitem__(self, part: str) -> str:
        return self.names[part]

    def __str__(self) -> str:
        told = (f"{part}={name}" for part, name in self.names.items() if name != PARTS[part].plain)
        return " ".join(told) or "plain"

    @property
    def odd(self) -> tuple[str, ...]:
        """Names of what is drawn seldom."""
        return tuple(f"{p}={name}" for p, name in self.names.items() if name in PARTS[p].odd)

    def simpler(self) -> Iterator["Recipe"]:
        """Yield recipes with one part made plain."""
        for part, name in self.names.items():
            if name != PARTS[part].plain:
                names = {**self.names, part: PARTS[part].plain}
                if all(PARTS[p].fits(n, names) for p, n in names.items()):
                    yield Recipe(names)


def draw(seed: int | str, **fixed: str) -> Recipe:
    """Draw every part for itself, but for those that are given."""
    random_ = random.Random(f"step {seed}")
    names: dict[str, str] = {}
    for part, table in PARTS.items():
        is_odd = random_.random() < table.chance
        kinds = [n for n in table.usual if table.fits(n, names)]
        strange = [n for n in table.odd if table.fits(n, names)]
        drawn = random_.choice(strange if is_odd and strange else kinds)
        is_plain = random_.random() < table.plainness and not is_odd
        names[part] = fixed.get(part, table.plain if is_plain else drawn)
    return Recipe(names)


def parse(text: str) -> Recipe:
    """Read a recipe's text.

    Raises:
        ValueError: if a part or a choice does not exist, or does not fit.
    """
    words = [word.partition("=") for word in text.split() if word != "plain"]
    given = {part: name for part, _, name in words}
    names = {part: given.pop(part, table.plain) for part, table in PARTS.items()}
    if given:
        raise ValueError(f"no parts {sorted(given)}; there are {', '.join(PARTS)}")
    for part, name in names.items():
        if name not in PARTS[part]:
            choices = ", ".join((*PARTS[part].usual, *PARTS[part].odd))
            raise ValueError(f"{part} has no {name!r}; it has {choices}")
        if not PARTS[part].fits(name, names):
            raise ValueError(f"{part}={name} needs {PARTS[part].needs[name]}")
    return Recipe(names)
