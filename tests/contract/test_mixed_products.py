"""Products of 16-bit numbers in 32 bits on XLA's CPU backend: what a cut may write, and may not."""

import jax
import jax.numpy as jnp
import pytest

LEFT, RIGHT = jnp.ones((4, 32, 32), jnp.bfloat16), jnp.ones((4, 32, 128), jnp.bfloat16)


def product(x, y):
    """Contract tokens `[B, T, D]` and `[B, T, E]`, as weight gradients do."""
    return jnp.einsum("btd,bte->de", x, y, preferred_element_type=jnp.float32)


def test_a_product_runs():
    assert jax.jit(product)(LEFT, RIGHT).sum() == 4 * 32 * 32 * 128


def test_a_product_right_before_its_transpose_does_not():
    """Why parts of a transposed product are products of swapped operands."""
    with pytest.raises(jax.errors.JaxRuntimeError, match="BF16 x BF16 = F32"):
        jax.jit(lambda x, y: product(x, y).T + 1)(LEFT, RIGHT).block_until_ready()
