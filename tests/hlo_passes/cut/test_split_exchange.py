from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxlib.mlir import ir

from hlo_passes.cut.rules.catalogue import rule_of
from hlo_passes.cut.states import Cut, OpSplit, Spot
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.proofs.engine import NotProved
from tests.hlo_passes.cut.splitting import (
    Variant,
    accepted,
    check_every_cut,
    lower,
    refusals,
    run,
    split_one,
    the,
)

GROUPS = "replica_groups = dense<[[0, 1, 2, 3], [4, 5, 6, 7]]> : tensor<2x4xi64>"
_REGION = """({{
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %s = stablehlo.{reducer} %p, %q : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }})"""


@dataclass(frozen=True)
class Exchange:
    """One exchange of groups of four devices.

    Attributes:
        kind: of the op.
        attributes: of the op.
        result: its dims; it exchanges 32x64.
        dims: (k, outer) to the dims that may be cut, per operand and result.
        reducer: what its region applies, if it has one.
    """

    kind: str
    attributes: str
    result: str
    dims: dict[tuple[int, int], dict[str, set[int]]] = field(default_factory=dict)
    reducer: str = ""

    def module(self) -> Module:
        region = _REGION.format(reducer=self.reducer) if self.reducer else ""
        return Module.parse(f"""module attributes {{mhlo.num_replicas = 8 : i32}} {{
          func.func public @main(%x: tensor<32x64xf32>) -> tensor<{self.result}xf32> {{
            %0 = "stablehlo.{self.kind}"(%x) <{{{self.attributes}}}> {region}
              : (tensor<32x64xf32>) -> tensor<{self.result}xf32>
            return %0 : tensor<{self.result}xf32>
          }}
        }}""")


def _all_to_all(split: int, concat: int, result: str, dims) -> Exchange:
    attributes = f"split_dimension = {split} : i64, concat_dimension = {concat} : i64, split_count = 4 : i64, {GROUPS}"
    return Exchange("all_to_all", attributes, result, dims)


_BOTH = {"o0": {0, 1}, "r0": {0, 1}}
_COLUMNS = {"o0": {1}, "r0": {1}}

EXCHANGES = [
    _all_to_all(0, 0, "32x64", {(2, 1): _COLUMNS, (2, 2): _COLUMNS, (2, 4): _BOTH}),
    # The dim that is dealt out goes from blocks to none, the one that is collected back.
    _all_to_all(
        0, 1, "8x256",
        {(2, 1): {"o0": {1}, "r0": {0}}, (2, 2): {"o0": {1}, "r0": {0}}, (2, 4): _BOTH,
         (2, 8): {"o0": {0, 1}, "r0": {1}}},
    ),
    _all_to_all(
        1, 0, "128x16", {(2, 1): {"o0": {0}, "r0": {1}}, (2, 4): _BOTH, (2, 8): _BOTH}
    ),
    Exchange("all_reduce", GROUPS, "32x64", {(2, 1): _BOTH, (4, 2): _BOTH}, "add"),
    Exchange("all_reduce", GROUPS, "32x64", {(2, 1): _BOTH, (4, 2): _BOTH}, "maximum"),
    Exchange(
        "collective_permute",
        "source_target_pairs = dense<[[0, 1], [1, 2], [2, 0], [5, 4]]> : tensor<4x2xi64>",
        "32x64", {(2, 1): _BOTH, (4, 2): _BOTH},
    ),
    Exchange("all_gather", f"all_gather_dim = 0 : i64, {GROUPS}", "128x64",
             {(2, 1): _COLUMNS, (2, 4): _COLUMNS}),
    Exchange("reduce_scatter", f"scatter_dimension = 0 : i64, {GROUPS}", "8x64",
             {(2, 1): _COLUMNS, (2, 4): _COLUMNS}, "add"),
]  # fmt: skip


@pytest.mark.parametrize("case", EXCHANGES, ids=lambda c: f"{c.kind} to {c.result} {c.reducer}")
def test_every_cut_that_a_rule_allows_exchanges_the_same(case):
    x = np.random.default_rng(0).integers(-8, 8, (8, 32, 64)).astype(np.float32)
    found = check_every_cut(case.module(), case.kind, [x], replicas=8, outers=(1, 2, 4, 8))
    for (k, outer), dims in case.dims.items():
        assert accepted(found, k, outer) == dims, (k, outer)
    assert all(len(reason) > 10 for reason in refusals(found))


_TWO = """func.func @main(%x: tensor<32x64xf32>, %y: tensor<{other}xf32>)
    -> (tensor<32x64xf32>, tensor<{other}xf32>) {{
  %0:2 = "stablehlo.{kind}"(%x, %y) <{{{attributes}}}> {region}
    : (tensor<32x64xf32>, tensor<{other}xf32>) -> (tensor<32x64xf32>, tensor<{other}xf32>)
  return %0#0, %0#1 : tensor<32x64xf32>, tensor<{other}xf32>
}}"""


def test_an_exchange_of_tensors_of_two_shapes_is_refused():
    region = _REGION.format(reducer="add")
    text = _TWO.format(kind="all_reduce", attributes=GROUPS, region=region, other="16x16")
    assert "several tensors" in _refusal(text)


def test_an_all_to_all_of_two_tensors_is_refused():
    attributes = (
        f"split_dimension = 0 : i64, concat_dimension = 0 : i64, split_count = 4 : i64, {GROUPS}"
    )
    text = _TWO.format(kind="all_to_all", attributes=attributes, region="", other="32x64")
    assert "several tensors" in _refusal(text)


def _refusal(text: str) -> str:
    module = Module.parse(text)
    op = module.body.operations[0].operation
    with pytest.raises(NotProved) as caught:
        rule_of(op).cut(op, Spot("operand", 0), Cut(0), 2)
    return str(caught.value)


@pytest.mark.parametrize("k", [2, 4])
def test_an_exchange_inside_shard_map_is_the_same_in_parts(k):
    mesh = Mesh(np.array(jax.devices()), ("d",))

    def step(x, w):
        def body(x, w):
            y = lax.all_to_all(x @ w, "d", 0, 0, tiled=True)
            return jnp.maximum(lax.psum(y, "d"), 0)

        return jax.shard_map(
            body, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=False
        )(x, w)

    rng = np.random.default_rng(0)
    x = rng.integers(-4, 4, (8, 16, 8)).astype(np.float32)
    w = np.broadcast_to(rng.integers(-4, 4, (8, 8)).astype(np.float32), (8, 8, 8))
    sharded = jax.ShapeDtypeStruct((128, 8), np.float32, sharding=jax.NamedSharding(mesh, P("d")))
    whole = jax.ShapeDtypeStruct((8, 8), np.float32, sharding=jax.NamedSharding(mesh, P()))
    module = lower(step, sharded, whole)
    cut = module.copy()
    for kind in ("all_to_all", "all_reduce"):
        _replace(cut, kind, Cut(1), k)
    assert cut.text().count('"stablehlo.all_to_all"') == k
    # Every device gets its own rows, and all of the weights.
    arguments = [x.reshape(128, 8), w[0]]
    specs = [P("d"), P()]
    (want,), (got,) = (
        run(m, arguments, partitions=8, specs=specs) for m in (module, cut)
    )  # fmt: skip
    assert want.tobytes() == got.tobytes()
    assert np.any(want)


def _replace(module: Module, kind: str, cut: Cut, k: int) -> None:
    op = the(module, kind)
    spot = Spot("operand", 0)
    split = rule_of(op).cut(op, spot, cut, k)
    assert isinstance(split, OpSplit)
    with module.ir.context, ir.Location.unknown():
        with ir.InsertionPoint(op):
            made = split_one(op, Variant(spot, cut, k, split))
        for old, new in zip(op.results, made, strict=True):
            old.replace_all_uses_with(new)
    op.erase()
    module.verify()
