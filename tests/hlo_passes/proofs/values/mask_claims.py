"""Holds where masks are said to be other than zero against where they are."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.one_hot import Hot, OneHot
from hlo_passes.proofs.value_numbers import number_values
from tests.hlo_passes.proofs.values.claims import Claim, all_values
from tests.hlo_passes.proofs.values.program import Executed

type Run = Mapping[ir.Value, np.ndarray]


def one_hot_of(program: Executed) -> OneHot:
    """Return a domain of masks."""
    counting = Counting(program.body, number_values(program.body))
    return OneHot(counting.constants, counting.ranges)


def masks(program: Executed) -> Iterator[Claim]:
    """Where an element is not zero a term holds, and exact ones say where it is one."""
    domain = one_hot_of(program)
    for value in all_values(program):
        terms = domain.terms(value)
        for run in program.runs:
            came = run[value].astype(np.float64)
            fits = [count_fits(term.hots, shape_of(value), run) for term in terms]
            holds = np.any(fits, axis=0) if fits else np.zeros(came.shape, bool)
            # What is no number came of a product or quotient that were lost in the step as well.
            if np.any((came != 0) & ~np.isnan(came) & ~holds):
                yield value, f"zero but where one holds of {spelled(terms)}"
            if len(terms) == 1 and terms[0].exact:
                is_single = (fits[0] <= 1) & ~np.isnan(came)
                if np.any((came != fits[0]) & is_single):
                    yield value, f"one where {spelled(terms)} holds"


def places(program: Executed) -> Iterator[Claim]:
    """Where an element is above -1 a term holds."""
    domain = one_hot_of(program).places
    for value in all_values(program):
        terms = domain.terms(value)
        for run in program.runs:
            came = run[value].astype(np.float64)
            fits = [count_fits(term.hots, shape_of(value), run) for term in terms]
            holds = np.any(fits, axis=0) if fits else np.zeros(came.shape, bool)
            if np.any((came > -1) & ~holds):
                yield value, f"no place but where one holds of {spelled(terms)}"


def count_fits(hots: Collection[Hot], shape: tuple[int, ...], run: Run) -> np.ndarray:
    """Return for how many places along summed dims all hots hold, per element.

    Hots of dims that do not exist, or of other sizes, never hold.
    """
    sizes = dict(enumerate(shape))
    for hot in hots:
        for label, size in zip(hot.at, shape_of(hot.index), strict=True):
            if (1 if label is None else sizes.setdefault(label, size)) != size:
                return np.zeros(shape, int)
        if hot.counted not in sizes:
            return np.zeros(shape, int)
    order = [*range(len(shape)), *(label for label in sizes if label < 0)]
    grid = dict(zip(order, np.indices([sizes[label] for label in order]), strict=True))
    holds = np.ones([sizes[label] for label in order], bool)
    for hot in hots:
        at = tuple(np.zeros_like(holds, int) if label is None else grid[label] for label in hot.at)
        holds &= run[hot.index][at].astype(np.float64) == grid[hot.counted]
    return holds.sum(axis=tuple(range(len(shape), len(order)))).reshape(shape)


def spelled(terms) -> str:
    """Say terms."""
    return str([[(hot.at, hot.counted) for hot in term.hots] for term in terms])
