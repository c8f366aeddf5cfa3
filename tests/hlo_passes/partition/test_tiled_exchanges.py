"""All-to-alls in the partitioner's form become JAX's, with the same numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filecheck.matcher import Matcher
from filecheck.options import Options
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.partition.tiled_exchanges import tile_exchanges
from lancet_jax.seams import compiling
from lancet_jax.seams.step_module import mark

FILE = Path(__file__).parent / "files" / "tiled.mlir"


def test_every_form_of_the_file(tmp_path):
    module = Module.parse(FILE.read_text())
    with module.ir.context:
        assert tile_exchanges(module.ir) == 3
    module.verify()
    out = tmp_path / "out.txt"
    out.write_text(module.text())
    assert Matcher.from_opts(Options(match_filename=str(FILE), input_file=str(out))).run() == 0


@pytest.mark.parametrize("shape", [(16, 3, 32), (16, 1, 4), (8, 2, 16), (2, 16, 8), (1, 8, 8)])
@pytest.mark.parametrize("dims", [(0, 1), (1, 0), (2, 0), (0, 2), (1, 2)])
def test_the_numbers_are_those_of_the_partitioners_form(shape, dims):
    """The partitioner's form, written by hand for any dims, against itself rewritten."""
    split, concat = dims
    if shape[split] % 8:
        pytest.skip("the dim cannot be dealt out")
    mesh = Mesh(np.array(jax.devices()[:8]), ("x",))

    def body(x):
        x = x[0]
        blocked = x.reshape(*x.shape[:split], 8, x.shape[split] // 8, *x.shape[split + 1 :])
        y = lax.all_to_all(blocked, "x", split, split, tiled=True)
        y = jnp.moveaxis(y, split, concat)
        made = [*y.shape[:concat], 8 * y.shape[concat + 1], *y.shape[concat + 2 :]]
        return y.reshape(made)[None]

    step = jax.shard_map(body, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    x = jnp.arange(8 * np.prod(shape), dtype=jnp.float32).reshape(8, *shape)

    class Tiled:
        count = 0

        def compile(self, request, xla):
            copy = Module.copy_of(request.module)
            with copy.ir.context:
                Tiled.count += tile_exchanges(copy.ir)
            copy.verify()
            mark(copy.ir, "tiled")
            return xla.compile(copy.ir)

    expected = jax.jit(step)(x)
    with compiling.rewriting(Tiled()):
        got = jax.jit(lambda x: step(x))(x)
    assert Tiled.count == 1
    assert np.array_equal(expected, got)
