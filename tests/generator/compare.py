"""A cut step beside the uncut one: integers the same, floats within the bound, or 1e-12 in 64 bits."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lancet_jax
from tests.generator.parts import PARTS
from tests.generator.recipe import Recipe
from tests.generator.steps import Build

BOUND = 2e-6
"""Of the largest element of an output, in 32 bits; see `tests/lancet_jax/test_split.py`."""
EXACT = 1e-12
"""The same where the step is run in 64 bits: a true fault shows there too, rounding does not."""


SHRINKS = 2.0**-24
"""Rounding in 64 bits is 2^-29 of that in 32."""


@dataclass(frozen=True)
class Difference:
    """Two runs of a step.

    Attributes:
        floats: the largest difference of a float, of its array's largest element.
        where: whose that is.
        integers: arrays of integers that are not the same.
        is_cut: whether the step was cut.
        has_windows: whether the forward pass sends all exchanges in parts, and no experts wait.
        notes: what was done, and why not more.
    """

    floats: float
    where: str
    integers: tuple[str, ...]
    is_cut: bool
    has_windows: bool
    notes: tuple[str, ...]

    def is_within(self, bound: float) -> bool:
        return not self.integers and self.floats <= bound

    def __str__(self) -> str:
        told = f"floats differ by {self.floats:.1e} ({self.where})"
        return told + (f"; integers differ: {', '.join(self.integers)}" if self.integers else "")


@dataclass(frozen=True)
class Verdict:
    """What became of a recipe: `first` in its own type, `again` in 64 bits where that was asked."""

    recipe: Recipe
    first: Difference
    again: Difference | None = None

    @property
    def is_cut(self) -> bool:
        return self.first.is_cut

    @property
    def is_right(self) -> bool:
        if self.again is None:
            return self.first.is_within(BOUND)
        return self.again.is_within(EXACT) or self.is_noise

    @property
    def is_noise(self) -> bool:
        """Whether a difference shrinks with the type as rounding does, and a fault never.

        The gradient of a router whose weights add up to one by themselves is nothing but rounding,
        and so is any difference of it, of its own largest element.
        """
        return self.again is not None and self.again.is_within(self.first.floats * SHRINKS)

    @property
    def is_doubtful(self) -> bool:
        """Whether it is right in 64 bits alone, and more than rounding off in its own type.

        Two experts whose scores are next to equal may change places where the last bit differs;
        that is seldom, and none of the cut's doing.
        """
        far = self.first.floats > 0.05 or self.first.integers
        return bool(self.again is not None and self.is_right and far)

    def __str__(self) -> str:
        said = f"{self.recipe}\n  {self.first}"
        if self.again is not None:
            said += f"\n  in float64: {self.again}"
        return said


def check(recipe: Recipe, data: int = 0) -> Verdict:
    """Run a recipe both ways, and once more in 64 bits if floats are not within the bound."""
    dtype = PARTS["dtype"][recipe["dtype"]]
    if dtype == "float64":
        with jax.enable_x64(True):
            again = difference(Build(recipe, jnp.float64, data))
        exact = again.is_within(EXACT)
        first = again if exact else difference(Build(recipe, jnp.float32, data))
        return Verdict(recipe, first, again)
    first = difference(Build(recipe, jnp.dtype(dtype), data))
    if first.is_within(BOUND):
        return Verdict(recipe, first)
    with jax.enable_x64(True):
        return Verdict(recipe, first, difference(Build(recipe, jnp.float64, data)))


def difference(build: Build) -> Difference:
    """Run a step plain and cut, on arguments of its own each time."""
    options = {"compiler_options": {"xla_allow_excess_precision": False}}
    plain = jax.jit(build.step, **options)
    want = jax.device_get(plain(*build.arguments()))

    def ours(state: Any, x: Any) -> Any:
        return build.step(state, x)

    # The audit would hand out the uncut step's results where the cut one's are wrong.
    step = lancet_jax.jit(ours, pipeline=PARTS["cut"][build.recipe["cut"]],
                          on_unsupported="raise", audit=False, **options)  # fmt: skip
    got = jax.device_get(step(*build.arguments()))
    floats, where, integers = 0.0, "", []
    pairs = zip(jax.tree.leaves_with_path(want), jax.tree.leaves(got), strict=True)
    for (path, a), b in pairs:
        name = jax.tree_util.keystr(path)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        if jnp.issubdtype(a.dtype, jnp.floating):
            far = _distance(a.astype(np.float64), b.astype(np.float64))
            if far > floats:
                floats, where = far, name
        elif not np.array_equal(a, b):
            integers.append(name)
    outcome = step.outcomes[-1]
    along = {split.along for plan in outcome.cuts for split in plan.splits}
    waits = any(_is_of_forward_exchange(note) for note in outcome.notes)
    return Difference(floats, where, tuple(integers), bool(along), "tokens" in along and not waits,
                      tuple(outcome.notes))  # fmt: skip


def _is_of_forward_exchange(note: str) -> bool:
    """Whether a note says that an exchange of the forward pass, or its experts, stay whole."""
    op, is_refusal, reason = note.partition(" stays whole: ")
    if not is_refusal or "all_to_all" not in op:
        return False
    if "no longer make as a whole" in reason:  # other experts do run part by part
        return False
    return "transpose(" not in op or "experts wait" in reason


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference, of the largest element; infinity where only one is finite."""
    odd = ~np.isfinite(a) | ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("inf")
    a, b = a[~odd], b[~odd]
    if not a.size:
        return 0.0
    return float(np.abs(a - b).max()) / max(float(np.abs(a).max()), 1e-30)
