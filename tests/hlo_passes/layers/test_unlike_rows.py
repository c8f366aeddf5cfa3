"""Layers that look like rows sent there and back, and are not: what keeps each from being cut."""

import jax
import jax.numpy as jnp
import pytest

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.row_paths import find_row_paths
from hlo_passes.layers.capacity.sites import find_sites
from tests.generator.faults import FAULTS
from tests.generator.recipe import parse
from tests.generator.steps import Build


def read(recipe):
    build = Build(parse(recipe), jnp.float32)
    module = Module.parse(jax.jit(build.step).lower(*build.arguments()).as_text())
    body = Body(module.body)
    sites = find_sites(body)
    return module, sites, find_row_paths(body, sites)


def test_a_plain_layer_is_a_path():
    module, sites, found = read("choices=lax_argmax counter=inclusive")
    assert all(site.distinct for site in (*sites.puts, *sites.fetches))
    assert len(found.paths) == 1
    assert not found.refusals
    assert module


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("dot_over_experts", "puts rows together"),
        ("reversed_experts", "reverses the cut dim 0"),
        ("rolled_experts", "takes a piece of the cut dim 0"),
        ("sorted_experts", "sort"),
        ("experts_as_features", "puts rows together"),
        ("mean_of_experts", "puts rows together"),
        ("back_over_turned_axes", "answers go to other devices than rows came from"),
        ("back_over_one_axis", "answers go to other devices than rows came from"),
        ("back_over_data", "answers go to other devices than rows came from"),
        ("back_in_half_groups", "answers go to other devices than rows came from"),
        ("back_along_experts", "answers are not sent back where rows came from"),
    ],
)
def test_experts_wait_where_rows_are_mixed_or_go_elsewhere(fault, reason):
    module, sites, found = read(FAULTS[fault].recipe)
    assert all(site.distinct for site in (*sites.puts, *sites.fetches))
    assert not found.paths
    (why,) = set(found.refusals.values())
    assert reason in why
    assert module


@pytest.mark.parametrize(
    "fault",
    ["promised_for_less", "cut_off", "too_wide", "without_sign", "minus_one", "nan",
     "into_the_next", "float8", "overflowing", "permuted"],
)  # fmt: skip
def test_rows_that_tokens_may_share_are_not_distinct(fault):
    module, sites, found = read(FAULTS[fault].recipe)
    assert sites.puts
    assert not any(site.distinct for site in (*sites.puts, *sites.fetches))
    assert not found.paths
    assert all("two tokens may share a row: " in why for why in found.refusals.values())
    assert module
