"""Table lookups and their transposes: gather and scatter.

The dims of the indices say which slices are moved; the window dims say where inside a slice. Either
kind may be cut. Two scattered parts can meet in one place, so parts of the updates make a sum: part
i scatters into what part i-1 made, and the first one into the tensor itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jax.extend.mlir.dialects import stablehlo
from jaxlib.mlir import ir

from hlo_passes.cut.rules.rule import OpLoop, Part, Rule, Rules, by_factors, clone_part, clone_with
from hlo_passes.cut.states import Cut, OpSplit, Spot, Sum
from hlo_passes.ir.stablehlo.read import ints, is_unique, shape_of, update_of
from hlo_passes.proofs.engine import NotProved

_CHAINED = ("add", "minimum", "maximum")


@dataclass(frozen=True, slots=True)
class _Dims:
    """How the dims of table, indices and slices correspond.

    Attributes:
        indices: per dim of the indices that counts slices (table dim or None, it, slices dim).
        window: pairs (table dim, slices dim) of those inside a slice.
        vector: the dim of the indices that holds one index.
        indexed: the table dims that an index moves along.
    """

    indices: tuple[tuple[int | None, int, int], ...]
    window: tuple[tuple[int, int], ...]
    vector: int
    indexed: frozenset[int]


def _gather_dims(op: ir.Operation) -> _Dims:
    numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    return _dims(
        [len(shape_of(v)) for v in (op.operands[0], op.operands[1], op.results[0])],
        numbers.offset_dims,
        numbers.collapsed_slice_dims,
        (numbers.operand_batching_dims, numbers.start_indices_batching_dims),
        numbers.start_index_map,
        numbers.index_vector_dim,
    )


def _scatter_dims(op: ir.Operation) -> _Dims:
    numbers = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    return _dims(
        [len(shape_of(v)) for v in op.operands],
        numbers.update_window_dims,
        numbers.inserted_window_dims,
        (numbers.input_batching_dims, numbers.scatter_indices_batching_dims),
        numbers.scattered_dims_to_operand_dims,
        numbers.index_vector_dim,
    )


def _dims(
    ranks: Sequence[int],
    window: Sequence[int],
    absent: Sequence[int],
    batching: tuple[Sequence[int], Sequence[int]],
    indexed: Sequence[int],
    vector: int,
) -> _Dims:
    table, indices, slices = ranks
    batch = dict(zip(batching[1], batching[0], strict=True))
    counted = [d for d in range(slices) if d not in set(window)]
    counting = [d for d in range(indices) if d != vector]
    inside = [d for d in range(table) if d not in {*absent, *batching[0]}]
    return _Dims(
        tuple((batch.get(d), d, s) for d, s in zip(counting, counted, strict=True)),
        tuple(zip(inside, window, strict=True)),
        vector,
        frozenset(indexed),
    )


def _refuse_inside(dims: _Dims, spot: Spot, cut: Cut) -> None:
    if spot == Spot("operand", 1) and cut.dim == dims.vector:
        raise NotProved(
            "the cut dim holds the coordinates of one index: every part needs all of it"
        )


def _cut_gather(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    dims = _gather_dims(op)
    _refuse_inside(dims, spot, cut)
    table, sizes = shape_of(op.operands[0]), ints(op, "slice_sizes")
    factors = [OpLoop((b, d), (s,)) for b, d, s in dims.indices]
    # A slice of a dim's full size starts at 0, whatever the index says.
    factors += [OpLoop((t, None), (s,)) for t, s in dims.window if sizes[t] == table[t]]
    try:
        return by_factors(factors, spot, cut)
    except NotProved:
        raise NotProved(
            f"a gather takes pieces of dim {cut.dim} of {spot.side} {spot.index}, and any part may "
            "need any of them; cut the indices, or a dim that is taken whole"
        ) from None


def _shrink_gather(op: ir.Operation, part: Part) -> Mapping[str, ir.Attribute]:
    cut, sizes = part.split.operands[0], list(ints(op, "slice_sizes"))
    if cut is None or all(t != cut.dim for t, _ in _gather_dims(op).window):
        return {}
    sizes[cut.dim] //= part.k
    return {"slice_sizes": ir.DenseI64ArrayAttr.get(sizes)}


def _cut_scatter(op: ir.Operation, spot: Spot, cut: Cut, k: int) -> OpSplit:
    if len(op.operands) != 3:
        raise NotProved("a scatter into several tensors; scatter into one after the other")
    dims = _scatter_dims(op)
    _refuse_inside(dims, spot, cut)
    table, updates = shape_of(op.operands[0]), shape_of(op.operands[2])
    factors = [OpLoop((b, d, s), (b,)) for b, d, s in dims.indices]
    # Out of bounds means left out here, not clamped: the index must not move along the dim.
    factors += [
        OpLoop((t, None, s), (t,))
        for t, s in dims.window
        if updates[s] == table[t] and t not in dims.indexed
    ]
    try:
        split = by_factors(factors, spot, cut)
    except NotProved:
        raise NotProved(
            f"a scatter moves along dim {cut.dim} of {spot.side} {spot.index}, and any part may "
            "reach any of it; cut the updates, or a dim that they span"
        ) from None
    if split.results != (Sum("add"),):
        return split
    return OpSplit(split.operands, (Sum(_chained_by(op, dims, split)),))


def _chained_by(op: ir.Operation, dims: _Dims, split: OpSplit) -> str:
    """Return how an update changes what it meets, if parts may do so one after the other."""
    kind = update_of(op)
    if kind == "set":
        if not is_unique(op) and _comes_before(op, dims, split) > 1:
            raise NotProved("a scatter that overwrites, cut so that its updates change their "
                            "order; cut its first dim, or promise unique indices")  # fmt: skip
        return kind
    if kind not in _CHAINED:
        raise NotProved("a scatter that neither adds nor overwrites nor takes the extreme: its "
                        "parts cannot be put together; cut a dim that the updates "
                        "span")  # fmt: skip
    return kind


def _comes_before(op: ir.Operation, dims: _Dims, split: OpSplit) -> int:
    """Return how many runs of updates there are that every part takes a piece of."""
    cut, shape = split.operands[1], shape_of(op.operands[1])
    assert cut is not None
    # What another slice of a batching dim writes meets none of these.
    return cut.outer * math.prod(shape[d] for b, d, _ in dims.indices if d < cut.dim and b is None)


RULES: Rules = {
    "gather": Rule(_cut_gather, clone_with(_shrink_gather)),
    "scatter": Rule(_cut_scatter, clone_part),
}
