"""`lancet_jax.verify`: the rewritten step beside the plain one, output by output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lancet_jax.audit.leaves import Deviation, bits
from lancet_jax.compile.outcome import Outcome
from lancet_jax.jit import Step, jit


@dataclass(frozen=True, slots=True)
class LeafCheck:
    """One output of both steps.

    Attributes:
        path: where it stands in the output tree.
        shape, dtype: of the array.
        is_identical: whether every bit agrees.
        difference: largest |a - b| over the largest |a|; 0 where identical.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    is_identical: bool
    difference: float


@dataclass(frozen=True)
class Verification:
    """What `verify` found. True if every output is bit-identical.

    Attributes:
        leaves: every output.
        moved: how many ops have another place in the rewritten program.
        notes: what was left alone, and why.
    """

    leaves: tuple[LeafCheck, ...]
    moved: int
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return all(leaf.is_identical for leaf in self.leaves)

    @property
    def largest_difference(self) -> float:
        """The largest relative difference of any output."""
        return max((leaf.difference for leaf in self.leaves), default=0.0)

    def __str__(self) -> str:
        width = max([len(leaf.path) for leaf in self.leaves] + [6])
        lines = [f"{'output':<{width}}  {'shape':<20} {'dtype':<9} result"]
        for leaf in self.leaves:
            result = "identical" if leaf.is_identical else f"differs by {leaf.difference:.2e}"
            lines.append(f"{leaf.path:<{width}}  {leaf.shape!s:<20} {leaf.dtype:<9} {result}")
        same = sum(leaf.is_identical for leaf in self.leaves)
        lines.append(f"{same} of {len(self.leaves)} outputs bit-identical; {self.moved} ops moved")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def verify(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Verification:
    """Run a step as it is and as lancet-jax rewrites it, on the same arguments.

    Donated arguments are copied first, so that yours survive.

    Args:
        step: a function, a jitted function, or what `lancet_jax.jit` returned.
        *args, **kwargs: arguments that live on the devices to run on.

    Returns:
        A table of every output; it is true if all bits agree.
    """
    ours = step if isinstance(step, Step) else jit(step)
    expected = jax.device_get(ours.plain(*_copies(args), **_copies(kwargs)))
    got = jax.device_get(ours(*_copies(args), **_copies(kwargs)))
    outcome = ours.outcomes[-1] if ours.outcomes else Outcome()
    plan = outcome.plan
    return Verification(
        leaves=tuple(_compare(expected, got)),
        moved=sum(old != new for order in (plan.orders if plan else {}).values()
                  for new, old in enumerate(order)),
        notes=tuple(outcome.notes),
    )  # fmt: skip


def _copies(tree: Any) -> Any:
    """Copy every array, keeping its sharding."""
    return jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, tree)


def _compare(expected: Any, got: Any) -> list[LeafCheck]:
    pairs = zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(got), strict=True)
    return [_check(jax.tree_util.keystr(path) or "output", bits(a), bits(b))
            for (path, a), b in pairs]  # fmt: skip


def _check(path: str, a: np.ndarray, b: np.ndarray) -> LeafCheck:
    found = Deviation.of(a, b)
    return LeafCheck(path, a.shape, str(a.dtype), found.is_identical, found.relative)
