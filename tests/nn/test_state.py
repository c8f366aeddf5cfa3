"""States, real and abstract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from lancet_jax.nn import (
    abstract_batch,
    abstract_state,
    adamw,
    batch_shape,
    init_state,
    make_train_step,
    preset,
    sgd_momentum,
)

OPTIMIZERS = {"sgd": sgd_momentum(), "adamw": adamw()}
TINY = preset("tiny", layers=1, data_axis="data")


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
def test_the_abstract_state_is_the_real_ones_shape(make_mesh, optimizer, explicit: bool):
    mesh = make_mesh(data=2, expert=4, explicit=explicit)
    real, abstract = init_state(TINY, mesh, optimizer), abstract_state(TINY, mesh, optimizer)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for one, other in zip(jax.tree.leaves(real), jax.tree.leaves(abstract), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.sharding == other.sharding


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_experts_and_their_moments_are_split_and_all_else_is_whole(make_mesh, optimizer):
    state = abstract_state(TINY, make_mesh(data=2, expert=4), optimizer)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    split = [path for path, leaf in leaves if leaf.sharding.spec == P("expert")]
    assert all("'experts'" in jax.tree_util.keystr(path) for path in split)
    # Four expert parameters; SGD keeps one moment of each, AdamW two.
    assert len(split) == 4 * (2 if optimizer is OPTIMIZERS["sgd"] else 3)
    whole = [leaf for path, leaf in leaves if path not in split]
    assert all(leaf.sharding.is_fully_replicated for leaf in whole)


def test_each_device_holds_its_own_experts(make_mesh):
    state = init_state(TINY, make_mesh(data=2, expert=4), sgd_momentum())
    kernel = state.params["blocks"][0]["moe"]["experts"]["kernel_in"]
    assert kernel.shape == (8, 32, 128)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 32, 128)}


def test_the_initial_values_depend_on_the_seed_and_not_on_the_mesh(make_mesh):
    spread = init_state(preset("tiny", layers=1), make_mesh(expert=8), sgd_momentum(), seed=3)
    one = preset("tiny", layers=1, experts_per_device=16)
    alone = init_state(one, make_mesh(expert=1), sgd_momentum(), seed=3)
    other = init_state(one, make_mesh(expert=1), sgd_momentum(), seed=4)
    jax.tree.map(np.testing.assert_array_equal, spread.params, alone.params)
    embedding, different = (s.params["token_embedding"]["embedding"] for s in (alone, other))
    assert not np.array_equal(embedding, different)


def test_abstract_values_need_no_devices():
    mesh = AbstractMesh((64,), ("expert",))
    config = preset("gpt2_l_moe")
    before = len(jax.live_arrays())
    state = abstract_state(config, mesh, adamw())
    inputs, targets = abstract_batch(config, mesh)
    assert len(jax.live_arrays()) == before
    assert state.params["blocks"][0]["moe"]["experts"]["kernel_in"].shape == (128, 1024, 4096)
    assert inputs.shape == targets.shape == batch_shape(config, mesh) == (512, 512)
    assert inputs.dtype == jnp.int32
    assert inputs.sharding.shard_shape(inputs.shape) == (8, 512)


def test_param_dtype_reaches_parameters_and_moments(make_mesh):
    config = preset("tiny", layers=1, param_dtype=jnp.bfloat16)
    state = abstract_state(config, make_mesh(expert=2), sgd_momentum())
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state))} == {
        jnp.dtype(jnp.bfloat16)
    }


@pytest.mark.parametrize("fields", [{}, {"data_axis": "batch"}, {"expert_axis": None}])
@pytest.mark.parametrize("function", [init_state, abstract_state, make_train_step])
def test_axes_of_mesh_and_config_must_agree(make_mesh, function, fields: dict):
    with pytest.raises(ValueError, match=r"the mesh has axes \('data', 'expert'\)"):
        function(preset("tiny", **fields), make_mesh(data=2, expert=4), sgd_momentum())
