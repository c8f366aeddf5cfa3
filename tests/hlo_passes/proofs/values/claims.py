"""Holds what domains claim of values against what came out: numbers, ranges, elements, equality."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.read import shape_of
from hlo_passes.proofs.constants import Constants
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.elements import View
from hlo_passes.proofs.ranges import Range, Ranges
from hlo_passes.proofs.value_numbers import number_values
from tests.hlo_passes.proofs.values.program import Executed

type Claim = tuple[ir.Value, str]
"""Of what value something is claimed that is not so, and what."""


def all_values(program: Executed) -> list[ir.Value]:
    """Return the values that are known to come out."""
    return [v for v in program.values.values() if all(v in run for run in program.runs)]


def wrong(program: Executed, check: Callable[[Executed], Iterator[Claim]]) -> list[str]:
    """Return what is claimed wrongly, each with the piece of the program that shows it."""
    found = []
    for value, claim in check(program):
        held = [run[value].tolist() for run in program.runs]
        found.append(f"{claim}\nheld: {held}\n{program.spell(value)}")
    return found


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether numbers are equal, whatever their types; NaN is like NaN, and -0 like 0."""
    if a.shape != b.shape:
        return False
    pairs = zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
    return all(x == y or (x != x and y != y) for x, y in pairs)


def constants(program: Executed) -> Iterator[Claim]:
    """Numbers are what comes out."""
    domain = Constants()
    for value in all_values(program):
        numbers, single = domain.all_of(value), domain.number(value)
        counted = domain.counts_along(value)
        for run in program.runs:
            came = run[value]
            if numbers is not None and (numbers.dtype != came.dtype or not same(numbers, came)):
                yield value, f"constant {numbers.tolist()}"
            if single is not None and not np.all(came.astype(float) == single):
                yield value, f"number {single}"
            if domain.is_zero(value) and came.any():
                yield value, "is zero"
            if domain.is_lowest(value) and np.any(came != _lowest(came.dtype)):
                yield value, "is lowest"
            if counted is not None:
                places = np.arange(came.shape[counted]).reshape(
                    [-1 if d == counted else 1 for d in range(came.ndim)]
                )
                if not np.all(came.astype(float) == places):
                    yield value, f"counts along {counted}"


def _lowest(dtype: np.dtype) -> float:
    if dtype.kind == "b":
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def ranges(program: Executed) -> Iterator[Claim]:
    """All elements are whole and within; with what values count, and without."""
    yield from ranges_of(program, Ranges(Constants()))
    yield from ranges_of(program, Counting(program.body, number_values(program.body)).ranges)


def ranges_of(program: Executed, domain: Ranges) -> Iterator[Claim]:
    """All elements are whole and within what one domain says."""
    for value in all_values(program):
        found = domain.of(value)
        if not all(is_within(run[value], found) for run in program.runs):
            yield value, f"from {found.low} to {found.high}"
        for count in (1, 4):
            if domain.is_index(value, count):
                for run in program.runs:
                    if not set(run[value].ravel().tolist()) <= set(range(count)):
                        yield value, f"index below {count}"


def is_within(numbers: np.ndarray, found: Range) -> bool:
    """Whether a range is right."""
    if found.is_any:
        return True
    return all(x == x and abs(x) < 2**70 and x == int(x) and found.low <= x <= found.high
               for x in numbers.ravel().tolist())  # fmt: skip


def equality(program: Executed) -> Iterator[Claim]:
    """Values of one number are equal, bit for bit."""
    numbers, first = number_values(program.body), {}
    for value in all_values(program):
        other = first.setdefault(numbers.get(value, value), value)
        for run in program.runs:
            if not _is_bitwise(run[value], run[other]):
                yield value, f"equal to {other}"


def _is_bitwise(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    no_number = a != a
    return np.array_equal(no_number, b != b) and (
        np.where(no_number, np.zeros_like(a), a).tobytes()
        == np.where(no_number, np.zeros_like(b), b).tobytes()
    )


def elements(program: Executed) -> Iterator[Claim]:
    """Elements are those of the value that they are said to be from."""
    numbers = number_values(program.body)
    domain, of = Counting(program.body, numbers).elements, Roots(program)
    for value in all_values(program):
        found = domain.of(value)
        lined = domain.without_last(value) if shape_of(value) else None
        for k, run in enumerate(program.runs):
            came = of.numbers(found, k)
            if came is not None and not same(came.reshape(run[value].shape), run[value]):
                yield value, f"elements {found.at.tolist()} of value {found.value}"
            row = None if lined is None else of.numbers(lined, k)
            if row is not None:
                want = np.broadcast_to(row.reshape((*run[value].shape[:-1], 1)), run[value].shape)
                if not same(want, run[value]):
                    yield value, f"repeats {lined.at.tolist()} of value {lined.value}"


class Roots:
    """Numbers of the values that elements are from."""

    def __init__(self, program: Executed) -> None:
        self.program, numbers = program, number_values(program.body)
        self.first: dict[object, ir.Value] = {}
        for value in all_values(program):
            self.first.setdefault(numbers.get(value, value), value)

    def numbers(self, view: View, run: int) -> np.ndarray | None:
        """Return the elements of a view in a run."""
        root = self.first.get(view.value)
        return None if root is None else self.program.runs[run][root].ravel()[view.at]
