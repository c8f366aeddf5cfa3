"""Meshes for the tests of `lancet_jax.nn`."""

from collections.abc import Callable

import jax
import pytest
from jax.sharding import AxisType, Mesh

MeshMaker = Callable[..., Mesh]


@pytest.fixture
def make_mesh() -> MeshMaker:
    """Makes a mesh from axis sizes: `make_mesh(data=2, expert=4)`."""

    def make(*, explicit: bool = False, **sizes: int) -> Mesh:
        count = 1
        for size in sizes.values():
            count *= size
        kind = AxisType.Explicit if explicit else AxisType.Auto
        return jax.make_mesh(
            tuple(sizes.values()),
            tuple(sizes),
            devices=jax.devices()[:count],
            axis_types=(kind,) * len(sizes),
        )

    return make
