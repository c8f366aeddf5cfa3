import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.mlir import ir

from hlo_passes.cut.states import Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.ir.stablehlo.parts import add_parts, join_parts, take_part
from tests.hlo_passes.cut.splitting import lower, returning, run


@pytest.mark.parametrize(
    ("cut", "shape", "k", "fits"),
    [
        (Cut(0), (8, 3), 2, True),
        (Cut(0), (8, 3), 3, False),
        (Cut(0, 2), (8, 3), 4, True),
        (Cut(0, 4), (8, 3), 4, False),
        (Cut(2), (8, 3), 2, False),
    ],
)
def test_a_cut_fits_where_there_are_equal_parts(cut, shape, k, fits):
    assert cut.fits(shape, k) is fits


def test_a_part_is_smaller_in_one_dim():
    assert Cut(1, 2).part_of((4, 8, 3), 4) == (4, 2, 3)


def test_states_are_found_by_spot():
    split = OpSplit((None, Cut(1)), (Sum("add"),))
    assert split.at(Spot("operand", 1)) == Cut(1)
    assert split.at(Spot("result", 0)) == Sum("add")


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize(("outer", "k"), [(1, 2), (1, 4), (2, 2), (2, 4), (4, 2)])
def test_parts_are_the_slices_that_a_cut_describes_and_join_to_the_whole(dim, outer, k):
    x = np.arange(16 * 8 * 8, dtype=np.float32).reshape(16, 8, 8)
    module = lower(lambda x: x, x)

    def build(a):
        parts = [take_part(a, dim, outer, i, k) for i in range(k)]
        return [*parts, join_parts(parts, dim, outer)]

    *parts, whole = run(edited(module, build), [x])
    assert np.array_equal(whole, x)
    size = x.shape[dim]
    blocks = np.arange(size).reshape(outer, k, -1)
    for i, part in enumerate(parts):
        assert np.array_equal(part, np.take(x, blocks[:, i].reshape(-1), dim))


def test_sums_start_with_the_first_part():
    module = lower(lambda x, y, z: x, *(jnp.ones(2),) * 3)
    values = [np.array([v, 1], np.float32) for v in (1e8, -1e8, 1)]

    def build(*parts):
        return [add_parts(parts, "add"), add_parts(parts, "maximum")]

    total, largest = run(edited(module, build), values)
    assert total.tolist() == [1, 3]
    assert largest.tolist() == [1e8, 1]


def edited(module: Module, build) -> Module:
    """Return the module with what `build` makes of its arguments."""
    block = module.body
    end = block.operations[len(block.operations) - 1].operation
    with module.ir.context, ir.Location.unknown():
        with ir.InsertionPoint(end):
            values = build(*block.arguments)
        returning(module, values)
    module.verify()
    return module
