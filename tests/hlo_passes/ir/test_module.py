import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hlo_passes.errors import InputError, PlanError
from hlo_passes.ir.stablehlo.module import Module


@pytest.fixture(scope="module")
def lowered():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "expert"))

    @jax.jit
    def layer(x, w):
        y = lax.all_to_all(x @ w, "expert", 0, 0, tiled=True)
        return jnp.tanh(y)

    def step(x, w):
        def body(x, w):
            def loop(c, _):
                return layer(c, w), None

            y, _ = lax.scan(loop, x, None, length=5)
            return y + lax.psum(layer(x, w), ("data", "expert"))

        spec = P(("data", "expert"))
        return jax.shard_map(
            body, mesh=mesh, in_specs=(spec, P()), out_specs=spec, check_vma=False
        )(x, w)

    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, P()))
    w = jax.ShapeDtypeStruct((16, 16), jnp.float32, sharding=NamedSharding(mesh, P()))
    return jax.jit(step).lower(x, w)


@pytest.fixture(scope="module")
def module(lowered):
    return Module.copy_of(lowered.compiler_ir())


def test_a_copy_leaves_the_original_alone(lowered):
    before = lowered.as_text()
    copy = Module.copy_of(lowered.compiler_ir())
    assert "func.call" not in copy.text()
    assert lowered.as_text() == before
    assert "func.call" in before


def test_the_body_is_the_one_manual_region(module):
    graph = module.snapshot()
    kinds = [op.kind for op in graph.ops]
    assert kinds.count("while") == 1
    assert kinds.count("all_to_all") == 1
    assert kinds[-1] == "return"
    assert module.devices == 8


def test_exchanges_name_their_groups_by_mesh_axis(module):
    graph = module.snapshot()
    (a2a,) = [op for op in graph.ops if op.kind == "all_to_all"]
    (psum,) = [op for op in graph.ops if op.kind == "all_reduce"]
    assert a2a.collective.groups == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert psum.collective.groups == (tuple(range(8)),)
    assert a2a.collective.bytes == 8 * 16 * 4
    assert a2a.source.endswith(".py:" + a2a.source.rsplit(":", 1)[1])
    assert "shard_map" in a2a.scope


def test_loops_are_graphs_of_their_own(module):
    (loop,) = [op for op in module.snapshot().ops if op.kind == "while"]
    (body,) = loop.inner
    assert loop.trips == 5
    assert [op.kind for op in body.ops].count("all_to_all") == 1


def test_values_that_a_loop_captures_are_its_operands(module):
    graph = module.snapshot()
    (loop,) = [op for op in graph.ops if op.kind == "while"]
    read = {v for op in loop.inner[0].ops for v in op.operands}
    outside = {v for v in read if loop.inner[0].values[v].op < 0}
    assert len(outside) <= len(loop.operands)


@pytest.mark.parametrize("form", ["text", "bytecode", "locations"])
def test_parse_reads_what_text_writes(module, form):
    if form == "bytecode":
        import io

        buffer = io.BytesIO()
        module.ir.operation.write_bytecode(buffer)
        again = Module.parse(buffer.getvalue())
    else:
        again = Module.parse(module.text(locations=form == "locations"))
    assert again.fingerprint == module.fingerprint
    assert [op.kind for op in again.snapshot().ops] == [op.kind for op in module.snapshot().ops]


def test_reordering_keeps_the_program_and_the_original(module):
    graph = module.snapshot()
    order = list(range(len(graph.ops)))
    swap = next(
        i for i in range(len(order) - 2)
        if i not in graph.preds[i + 1]
    )  # fmt: skip
    order[swap], order[swap + 1] = order[swap + 1], order[swap]
    before = module.fingerprint
    other = module.reordered({"main": order})
    assert module.fingerprint == before
    assert [op.kind for op in other.snapshot().ops] == [graph.ops[i].kind for i in order]


def test_an_illegal_order_is_refused(module):
    graph = module.snapshot()
    reader = next(op.id for op in graph.ops if op.operands and graph.preds[op.id])
    order = list(range(len(graph.ops)))
    order.remove(reader)
    order.insert(0, reader)
    with pytest.raises(Exception, match="dominate"):
        module.reordered({"main": order})
    with pytest.raises(PlanError):
        module.reordered({"main": [0]})


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ("module { func.func @main() { return } ", "x.mlir"),
        ("module {\n  func.func @main() {\n    stablehlo.nonsense\n  }\n}", "x.mlir:3"),
        (b"ML\xefR\x00\x01", "x.mlir"),
    ],
)
def test_damage_is_one_clear_error_with_a_place(data, place):
    with pytest.raises(InputError) as caught:
        Module.parse(data, "x.mlir")
    assert str(caught.value).startswith(place)
    assert "try:" in str(caught.value)


def test_a_module_without_a_function():
    with pytest.raises(InputError, match="no function"):
        Module.parse("module {}").snapshot()
