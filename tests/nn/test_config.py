"""Configurations: presets that match the paper, and errors that say what is wrong."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh

from lancet_jax.nn import GATES, PRESETS, MoEGPTConfig, preset
from lancet_jax.nn.gates import TopK
from lancet_jax.nn.layout import skeleton
from lancet_jax.nn.moe import ExpertParam


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": 0}, "layers must be positive, not 0"),
        ({"capacity_factor": -1.0}, "capacity_factor must be positive"),
        ({"hidden": 0}, "hidden must be positive"),
        ({"heads": 5}, "heads=5 does not divide model=32"),
        ({"gate": "swich"}, "no gate 'swich'"),
        ({"gate": "switch", "top_k": 2}, "always uses top_k=1"),
        ({"gate": TopK(2), "top_k": 3}, "top_k=3"),
        ({"dispatch": "sort"}, "no dispatch 'sort'; choose one of scatter, one_hot"),
        ({"activation": "tanh"}, "no activation 'tanh'"),
        ({"data_axis": "expert"}, "both 'expert'"),
    ],
)
def test_a_wrong_field_is_named(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        preset("tiny", **wrong)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'gpt3'.*tiny, gpt2_s_moe, gpt2_l_moe"):
        preset("gpt3")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_values(name: str):
    assert preset(name) == preset(name)
    assert hash(preset(name)) == hash(preset(name))
    assert preset(name, seq_len=16) == dataclasses.replace(preset(name), seq_len=16)


def test_a_gate_object_stands_for_its_name():
    assert preset("tiny", gate=TopK(2)).routing_gate == preset("tiny", gate="top_k").routing_gate


@pytest.mark.parametrize("name", GATES)
def test_every_gate_can_be_configured_by_name(name: str):
    assert isinstance(preset("tiny", gate=name).routing_gate, GATES[name])


@pytest.mark.parametrize(
    # Parameters in millions: replicated ones, and the experts on one device.
    ("name", "dense", "experts"),
    [("gpt2_s_moe", 96, 56.7), ("gpt2_l_moe", 254, 201)],
)
def test_the_papers_models_have_the_papers_size(name: str, dense: float, experts: float):
    _, params = skeleton(preset(name), AbstractMesh((8,), ("expert",)))
    sizes = {True: 0, False: 0}
    for _, param in nnx.to_flat_state(params):
        sizes[isinstance(param, ExpertParam)] += param.size
    np.testing.assert_allclose(sizes[False] / 1e6, dense, rtol=0.01)
    np.testing.assert_allclose(sizes[True] / 8e6, experts, rtol=0.01)


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_moe_every_counts_from_the_first_block(every: int, expected: list[int]):
    config: MoEGPTConfig = preset("tiny", layers=4, moe_every=every)
    _, params = skeleton(config, AbstractMesh((2,), ("expert",)))
    blocks = nnx.to_pure_dict(params)["blocks"]
    assert [index for index, block in blocks.items() if "moe" in block] == expected


def test_hidden_sets_the_width_of_mlps_and_experts():
    config = preset("tiny", hidden=48)
    _, params = skeleton(config, AbstractMesh((2,), ("expert",)))
    blocks = nnx.to_pure_dict(params)["blocks"]
    assert blocks[0]["moe"]["experts"]["kernel_in"].shape == (4, 32, 48)
    assert blocks[1]["mlp"]["up"]["kernel"].shape == (32, 48)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(blocks))
