"""How XLA prints shardings, and which axes they are."""

import pytest

from hlo_passes.partition.shardings import MeshAxes, Named, mesh_of, named_on, parse_shardings

MESH = MeshAxes((("x", 2), ("y", 4)))


def axes(text, mesh=MESH):
    return named_on(parse_shardings(text)[0], mesh)


@pytest.mark.parametrize(
    ("text", "dims"),
    [
        ("{replicated}", ()),
        ("{mesh[], replicated}", ()),
        ("{mesh['x'=2,'y'=4], [{'x'}, {}]}", (("x",), ())),
        ("{mesh['x'=2,'y'=4], [{}, {'y','x'}]}", ((), ("y", "x"))),
        ("{mesh['x'=2,'y'=4], [{'x'}, {}], replicated={'y'}}", (("x",), ())),
        ("{devices=[8,1]<=[8]}", (("x", "y"), ())),
        ("{devices=[4,1,2]<=[2,4]T(1,0) last_tile_dim_replicate}", (("y",), ())),
        ("{devices=[2,1,4]<=[8] last_tile_dim_replicate}", (("x",), ())),
        ("{devices=[1,8]<=[2,4]T(1,0)}", ((), ("y", "x"))),
        ("{devices=[2,1,4]0,1,2,3,4,5,6,7 last_tile_dim_replicate}", (("x",), ())),
    ],
)
def test_a_sharding_is_axes_per_dim(text, dims):
    assert axes(text) == dims


@pytest.mark.parametrize(
    "text",
    [
        "{maximal device=0}",
        "{manual}",
        "{mesh['x'=2,'y'=4], [{'y':(1)2}, {}]}",
        "{mesh['x'=2,'y'=4], [{'x'}], unreduced={'y'}}",
        "{devices=[2,1,4]<=[8] last_tile_dims={manual}}",
    ],
)
def test_what_is_not_known_is_refused(text):
    with pytest.raises(ValueError, match="sharding that"):
        parse_shardings(text)


def test_a_grid_that_no_axes_make_is_refused():
    with pytest.raises(ValueError, match="no axes"):
        axes("{devices=[2,1,4]<=[4,2]T(1,0) last_tile_dim_replicate}")


def test_tuples_and_the_mesh_that_they_agree_on():
    some = parse_shardings("{{replicated}, /*index=1*/{mesh['x'=2,'y'=4], [{'x'}]}}")
    assert some[0] == Named()
    assert mesh_of(some) == MESH
    others = parse_shardings("{{mesh['x'=8], [{'x'}]}, {mesh['x'=2,'y'=4], [{'x'}]}}")
    with pytest.raises(ValueError, match="several meshes"):
        mesh_of(others)
