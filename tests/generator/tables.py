"""Tables of choices: what people write every day, and what they write once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """The choices for one part of a step.

    Attributes:
        usual: by name; the first is the plainest.
        odd: what a proof may be wrong about; drawn seldom.
        chance: of an odd one.
        plainness: chance that it is the plainest one otherwise, so that not all is strange at once,
            and that a step costs little.
        needs: by name, choices of other parts that one makes sense with.
    """

    usual: Mapping[str, Any]
    odd: Mapping[str, Any] = field(default_factory=dict)
    chance: float = 0.03
    plainness: float = 0.3
    needs: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def plain(self) -> str:
        return next(iter(self.usual))

    def __getitem__(self, name: str) -> Any:
        return self.usual[name] if name in self.usual else self.odd[name]

    def __contains__(self, name: str) -> bool:
        return name in self.usual or name in self.odd

    def fits(self, name: str, chosen: Mapping[str, str]) -> bool:
        """Whether a choice makes sense beside those that were made before it."""
        return all(chosen.get(part) in names for part, names in self.needs.get(name, {}).items())


def named(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return functions by their names, without the underscore that keeps them from builtins."""
    return {f.__name__.rstrip("_"): f for f in functions}
