"""Products of swapped operands give what the transposed products gave."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jaxlib.mlir import ir

from hlo_passes.split.swapped import swapped, swaps
from tests.hlo_passes.cut.splitting import lower, run, the

SIZES = dict(zip("bcmnopq", (2, 3, 4, 5, 2, 3, 7), strict=True))


def operand(axes: str, seed: int) -> np.ndarray:
    """Return small whole numbers: sums are exact in any order."""
    rng = np.random.default_rng(seed)
    return rng.integers(-4, 5, [SIZES[axis] for axis in axes]).astype(np.float32)


def product_of(left: str, right: str, batch: str, contracted: str, precision=None):
    """Return a function that multiplies; result axes are batch, then left's, then right's own."""
    sides = [
        (tuple(map(side.index, contracted)), tuple(map(side.index, batch)))
        for side in (left, right)
    ]
    (left_sums, left_batch), (right_sums, right_batch) = sides
    numbers = (left_sums, right_sums), (left_batch, right_batch)
    return lambda x, y: lax.dot_general(x, y, numbers, precision=precision)


def swap(module) -> bool:
    """Swap the module's product, if its transpose is that."""
    with module.ir.context:
        product, user = the(module, "dot_general"), the(module, "transpose")
        if not swaps(product, user):
            return False
        with ir.InsertionPoint(product), product.location:
            user.results[0].replace_all_uses_with(swapped(product.clone().results[0]))
        user.erase()
        product.erase()
    module.verify()
    return True


@st.composite
def products(draw):
    """Two operands' axes in any order, which are batching and which are contracted."""
    batch = draw(st.sampled_from(["", "b", "bc"]))
    contracted = draw(st.sampled_from(["m", "mn"]))
    left, right = draw(st.sampled_from([("o", "p"), ("op", "q"), ("o", "pq"), ("", "p")]))
    shuffled = ["".join(draw(st.permutations(batch + contracted + own))) for own in (left, right)]
    return *shuffled, batch, contracted, len(left), len(right)


@settings(max_examples=40, deadline=None)
@given(products())
def test_any_product(axes):
    left, right, batch, contracted, m, n = axes
    multiply = product_of(left, right, batch, contracted)
    first = range(len(batch))
    start = len(batch)
    permutation = (*first, *range(start + m, start + m + n), *range(start, start + m))
    x, y = operand(left, 1), operand(right, 2)
    module = lower(lambda x, y: jnp.sin(jnp.transpose(multiply(x, y), permutation)), x, y)
    (expected,) = run(module, (x, y))
    if permutation != tuple(range(len(permutation))):
        assert swap(module)
    (got,) = run(module, (x, y))
    assert np.array_equal(expected, got)


def test_other_permutations_are_no_swaps():
    x, y = operand("bom", 1), operand("bmpq", 2)
    multiply = product_of("bom", "bmpq", "b", "m")
    for permutation in itertools.permutations(range(4)):
        module = lower(lambda x, y, p=permutation: jnp.transpose(multiply(x, y), p), x, y)
        if permutation != (0, 1, 2, 3):
            assert swap(module) is (permutation == (0, 2, 3, 1))


def test_every_side_keeps_its_precision():
    precision = (lax.Precision.HIGHEST, lax.Precision.DEFAULT)
    multiply = product_of("om", "mp", "", "m", precision)
    module = lower(lambda x, y: multiply(x, y).T, operand("om", 1), operand("mp", 2))
    assert swap(module)
    text = str(the(module, "dot_general"))
    assert text.index("DEFAULT") < text.index("HIGHEST")


@pytest.mark.parametrize("kind", ["algorithm", "tanh"])
def test_what_is_no_plain_product_is_left(kind):
    if kind == "algorithm":
        algorithm = lax.DotAlgorithmPreset.BF16_BF16_F32
        multiply = product_of("om", "mp", "", "m", algorithm)
    else:
        multiply = lambda x, y: jnp.tanh(x @ y)  # noqa: E731
    module = lower(lambda x, y: multiply(x, y).T, operand("om", 1), operand("mp", 2))
    with module.ir.context:
        source = "dot_general" if kind == "algorithm" else "tanh"
        assert not swaps(the(module, source), the(module, "transpose"))
