"""The proof that tokens do not share rows: it holds for the usual idioms, and never wrongly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.proofs.distinct import DistinctRows
from hlo_passes.proofs.value_numbers import number_values

TOKENS, EXPERTS, SLOTS = 24, 8, 4


def is_proved(indices_of, dims, *arguments) -> bool:
    text = jax.jit(indices_of).lower(*arguments).as_text()
    module = Module.parse(text)
    body = Body(module.body)
    indices = body.ops[-1].operands[0]
    return DistinctRows(body, number_values(body)).are_distinct(indices, dims, 1)


def collides(indices, dims) -> bool:
    """Whether two index vectors inside a buffer are equal, as JAX sees them after wrapping."""
    rows = np.asarray(indices).reshape(TOKENS, -1)
    inside = rows[((rows >= 0) & (rows < dims)).all(1)]
    return len(np.unique(inside, axis=0)) < len(inside)


def wrap(index, size):
    return jnp.where(index < 0, index + size, index)


def pairs(expert, slot):
    return jnp.stack([expert, slot], -1)


def argmax_idiom(gates):
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, EXPERTS, dtype=jnp.int32)
    slot = jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1)
    return pairs(wrap(expert, EXPERTS), wrap(slot, SLOTS))


def float_idiom(gates):
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, EXPERTS)
    rank = jnp.sum(jnp.cumsum(hot, 0) * hot, -1).astype(jnp.int32) - 1
    return pairs(expert, jnp.where(rank < SLOTS, rank, SLOTS))


def choice_major_idiom(gates):
    """GShard: all first choices before all second ones."""
    _, chosen = jax.lax.top_k(gates[: TOKENS // 2], 2)
    hot = jax.nn.one_hot(chosen, EXPERTS, dtype=jnp.int32)
    count = jnp.cumsum(hot.transpose(1, 0, 2).reshape(-1, EXPERTS), 0)
    count = count.reshape(2, -1, EXPERTS).transpose(1, 0, 2)
    slot = jnp.sum((count - hot) * hot, -1)
    return pairs(chosen.reshape(-1), slot.reshape(-1))


def flat_idiom(gates):
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, EXPERTS, dtype=jnp.int32)
    slot = jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1)
    return jnp.where(slot < SLOTS, expert * SLOTS + slot, EXPERTS * SLOTS)[:, None]


@pytest.mark.parametrize(
    ("idiom", "dims"),
    [
        (argmax_idiom, (EXPERTS, SLOTS)),
        (float_idiom, (EXPERTS, SLOTS)),
        (choice_major_idiom, (EXPERTS, SLOTS)),
        (flat_idiom, (EXPERTS * SLOTS,)),
    ],
)
def test_the_usual_idioms_are_proved(idiom, dims):
    assert is_proved(idiom, dims, jnp.zeros((TOKENS, EXPERTS)))


def test_a_scatter_that_says_so_is_believed():
    def indices_of(rows, x):
        used = jnp.zeros((9, 2)).at[rows[:, 0], rows[:, 1]].set(x, unique_indices=True, mode="drop")
        return rows, used

    rows = jax.ShapeDtypeStruct((4, 2), jnp.int32)
    text = jax.jit(indices_of).lower(rows, jnp.zeros(4)).as_text()
    module = Module.parse(text)
    body = Body(module.body)
    scatter = next(op for op in body.ops if op.name == "stablehlo.scatter")
    proof = DistinctRows(body, number_values(body))
    assert proof.are_distinct(scatter.operands[1], (9, 2), 1)
    assert not proof.are_distinct(body.ops[-1].operands[0], (9, 2), 1)


def counted_in_groups(gates, group):
    """Two groups of tokens, each counted by itself."""
    gates = gates.reshape(2, -1, EXPERTS)
    expert = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(expert, EXPERTS)
    slot = jnp.sum((jnp.cumsum(hot, 1) - 1) * hot, -1).astype(jnp.int32)
    columns = [group(expert.shape), expert, slot]
    return jnp.stack([v.reshape(-1) for v in columns if v is not None], -1)


@pytest.mark.parametrize(
    ("group", "dims", "proved"),
    [
        (lambda shape: jax.lax.broadcasted_iota(jnp.int32, shape, 0), (2,), True),
        (lambda shape: jax.lax.broadcasted_iota(jnp.int32, shape, 1), (TOKENS // 2,), False),
        (lambda shape: jnp.zeros(shape, jnp.int32), (2,), False),
        (lambda shape: None, (), False),
    ],
)
def test_tokens_of_different_groups_have_rows_of_their_own(group, dims, proved):
    def idiom(gates):
        return counted_in_groups(gates, group)

    gates = jnp.zeros((TOKENS, EXPERTS))
    assert is_proved(idiom, (*dims, EXPERTS, SLOTS), gates) == proved


@st.composite
def programs(draw):
    """Draw a way to count slots, right or wrong."""
    return {
        name: draw(st.sampled_from(choices))
        for name, choices in {
            "expert": ("argmax", "any", "modulo"),
            "columns": (EXPERTS, EXPERTS // 2),
            "kind": ("int32", "float32", "bfloat16", "int8"),
            "count": ("before", "upto", "less one", "backwards", "of another", "of all"),
            "order": ("as is", "reversed"),
            "drop": ("none", "slot", "expert", "minimum", "into the last", "into the first"),
            "wrap": (False, True),
            "flat": (False, True),
        }.items()
    }


def indices_of(program, gates, ids):
    """Build the index vectors of a program, `[tokens, 1 or 2]`."""
    expert = {
        "argmax": lambda: jnp.argmax(gates, -1).astype(jnp.int32),
        "any": lambda: ids,
        "modulo": lambda: ids % EXPERTS,
    }[program["expert"]]()
    kind = jnp.dtype(program["kind"])
    hot = jax.nn.one_hot(expert, program["columns"], dtype=kind)
    other = jax.nn.one_hot(jnp.roll(expert, 1), program["columns"], dtype=kind)
    count = {
        "before": lambda: jnp.cumsum(hot, 0) - hot,
        "upto": lambda: jnp.cumsum(hot, 0),
        "less one": lambda: jnp.cumsum(hot, 0) - 1,
        "backwards": lambda: jnp.cumsum(hot, 0, dtype=kind)[::-1] - 1,
        "of another": lambda: jnp.cumsum(other, 0) - 1,
        "of all": lambda: jnp.cumsum(jnp.ones_like(hot), 1) - 1,
    }[program["count"]]()
    slot = jnp.sum(count * hot, -1).astype(jnp.int32)
    if program["order"] == "reversed":
        slot = slot[::-1]
    if program["flat"]:
        row = expert * SLOTS + slot
        is_kept = slot < (SLOTS if program["drop"] != "into the last" else SLOTS + 1)
        return jnp.where(is_kept, row, EXPERTS * SLOTS)[:, None]
    is_kept = slot < SLOTS
    drops = {
        "none": lambda: (expert, slot),
        "slot": lambda: (expert, jnp.where(is_kept, slot, SLOTS)),
        "expert": lambda: (jnp.where(is_kept, expert, EXPERTS), slot),
        "minimum": lambda: (expert, jnp.minimum(slot, SLOTS)),
        "into the last": lambda: (expert, jnp.minimum(slot, SLOTS - 1)),
        "into the first": lambda: (expert, jnp.where(is_kept, slot, 0)),
    }
    expert, slot = drops[program["drop"]]()
    if program["wrap"]:
        expert, slot = wrap(expert, EXPERTS), wrap(slot, SLOTS)
    return pairs(expert, slot)


@settings(max_examples=150, deadline=None)
@given(programs(), st.integers(0, 2**31 - 1))
def test_what_is_proved_is_so(program, seed):
    rng = np.random.default_rng(seed)
    gates = rng.normal(size=(TOKENS, EXPERTS)).astype(np.float32)
    ids = rng.integers(-EXPERTS, 2 * EXPERTS, TOKENS).astype(np.int32)
    dims = (EXPERTS * SLOTS,) if program["flat"] else (EXPERTS, SLOTS)
    if is_proved(lambda g, i: indices_of(program, g, i), dims, gates, ids):
        for shift in range(3):
            indices = indices_of(program, gates, ids + shift)
            assert not collides(indices, dims), program
