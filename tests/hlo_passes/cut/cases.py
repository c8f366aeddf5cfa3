"""Programs of one interesting op each, and the dims along which it may be cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jax import lax

from hlo_passes.ir.stablehlo.module import Module
from tests.hlo_passes.cut.splitting import lower


@dataclass(frozen=True)
class Case:
    """One op.

    Attributes:
        name: for the test's name.
        kind: of the op.
        f: the program, or its text.
        args: its arguments.
        dims: per operand and result ("o0", "r0") the dims that may be cut.
        exact: whether parts must agree bit for bit.
    """

    name: str
    kind: str
    f: Callable | str
    args: Sequence
    dims: dict[str, set[int]] = field(default_factory=dict)
    exact: bool = True

    def module(self) -> Module:
        """Lower it."""
        if isinstance(self.f, str):
            return Module.parse(self.f)
        return lower(self.f, *self.args)


def numbers(*shape: int, seed: int = 0, low: int = -8, high: int = 8) -> np.ndarray:
    """Return whole numbers, so that sums are exact in any order."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)


def picks(*shape: int, size: int, seed: int = 1) -> np.ndarray:
    """Return indices, some of them twice."""
    return np.random.default_rng(seed).integers(0, size, shape).astype(np.int32)


def table_scatter(kind: str, **options):
    """Return a scatter of rows, raw: no wrapping of negative indices."""
    dims = lax.ScatterDimensionNumbers((1,), (0,), (0,))
    apply = {"add": lax.scatter_add, "set": lax.scatter, "min": lax.scatter_min,
             "max": lax.scatter_max, "mul": lax.scatter_mul}[kind]  # fmt: skip
    return lambda x, i, u: apply(x, i, u, dims, mode="drop", **options)


def _windowed_scatter(x, i, u):
    """The index moves along dim 1, whose updates span it: out of bounds means left out."""
    dims = lax.ScatterDimensionNumbers((0, 1), (), (1,))
    return lax.scatter_add(x, i, u, dims, mode="drop")


def _batched_scatter(x, i, u):
    dims = lax.ScatterDimensionNumbers((), (1,), (1,), (0,), (0,))
    return lax.scatter_add(x, i, u, dims, mode="drop")


def _last_batched_scatter(x, i, u):
    """The batching dim of the indices stands behind the one that counts updates."""
    dims = lax.ScatterDimensionNumbers((), (1,), (1,), (0,), (1,))
    return lax.scatter(x, i, u, dims, mode="drop")


def _two_dim_scatter(unique: bool):
    dims = lax.ScatterDimensionNumbers((2,), (0,), (0,))
    return lambda x, i, u: lax.scatter(x, i, u, dims, mode="drop", unique_indices=unique)


def _gather(dims: lax.GatherDimensionNumbers, sizes: tuple[int, ...]):
    return lambda x, i: lax.gather(x, i, dims, sizes, mode="clip")


def _windows(x, dims, strides=None, padding="VALID"):
    return lax.reduce_window(x, -np.inf, lax.max, dims, strides or (1,) * x.ndim, padding)


CLAMP_BY_SCALARS = """func.func @main(%l: tensor<f32>, %x: tensor<8x16xf32>, %h: tensor<f32>)
    -> tensor<8x16xf32> {
  %0 = stablehlo.clamp %l, %x, %h : (tensor<f32>, tensor<8x16xf32>, tensor<f32>) -> tensor<8x16xf32>
  return %0 : tensor<8x16xf32>
}"""

GATHER_COORDINATES_FIRST = """func.func @main(%x: tensor<8x8x16xf32>, %i: tensor<2x8xi32>)
    -> tensor<8x16xf32> {
  %0 = "stablehlo.gather"(%x, %i) <{
    dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0, 1],
      start_index_map = [1, 0], index_vector_dim = 0>,
    slice_sizes = array<i64: 1, 1, 16>}>
    : (tensor<8x8x16xf32>, tensor<2x8xi32>) -> tensor<8x16xf32>
  return %0 : tensor<8x16xf32>
}"""

GATHER_WITHOUT_COORDINATES = """func.func @main(%x: tensor<8x16xf32>, %i: tensor<8x4xi32>)
    -> tensor<8x16x4xf32> {
  %0 = "stablehlo.gather"(%x, %i) <{
    dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0],
      start_index_map = [0], index_vector_dim = 2>,
    slice_sizes = array<i64: 1, 16>}>
    : (tensor<8x16xf32>, tensor<8x4xi32>) -> tensor<8x16x4xf32>
  return %0 : tensor<8x16x4xf32>
}"""

SCATTER_INTO_TWO = """func.func @main(%x: tensor<8x16xf32>, %i: tensor<8x1xi32>, %u: tensor<8x16xf32>)
    -> (tensor<8x16xf32>, tensor<8x16xf32>) {
  %0:2 = "stablehlo.scatter"(%x, %x, %i, %u, %u) <{
    scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1],
      inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<f32>, %d: tensor<f32>):
    stablehlo.return %c, %d : tensor<f32>, tensor<f32>
  }) : (tensor<8x16xf32>, tensor<8x16xf32>, tensor<8x1xi32>, tensor<8x16xf32>, tensor<8x16xf32>)
     -> (tensor<8x16xf32>, tensor<8x16xf32>)
  return %0#0, %0#1 : tensor<8x16xf32>, tensor<8x16xf32>
}"""


def _constant(value: str, kind: str) -> str:
    return f"""func.func @main() -> tensor<{kind}> {{
  %0 = stablehlo.constant {value} : tensor<{kind}>
  return %0 : tensor<{kind}>
}}"""


def _reducing(body: str) -> str:
    """Return a reduction of dim 0 whose region has the arguments %p and %q."""
    return f"""func.func @main(%x: tensor<8x16xf32>) -> tensor<16xf32> {{
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %z) across dimensions = [0]
      : (tensor<8x16xf32>, tensor<f32>) -> tensor<16xf32>
    reducer(%p: tensor<f32>, %q: tensor<f32>) {{
      {body}
    }}
  return %0 : tensor<16xf32>
}}"""


def _window_of(sizes: str, padding: str, start: int) -> str:
    sizes = sizes.replace("x", ", ")
    return f"""func.func @main(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {{
  %z = stablehlo.constant dense<{start}.0> : tensor<f32>
  %0 = "stablehlo.reduce_window"(%x, %z) <{{window_dimensions = array<i64: {sizes}>,
      padding = dense<[{padding}]> : tensor<2x2xi64>}}> ({{
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %s = stablehlo.add %p, %q : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }}) : (tensor<8x8xf32>, tensor<f32>) -> tensor<8x8xf32>
  return %0 : tensor<8x8xf32>
}}"""


X = numbers(8, 16)
X8 = numbers(8, 8)
Y = numbers(8, 16, seed=2)
CUBE = numbers(8, 8, 16)
ROWS = picks(8, 1, size=8)

_DOTS = [
    Case("batched", "dot_general", lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
         (CUBE, numbers(8, 16, 8)), {"o0": {0, 1, 2}, "o1": {0, 1, 2}, "r0": {0, 1, 2}}),
    Case("plain", "dot_general", lambda x, y: x @ y, (X, numbers(16, 8)),
         {"o0": {0, 1}, "o1": {0, 1}, "r0": {0, 1}}),
    Case("two batched, two contracted", "dot_general",
         lambda x, y: lax.dot_general(x, y, (((2, 3), (0, 3)), ((1, 0), (1, 2)))),
         (numbers(4, 4, 8, 4), numbers(8, 4, 4, 4)),
         {"o0": {0, 1, 2, 3}, "o1": {0, 1, 2, 3}, "r0": {0, 1}}),
    Case("rounded", "dot_general", lambda x, y: x @ y,
         (np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32),
          np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)),
         {"o0": {0, 1}, "o1": {0, 1}, "r0": {0, 1}}, exact=False),
]  # fmt: skip

_LAYOUT = [
    Case("cube", "transpose", lambda x: x.transpose(2, 0, 1), (CUBE,),
         {"o0": {0, 1, 2}, "r0": {0, 1, 2}}),
    Case("new dims", "broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (4, 8, 4, 16), (1, 3)),
         (X,), {"o0": {0, 1}, "r0": {0, 1, 2, 3}}),
    Case("dims of one", "broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (8, 8, 1), (0, 1, 2)),
         (numbers(8, 1, 1),), {"o0": {0}, "r0": {0, 1}}),
    Case("scalar", "broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (8, 8), ()),
         (np.float32(3),), {"r0": {0, 1}}),
    Case("merge", "reshape", lambda x: x.reshape(64, 16), (CUBE,),
         {"o0": {0, 1, 2}, "r0": {0, 1}}),
    Case("unmerge", "reshape", lambda x: x.reshape(2, 4, 16), (X,),
         {"o0": {0, 1}, "r0": {0, 1, 2}}),
    Case("regroup", "reshape", lambda x: x.reshape(4, 32), (X,), {"o0": {0, 1}, "r0": {0, 1}}),
    Case("thirds", "reshape", lambda x: x.reshape(4, 6), (numbers(6, 4),),
         {"o0": {0}, "r0": {0}}),
    Case("dims of one", "reshape", lambda x: x.reshape(1, 8, 1, 16, 1), (X,),
         {"o0": {0, 1}, "r0": {1, 3}}),
    Case("flat", "reshape", lambda x: x.reshape(-1), (CUBE,), {"o0": {0, 1, 2}, "r0": {0}}),
]  # fmt: skip

_REDUCE = [
    Case("add", "reduce", lambda x: jnp.sum(x, 1), (CUBE,), {"o0": {0, 1, 2}, "r0": {0, 1}}),
    Case("max", "reduce", lambda x: jnp.max(x, (0, 2)), (CUBE,), {"o0": {0, 1, 2}, "r0": {0}}),
    Case("min of ints", "reduce", lambda x: jnp.min(x, 0), (ROWS,), {"o0": {0}}),
    Case("any", "reduce", lambda x: jnp.any(x > 6, 1), (X,), {"o0": {0, 1}, "r0": {0}}),
    Case("product", "reduce", lambda x: jnp.prod(x, 0), (numbers(4, 8, low=1, high=4),),
         {"o0": {0, 1}, "r0": {0}}),
    Case("rounded", "reduce", lambda x: jnp.sum(x / 7, 0), (X,), {"o0": {0, 1}, "r0": {0}}, exact=False),
    Case("argmax", "reduce", lambda x: jnp.argmax(x, 1), (X,),
         {"o0": {0}, "o1": {0}, "r0": {0}, "r1": {0}}),
    Case("another start", "reduce",
         lambda x: lax.reduce(x, np.float32(3), lax.add, (0,)), (X,), {"o0": {1}, "r0": {0}}),
    Case("start of a maximum", "reduce",
         lambda x: lax.reduce(x, np.float32(3), lax.max, (0,)), (X,), {"o0": {0, 1}, "r0": {0}}),
    Case("returns what it was given", "reduce", _reducing("stablehlo.return %p : tensor<f32>"), (X,),
         {"o0": {1}, "r0": {0}}),
    Case("adds for nobody", "reduce",
         _reducing("%s = stablehlo.add %p, %q : tensor<f32>\n stablehlo.return %q : tensor<f32>"), (X,),
         {"o0": {1}, "r0": {0}}),
    Case("adds a number to itself", "reduce",
         _reducing("%s = stablehlo.add %q, %q : tensor<f32>\n stablehlo.return %s : tensor<f32>"), (X,),
         {"o0": {1}, "r0": {0}}),
    Case("start that is handed in", "reduce", lambda x, s: lax.reduce(x, s, lax.add, (0,)),
         (X, np.float32(0)), {"o0": {1}, "r0": {0}}),
    Case("prefix with another start", "reduce_window", _window_of("1x8", "[0, 0], [7, 0]", 3), (X8,),
         {"o0": {0}, "r0": {0}}),
    Case("prefix of two dims", "reduce_window", _window_of("8x8", "[7, 0], [7, 0]", 0), (X8,)),
    Case("moves a dim", "reduce_window", _window_of("1x8", "[1, -1], [7, 0]", 0), (X8,),
         {"o0": {1}, "r0": {1}}),
    Case("prefix", "reduce_window", lambda x: lax.cumsum(x, 1), (CUBE,),
         {"o0": {0, 1, 2}, "r0": {0, 1, 2}}),
    Case("prefix in 16 bits", "reduce_window", lambda x: lax.cumsum(x.astype(jnp.bfloat16), 1),
         (CUBE,), {"o0": {0, 2}, "r0": {0, 2}}),
    Case("suffix", "reduce_window", lambda x: lax.cumsum(x, 1, reverse=True), (CUBE,),
         {"o0": {0, 2}, "r0": {0, 2}}),
    Case("running maximum", "reduce_window", lambda x: lax.cummax(x, 0), (X,), {"o0": {1}, "r0": {1}}),
    Case("pool", "reduce_window", lambda x: _windows(x, (1, 3), padding="SAME"), (X,),
         {"o0": {0}, "r0": {0}}),
    Case("smaller", "reduce_window", lambda x: _windows(x, (1, 2), (1, 2)), (X,)),
]  # fmt: skip

_MADE = [
    Case("ints", "iota", lambda: lax.broadcasted_iota(np.int32, (8, 16), 1), (), {"r0": {0, 1}}),
    Case("narrow floats", "iota", lambda: lax.iota(jnp.bfloat16, 2048), (), {"r0": {0}}),
    Case("narrow ints", "iota", lambda: lax.iota(np.uint8, 512), (), {"r0": {0}}),
    Case("clamp by scalars", "clamp", CLAMP_BY_SCALARS, (np.float32(-2), X, np.float32(3)),
         {"o1": {0, 1}, "r0": {0, 1}}),
    Case("clamp by tensors", "clamp", lambda x, y: lax.clamp(-y, x, y), (X, abs(Y)),
         {"o0": {0, 1}, "o1": {0, 1}, "o2": {0, 1}, "r0": {0, 1}}),
    Case("floats", "constant", _constant("dense<3.0>", "8x16xbf16"), (), {"r0": {0, 1}}),
    Case("predicates", "constant", _constant("dense<true>", "8x16xi1"), (), {"r0": {0, 1}}),
    Case("complex", "constant", _constant("dense<(1.0, 2.0)>", "8x16xcomplex<f32>"), ()),
    Case("table", "constant", _constant("dense<[1, 2, 3, 4]>", "4xi32"), ()),
    Case("scalar predicate", "select", lambda p, x, y: lax.select(p, x, y), (np.bool_(True), X, Y),
         {"o1": {0, 1}, "o2": {0, 1}, "r0": {0, 1}}),
    Case("same width", "bitcast_convert", lambda x: lax.bitcast_convert_type(x, np.int32), (X,),
         {"o0": {0, 1}, "r0": {0, 1}}),
    Case("other width", "bitcast_convert", lambda x: lax.bitcast_convert_type(x, np.int16), (X,)),
]  # fmt: skip

_SLICING = [
    Case("slice", "slice", lambda x: x[:, 2:10], (X,), {"o0": {0}, "r0": {0}}),
    Case("strided", "slice", lambda x: x[::2], (X,), {"o0": {1}, "r0": {1}}),
    Case("at an argument", "dynamic_slice",
         lambda x, i: lax.dynamic_slice(x, (i, i), (4, 16)), (X, np.int32(3)), {"o0": {1}, "r0": {1}}),
    Case("at an argument", "dynamic_update_slice",
         lambda x, y, i: lax.dynamic_update_slice(x, y, (i, i)), (X, Y[:4], np.int32(3)),
         {"o0": {1}, "o1": {1}, "r0": {1}}),
    Case("edge", "pad", lambda x: lax.pad(x, np.float32(5), ((1, 3, 0), (0, 0, 0))), (X,),
         {"o0": {1}, "r0": {1}}),
    Case("shift", "pad", lambda x: lax.pad(x, np.float32(5), ((1, -1, 0), (0, 0, 0))), (X,),
         {"o0": {1}, "r0": {1}}),
    Case("holes", "pad", lambda x: lax.pad(x, np.float32(5), ((0, 0, 0), (0, 1, 1))), (X,),
         {"o0": {0}, "r0": {0}}),
    Case("three", "concatenate", lambda x, y: jnp.concatenate([x, y, x], 1), (X, Y),
         {"o0": {0}, "o1": {0}, "o2": {0}, "r0": {0}}),
    Case("one dim", "reverse", lambda x: jnp.flip(x, 1), (CUBE,), {"o0": {0, 2}, "r0": {0, 2}}),
]  # fmt: skip

_GATHER = [
    Case("lookup", "gather", lambda x, i: x[i], (X, picks(4, 8, size=8)),
         {"o0": {1}, "o1": {0, 1}, "r0": {0, 1, 2}}),
    Case("along an axis", "gather", lambda x, i: jnp.take_along_axis(x, i, 1),
         (X, picks(8, 4, size=16)), {"o0": {0}, "o1": {0, 1}, "r0": {0, 1}}),
    Case("windows", "gather",
         _gather(lax.GatherDimensionNumbers((0, 1), (), (0, 1)), (4, 16)),
         (X, picks(8, 2, size=16)), {"o0": {1}, "o1": {0}, "r0": {1, 2}}),
    Case("coordinates first", "gather", GATHER_COORDINATES_FIRST, (CUBE, picks(2, 8, size=8)),
         {"o0": {2}, "o1": {1}, "r0": {0, 1}}),
    Case("no coordinates", "gather", GATHER_WITHOUT_COORDINATES, (X, picks(8, 4, size=8)),
         {"o0": {1}, "o1": {0, 1}, "r0": {0, 1, 2}}),
]  # fmt: skip

_ROW_CUTS = {"o0": {1}, "o1": {0}, "o2": {0, 1}, "r0": {1}}
_ROW_ARGS = (X, ROWS, Y)

_SCATTER = [
    *(Case(kind, "scatter", table_scatter(kind), _ROW_ARGS, _ROW_CUTS)
      for kind in ("add", "set", "min", "max")),
    Case("out of bounds", "scatter", table_scatter("add"), (X, picks(8, 1, size=16), Y), _ROW_CUTS),
    Case("mul", "scatter", table_scatter("mul"), _ROW_ARGS, {"o0": {1}, "o2": {1}, "r0": {1}}),
    Case("index along a spanned dim", "scatter", _windowed_scatter,
         (X, np.array([[0], [1], [0], [0]], np.int32), numbers(8, 16, 4)),
         {"o0": {0}, "o1": {0}, "o2": {0, 2}, "r0": {0}}),
    Case("batched", "scatter", _batched_scatter, (X, picks(8, 4, 1, size=16), numbers(8, 4)),
         {"o0": {0}, "o1": {0, 1}, "o2": {0, 1}, "r0": {0}}),
    Case("batched last", "scatter", _last_batched_scatter,
         (X, picks(4, 8, 1, size=16), numbers(4, 8)),
         {"o0": {0}, "o1": {0, 1}, "o2": {0, 1}, "r0": {0}}),
    Case("two dims of updates", "scatter", _two_dim_scatter(False),
         (X, picks(4, 8, 1, size=8), numbers(4, 8, 16)),
         {"o0": {1}, "o1": {0}, "o2": {0, 2}, "r0": {1}}),
    Case("two dims of unique updates", "scatter", _two_dim_scatter(True),
         (numbers(32, 16), np.random.default_rng(0).permutation(32).astype(np.int32).reshape(4, 8, 1),
          numbers(4, 8, 16)), {"o0": {1}, "o1": {0, 1}, "o2": {0, 1, 2}, "r0": {1}}),
]  # fmt: skip

_ORDER = [
    Case("into two", "scatter", SCATTER_INTO_TWO, _ROW_ARGS),
    Case("two keys", "sort", lambda x, y: lax.sort((x, y), dimension=1, num_keys=2), (CUBE, CUBE),
         {name: {0, 2} for name in ("o0", "o1", "r0", "r1")}),
    Case("rows", "top_k", lambda x: lax.top_k(x, 3), (CUBE,),
         {"o0": {0, 1}, "r0": {0, 1}, "r1": {0, 1}}),
]  # fmt: skip

CASES = [*_DOTS, *_LAYOUT, *_REDUCE, *_MADE, *_SLICING, *_GATHER, *_SCATTER, *_ORDER]
