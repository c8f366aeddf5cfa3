"""What XLA makes of ragged exchanges on GPUs, and that our order of them holds."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lancet_jax

ROWS, WIDTH = 1024, 768
LHS = {"xla_gpu_enable_latency_hiding_scheduler": True}


@pytest.fixture(scope="module")
def mesh():
    return lancet_jax.aot.target("h100:1x8").mesh(expert=8)


def body(x, y, u, w, v, sizes):
    """A ragged exchange and a dense one around an expert; `y` and `u` wait for neither."""
    offsets = jnp.arange(8, dtype=jnp.int32) * ROWS
    there = jnp.full(8, ROWS, jnp.int32) * lax.axis_index("expert")
    with set_xla_metadata(lancet_fill="0.25"):
        got = lax.ragged_all_to_all(
            jnp.tanh(x @ w), jnp.zeros_like(x), offsets, sizes, there, sizes, axis_name="expert"
        )
    back = lax.all_to_all((got @ v).reshape(8, ROWS, WIDTH), "expert", 0, 0, tiled=True)
    total = lax.psum((y.T @ u).astype(jnp.float32), "expert")
    return back, total, y @ w.T


def compiled(mesh, pipeline, options):
    rows = NamedSharding(mesh, P("expert"))
    tokens, weight = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)
        for shape, sharding in (
            ((64 * ROWS, WIDTH), rows),
            ((WIDTH, WIDTH), NamedSharding(mesh, P())),
        )
    )
    sizes = jax.ShapeDtypeStruct((64,), jnp.int32, sharding=rows)
    specs = (P("expert"),) * 3 + (P(), P(), P("expert"))
    step = jax.shard_map(
        body, mesh=mesh, in_specs=specs, out_specs=(P("expert"), P(), P("expert")), check_vma=False
    )
    lowered = lancet_jax.jit(step, pipeline=pipeline, on_unsupported="raise").lower(
        tokens, tokens, tokens, weight, weight, sizes
    )
    return lowered.compile(options)


def ragged(result):
    """Return the final graph and its one ragged exchange."""
    graph = result.scheduled.snapshot()
    (op,) = [op for op in graph.ops if op.collective and "ragged" in op.collective.kind]
    return graph, op


def test_our_order_holds_and_hides_it(mesh):
    result = compiled(mesh, "dw", LHS)
    graph, op = ragged(result)
    assert result.drift().moved == 0
    assert op.kind == "ragged_all_to_all_start"
    between = graph.ops[op.id + 1 : graph.done_of[op.id]]
    assert any(other.matmul for other in between)
    assert op.collective.groups == (tuple(range(8)),)
    assert op.collective.bytes == 8 * ROWS * WIDTH * 2


@pytest.mark.parametrize("options", [{}, LHS], ids=["default", "lhs"])
def test_its_fill_survives_and_is_priced(mesh, options):
    result = compiled(mesh, "dw", options)
    _, op = ragged(result)
    assert op.collective.fill == 0.25
    quarter, whole = sorted(w.us for w in result.schedule().windows if w.is_all_to_all)
    assert quarter < whole / 2


def test_xla_alone_hides_nothing_unless_its_scheduler_is_on(mesh):
    _, alone = ragged(compiled(mesh, "off", {}))
    assert alone.blocking
    helped, op = ragged(compiled(mesh, "off", LHS))
    assert helped.done_of[op.id] > op.id + 1


@pytest.mark.parametrize("options", [{}, LHS], ids=["default", "lhs"])
def test_xla_prices_compute_beside_it_and_copies_nothing(mesh, options):
    result = compiled(mesh, "dw", options)
    graph, _ = ragged(result)
    products = [op for op in graph.ops if op.matmul]
    assert len(products) >= 4
    assert all(op.xla_us and op.xla_us > 1 for op in products)
    assert not [op.name for op in graph.ops if op.kind.startswith("copy")]


def test_it_takes_the_zeros_memory(mesh):
    graph, op = ragged(compiled(mesh, "dw", LHS))
    (output,) = op.overwrites
    assert output == op.operands[1]
    assert graph.users[output] == (op.id,)
