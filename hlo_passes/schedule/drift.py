"""How far XLA's final schedule is from the one that was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hlo_passes.facts.diff import longest_increasing


@dataclass(frozen=True, slots=True)
class Drift:
    """A planned and a final order of the same program, compared.

    Attributes:
        common: ops that are in both.
        moved: how many of those would have to move for the orders to agree.
        missing: ops that XLA dropped or renamed after scheduling (it folds an exchange with
            nothing beside it into one op).
        names: the ops that moved, for a report.
    """

    common: int
    moved: int
    missing: int
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.moved > 0

    def __str__(self) -> str:
        return f"{self.moved} of {self.common} ops out of place, {self.missing} folded by XLA"


def drift_of(planned: Mapping[str, Sequence[str]], final: Mapping[str, Sequence[str]]) -> Drift:
    """Compare orders, computation by computation.

    Args:
        planned: names of the ops in the order asked for, per computation.
        final: the same, as XLA's final module has them.
    """
    common = missing = 0
    moved: list[str] = []
    for name, wanted in planned.items():
        place = {op: i for i, op in enumerate(final.get(name, ()))}
        kept = [op for op in wanted if op in place]
        common += len(kept)
        missing += len(wanted) - len(kept)
        stay = longest_increasing([place[op] for op in kept])
        moved += [op for i, op in enumerate(kept) if i not in stay]
    return Drift(common, len(moved), missing, tuple(moved))
