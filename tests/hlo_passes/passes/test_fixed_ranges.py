"""Ranges of a given length around every MoE layer: the paper's figure 6."""

from itertools import pairwise

import jax
import numpy as np
import pytest

import lancet_jax
from hlo_passes.errors import OptionError
from lancet_jax import nn

LAYERS = 4


@pytest.fixture(scope="module")
def train_step():
    config = nn.preset("tiny", layers=LAYERS, batch_per_device=4)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("expert",))
    arguments = nn.abstract_state(config, mesh, nn.sgd_momentum()), nn.abstract_batch(config, mesh)
    return nn.make_train_step(config, mesh, nn.sgd_momentum()), arguments


def splits(train_step, options):
    step, arguments = train_step
    wrapped = lancet_jax.jit(step, pipeline=f"split-region{{{options}}}", target="h100:1x8")
    return wrapped.lower(*arguments).plan.splits


@pytest.mark.slow
def test_ranges_grow_group_by_group_on_both_sides(train_step):
    found = [splits(train_step, f"direction=forward,k=2,reach={reach}") for reach in (0, 1, 4)]
    for ranges in found:
        assert len(ranges) == LAYERS // 2
        assert {split.k for split in ranges} == {2}
        assert all(a.last < b.first for a, b in pairwise(ranges))
    for smaller, larger in pairwise(found):
        for a, b in zip(smaller, larger, strict=True):
            assert b.first <= a.first
            assert a.last < b.last


@pytest.mark.parametrize("options", ["reach=1,k=2", "direction=forward,reach=-1,k=2"])
def test_a_reach_that_makes_no_sense_is_an_error(train_step, options):
    with pytest.raises(OptionError, match="counts groups of the forward pass"):
        splits(train_step, options)
