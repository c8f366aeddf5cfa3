"""What XLA ties together, and the options that keep it from that, pinned."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from lancet_jax.seams import cuda
from lancet_jax.seams.xla_options import _APART, compile_only_options

pytestmark = pytest.mark.skipif(
    cuda.cuda_plugin() is None, reason="the CUDA plugin is not installed"
)


@pytest.fixture(scope="module")
def mesh():
    return lancet_jax.aot.target("h100:1x8").mesh(a=8)


def instructions(mesh, function, *shapes, spec=None, **options):
    """What XLA makes of a function: of the whole mesh if a spec says where its arguments are."""
    device = mesh.devices.flat[0]
    place = SingleDeviceSharding(device) if spec is None else NamedSharding(mesh, spec)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes]
    options = {**compile_only_options([device]), **options}
    text = jax.jit(function).lower(*arguments).compile(options).as_text()
    return ScheduledModule(text).parsed.entry.instructions


def count(found, *opcodes):
    return sum(one.opcode in opcodes for one in found)


def in_pairs(mesh, exchange, given, made):
    """Two exchanges of one kind, of values that do not need each other."""

    def body(*xs):
        return tuple(exchange(x) for x in xs)

    return jax.shard_map(
        body, mesh=mesh, in_specs=(given, given), out_specs=(made, made), check_vma=False
    )


EXCHANGES = {
    "all-reduce": (lambda x: lax.psum(x, "a"), P("a"), P()),
    "all-gather": (lambda x: lax.all_gather(x, "a", tiled=True), P("a"), P()),
    "reduce-scatter": (lambda x: lax.psum_scatter(x, "a", tiled=True), P(), P("a")),
}


def test_nothing_is_fused_horizontally(mesh):
    """Six kernels that have nothing to do with each other stay six, whatever their sizes."""
    sizes = [(128 * 2**i,) for i in range(6)]
    found = instructions(mesh, lambda *xs: [jnp.sin(x) * 2 + 1 for x in xs], *sizes)
    assert count(found, "fusion") == 6


def test_there_is_no_option_for_horizontal_fusion(mesh):
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_use_horizontal_fusion"):
        instructions(mesh, jnp.sin, (8,), xla_gpu_use_horizontal_fusion=False)


def test_all_options_are_taken_together(mesh):
    options = {name: value for _, given in _APART.values() for name, value in given.items()}
    assert len(options) == sum(len(given) for _, given in _APART.values())
    assert instructions(mesh, jnp.sin, (8,), **options)


def test_kernels_that_read_the_same_become_one_unless_told_not_to(mesh):
    def both(x):
        return x.T * 2, jnp.sin(x)

    _, options = _APART["kernels"]
    assert count(instructions(mesh, both, (512, 4096)), "fusion") == 1
    assert count(instructions(mesh, both, (512, 4096), **options), "fusion") == 2


def test_products_that_share_an_operand_become_one_unless_told_not_to(mesh):
    def both(x, y, w):
        return x @ w, y @ w

    _, options = _APART["products"]
    shapes = [(256, 256)] * 3
    assert count(instructions(mesh, both, *shapes), "custom-call", "dot") == 1
    assert count(instructions(mesh, both, *shapes, **options), "custom-call", "dot") == 2


@pytest.mark.parametrize("kind", EXCHANGES)
def test_exchanges_are_combined_unless_told_not_to(mesh, kind):
    exchange, given, made = EXCHANGES[kind]
    function, shapes = in_pairs(mesh, exchange, given, made), [(512, 256), (512, 128)]
    _, options = _APART["exchanges"]
    kinds = (kind, f"{kind}-start")
    assert count(instructions(mesh, function, *shapes, spec=given), *kinds) == 1
    assert count(instructions(mesh, function, *shapes, spec=given, **options), *kinds) == 2
