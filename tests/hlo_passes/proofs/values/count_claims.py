"""Holds what is claimed to be counted against what came out, counted once more."""

from collections.abc import Iterator, Sequence

import numpy as np

from hlo_passes.proofs.counting import Counting, TokenCount
from hlo_passes.proofs.distinct import DistinctRows
from hlo_passes.proofs.value_numbers import number_values
from tests.hlo_passes.proofs.values.claims import Claim, Roots, all_values
from tests.hlo_passes.proofs.values.counted import Asked
from tests.hlo_passes.proofs.values.program import Executed


def counts(program: Executed) -> Iterator[Claim]:
    """What is hot, a count or a rank is so."""
    domain, roots = Counting(program.body, number_values(program.body)), Roots(program)
    for value in all_values(program):
        found = domain.of(value)
        if found is None:
            continue
        for k, run in enumerate(program.runs):
            expert = roots.numbers(found.expert, k)
            if expert is not None and not is_count(found, expert.ravel(), run[value]):
                yield value, f"{found} of experts {expert.ravel().tolist()}"


def is_count(found: TokenCount, expert: np.ndarray, came: np.ndarray) -> bool:
    """Whether a value counts tokens of these experts, one token after the other."""
    chosen = expert.tolist()
    rows = np.broadcast_to(came.reshape(-1, 1), (came.size, found.experts))
    if found.form != "rank":
        if came.shape[-1:] != (found.experts,):
            return False
        rows = came.reshape(-1, found.experts)
    if len(rows) != len(chosen):
        return False
    is_own = np.array([[e == x for e in range(found.experts)] for x in chosen]).reshape(rows.shape)
    if found.form == "hot":
        return np.array_equal(rows.astype(float), is_own)
    if found.form == "own" and np.any(rows[~is_own] != 0):
        return False
    group = np.zeros(len(chosen), int) if found.group is None else found.group.ravel()
    for number in np.unique(group):
        for e in range(found.experts):
            counted = sorted(rows[(group == number) & is_own[:, e], e].tolist())
            if counted != list(range(found.first, found.first + len(counted))):
                return False
    return True


def distinct(program: Executed, asked: Sequence[Asked]) -> Iterator[Claim]:
    """No two index vectors inside a buffer are equal if they are said to differ."""
    proof = DistinctRows(program.body, number_values(program.body))
    for one in asked:
        value = program.values[one.indices.name]
        if not proof.are_distinct(value, one.dims, one.index_dim):
            continue
        for run in program.runs:
            rows = np.moveaxis(run[value], one.index_dim, -1).reshape(-1, len(one.dims))
            rows = rows[((rows >= 0) & (rows < one.dims)).all(1)]
            if len(np.unique(rows, axis=0)) < len(rows):
                yield value, f"distinct rows of {one.dims}"
